//! What an application asks and orders beside sending: links, statistics, and messages and events with one call.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{
    CnxManager, Config, Dial, Event, EventLoop, Frame, Handle, Handler, Histogram, Idle, Outbox,
    Reason, ReasonKind, Received, RecvError, SendError, Sid,
    simulation::{HostNet, Network},
};
use support::{
    LONG, Mesh, STRANGER_IP, TestConnection, bare, configure, eventually, frame, gate::Gate,
    listener, single_manager, turned::Ignore, wait_for_down, within,
};

fn pair() -> Mesh {
    Mesh::linked(&[1, 2], &[], |builder| builder)
}

#[test]
fn waits_until_so_many_peers_are_linked() {
    let mesh = Mesh::start(&[1, 2, 3], &[], |builder| builder);
    for manager in &mesh.managers {
        assert!(manager.wait_linked(2, LONG));
        let timeout = Duration::from_millis(1);
        assert!(!manager.wait_linked(3, timeout), "there are two peers");
    }
}

#[test]
fn a_halt_ends_the_wait_for_links() {
    let (manager, _) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder);
    let handle = manager.handle();
    let waiting = thread::spawn(move || handle.wait_linked(1, Duration::MAX));
    manager.halt();
    assert!(!within("the wait", move || waiting.join().unwrap()));
}

#[test]
fn disconnect_ends_one_link_which_is_dialed_again() {
    let mesh = Mesh::linked(&[1, 2, 3], &[], |builder| builder);
    let dialer = &mesh.managers[2];
    let before = dialer.stats();
    dialer.disconnect(Sid(1)).unwrap();
    assert_eq!(wait_for_down(dialer), (Sid(1), Reason::Dropped));
    assert!(dialer.wait_linked(2, LONG));
    let after = dialer.stats();
    let link = |stats: &quorum_cnx::Stats, at: usize| stats.peers[at].link.clone().unwrap().number;
    assert!(link(&after, 0) > link(&before, 0));
    assert_eq!(link(&after, 1), link(&before, 1), "the other link stays");
    assert_eq!(after.peers[0].last_end, Some(Reason::Dropped));
    let nobody = dialer.disconnect(Sid(9));
    assert_eq!(nobody, Err(SendError::UnknownPeer(Sid(9))));
}

#[test]
fn statistics_show_the_link_of_each_peer() {
    let started = Instant::now();
    let mesh = pair();
    let [smaller, larger] = [&mesh.managers[0], &mesh.managers[1]];
    let of = |manager: &CnxManager| manager.stats().peers[0].clone();
    let links = [of(smaller), of(larger)].map(|peer| peer.link.unwrap());
    assert_eq!(links.clone().map(|link| link.dialed), [false, true]);
    assert_eq!(links[1].addr.to_string(), mesh.addresses[0]);
    assert!(links.iter().all(|link| link.since >= started));
    assert_eq!(of(larger).last_received, None);

    smaller.to_send(Sid(2), "now").unwrap();
    larger.recv_timeout(LONG).unwrap();
    eventually("the time of the frame is known", || {
        of(larger).last_received >= Some(links[1].since)
    });

    smaller.halt();
    eventually("the link is down", || of(larger).link.is_none());
    assert_eq!(of(larger).last_end, Some(Reason::Closed));
    assert_eq!(of(smaller).last_end, Some(Reason::Halted));
}

#[test]
fn on_loop_start_runs_once_on_the_thread_of_each_loop() {
    let (started, starts) = channel();
    let gate = Arc::new(Gate::default());
    gate.close();
    let mesh = Mesh::start(&[1, 2], &[], |builder| {
        let (started, gate) = (started.clone(), Arc::clone(&gate));
        builder.on_loop_start(move || {
            let name = thread::current().name().unwrap().to_owned();
            started.send(name).unwrap();
            gate.pass();
        })
    });
    let names = [(); 2].map(|()| starts.recv_timeout(LONG).unwrap());
    let turns = mesh.managers.iter().map(|manager| manager.stats().turns);
    let turns: u64 = turns.sum();
    // Before anything can fail: no manager can halt while its loop is at the gate.
    gate.open();
    let names = BTreeSet::from(names);
    assert_eq!(
        names,
        ["quorum-cnx-1", "quorum-cnx-2"].map(str::to_owned).into()
    );
    assert_eq!(turns, 0, "it runs before the first turn");
    for manager in &mesh.managers {
        assert!(manager.wait_linked(1, LONG));
    }
    assert!(starts.try_recv().is_err());
}

/// Takes messages and events until there is one of each kind wanted.
fn take_both(manager: &CnxManager) -> (BTreeSet<String>, usize) {
    let (mut payloads, mut ups) = (BTreeSet::new(), 0);
    while payloads.len() < 2 || ups < 1 {
        match manager.recv_any_timeout(LONG).unwrap() {
            Received::Message(message) => {
                payloads.insert(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            Received::Event(Event::Up { .. }) => ups += 1,
            _ => {}
        }
    }
    (payloads, ups)
}

#[test]
fn one_call_waits_for_messages_and_events() {
    let idles = [Idle::Block, Idle::spin(Duration::from_micros(50))];
    for idle in idles {
        let mesh = Mesh::start(&[1, 2], &[], |builder| builder.idle(idle).dial(Dial::Eager));
        let [one, two] = [&mesh.managers[0], &mesh.managers[1]];
        one.to_send(Sid(2), "from the peer").unwrap();
        two.to_send(Sid(2), "from itself").unwrap();
        assert_eq!(take_both(two).0.len(), 2);
        let waiter = {
            let two = Arc::clone(two);
            thread::spawn(move || {
                let mut last = None;
                loop {
                    match two.recv_any() {
                        Ok(received) => last = Some(received),
                        Err(error) => return (last, error),
                    }
                }
            })
        };
        two.request_halt();
        let (last, error) = within("receiving until the end", move || waiter.join().unwrap());
        assert_eq!(last, Some(Received::Event(Event::Halted)));
        assert_eq!(error, RecvError::Halted);
    }
}

#[test]
fn neither_messages_nor_events_hold_up_the_others() {
    let mesh = pair();
    let manager = &mesh.managers[0];
    for _ in 0..4 {
        manager.to_send(Sid(1), "to itself").unwrap();
    }
    // A link is shown as linked before its event is there.
    eventually("`Listening` and `Up` wait as well", || {
        manager.stats().events.waiting >= 2
    });
    let kinds: Vec<bool> = (0..4)
        .map(|_| matches!(manager.recv_any().unwrap(), Received::Message(_)))
        .collect();
    assert_eq!(kinds, [false, true, false, true]);
}

#[test]
fn an_event_wakes_a_thread_that_waits_for_both() {
    let mesh = pair();
    let manager = &mesh.managers[1];
    for _ in 0..4 {
        // Most of the time the other thread is blocked before the link ends.
        let waiter = {
            let manager = Arc::clone(manager);
            thread::spawn(move || {
                loop {
                    if let Received::Event(Event::Down { .. }) = manager.recv_any()? {
                        return Ok::<_, RecvError>(());
                    }
                }
            })
        };
        eventually("the peer is linked", || manager.connected_to_peer(Sid(1)));
        manager.disconnect(Sid(1)).unwrap();
        let waited = within("the wait for an event", || waiter.join().unwrap());
        assert_eq!(waited, Ok(()));
    }
}

/// Applications share these between threads, and return the errors with `?`.
#[test]
fn types_are_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    shared::<CnxManager>();
    shared::<Handle>();
    shared::<quorum_cnx::Events>();
    shared::<quorum_cnx::Batch>();
    shared::<Config>();
    shared::<quorum_cnx::Stats>();
    shared::<Received>();
    error::<quorum_cnx::ConfigError>();
    error::<SendError>();
    error::<RecvError>();
    error::<quorum_cnx::TryRecvError>();
    error::<Reason>();
    error::<quorum_cnx::AddressError>();
    error::<quorum_cnx::InitialMessageError>();
}

#[test]
fn observers_do_not_count_as_linked_members() {
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder);
    let _observer = TestConnection::dial_and_write(STRANGER_IP, &address, &bare(Sid::OBSERVER.0));
    eventually("the observer is linked", || {
        !manager.linked_peers().is_empty()
    });
    assert!(!manager.wait_linked(1, Duration::ZERO));
}

#[test]
fn the_creating_thread_waits_for_links_of_another_thread() {
    let sockets = [listener(), listener()];
    let servers = [1, 2].map(|sid| (sid, sockets[sid as usize - 1].1.clone()));
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    for ((sid, _), (socket, _)) in servers.iter().zip(sockets) {
        let config = configure(*sid, &servers).listener(socket).build().unwrap();
        let mut event_loop = EventLoop::new(config, Ignore).unwrap();
        handles.push(event_loop.handle().clone());
        threads.push(thread::spawn(move || event_loop.run()));
    }
    assert!(handles[0].wait_linked(1, LONG));
    for handle in handles {
        handle.request_halt();
    }
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
}

/// A network of two servers, which are linked.
fn simulated_pair(outbox: Outbox) -> (Network, [EventLoop<Ignore, HostNet>; 2]) {
    let network = Network::new();
    let start = |sid: u8| {
        let config = Config::builder(Sid(sid.into()))
            .server(Sid(1), "10.0.0.1:3888")
            .server(Sid(2), "10.0.0.2:3888")
            .outbox(outbox);
        let net = network.host([10, 0, 0, sid]).net();
        EventLoop::with_net(config.build().unwrap(), Ignore, net).unwrap()
    };
    let mut loops = [start(1), start(2)];
    network.run(&mut loops, Duration::from_secs(3)).unwrap();
    (network, loops)
}

#[test]
fn statistics_tell_since_when_a_peer_takes_nothing() {
    for outbox in [Outbox::Latest, Outbox::QUEUE, Outbox::LANES] {
        let (network, mut loops) = simulated_pair(outbox);
        let handle = loops[1].handle().clone();
        let age = || {
            let sent = handle.stats().peers[0].sent;
            Some(network.now() - sent.waiting_since?)
        };
        network.cut([10, 0, 0, 1], [10, 0, 0, 2]);
        // Until the buffers of the sockets are full.
        while age().is_none() {
            handle.to_send(Sid(1), vec![1; 100_000]).unwrap();
            network.run(&mut loops, Duration::from_millis(10)).unwrap();
        }
        let before = age().unwrap();
        network.run(&mut loops, Duration::from_secs(60)).unwrap();
        assert!(!handle.stats().peers[0].linked);
        assert_eq!(age(), Some(before + Duration::from_secs(60)), "{outbox:?}");
        handle.to_send(Sid(1), "more").unwrap();
        assert_eq!(age(), Some(before + Duration::from_secs(60)), "{outbox:?}");
        network.heal_all();
        network.run(&mut loops, Duration::from_secs(60)).unwrap();
        assert_eq!(age(), None, "{outbox:?}");
    }
}

#[test]
fn disconnect_keeps_a_queued_frame() {
    let (network, mut loops) = simulated_pair(Outbox::QUEUE);
    let handle = loops[1].handle().clone();
    // What is written to this link now does not arrive before the link ends.
    network.cut([10, 0, 0, 1], [10, 0, 0, 2]);
    handle.to_send(Sid(1), "waits").unwrap();
    // The frame asks the loop to write, and both requests are handled in one turn.
    handle.disconnect(Sid(1)).unwrap();
    network.run(&mut loops, Duration::from_millis(1)).unwrap();
    network.heal_all();
    network.run(&mut loops, Duration::from_secs(20)).unwrap();
    let peer = handle.stats().peers[0].clone();
    assert_eq!(peer.downs, [(ReasonKind::Dropped, 1)].into());
    assert_eq!(peer.sent.written, 1);
    assert_eq!(loops[0].handle().stats().received.frames, 1);
}

/// A handler for which each frame takes some time.
struct Slow(Network);

const SLOW: Duration = Duration::from_millis(150);

impl Handler for Slow {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        self.0.advance(SLOW);
    }
}

/// How many durations are in which bucket, by its bound in microseconds.
fn counted(histogram: &Histogram) -> Vec<(Option<u128>, u64)> {
    let micros = |bound: Option<Duration>| bound.map(|bound| bound.as_micros());
    let buckets = histogram.buckets().filter(|(_, count)| *count > 0);
    buckets
        .map(|(bound, count)| (micros(bound), count))
        .collect()
}

#[test]
fn statistics_tell_how_long_turns_connects_and_handshakes_take() {
    let network = Network::new();
    let config = Config::builder(Sid(2))
        .server(Sid(1), "10.0.0.1:3888")
        .server(Sid(2), "10.0.0.2:3888")
        .server(Sid(3), "10.0.0.3:3888");
    let net = network.host([10, 0, 0, 2]).net();
    let event_loop = EventLoop::with_net(config.build().unwrap(), Slow(network.clone()), net);
    let mut loops = [event_loop.unwrap()];
    let handle = loops[0].handle().clone();
    let pass = |loops: &mut [_], millis| network.run(loops, Duration::from_millis(millis)).unwrap();

    // A link that is dialed, and a knock.
    let dials = network.take_dials();
    pass(&mut loops, 2000);
    dials.iter().for_each(|end| end.accept().unwrap());
    pass(&mut loops, 0);
    assert_eq!(
        counted(&handle.stats().connect_times),
        [(Some(2_097_152), 2)]
    );
    assert_eq!(handle.stats().connect_times.sum(), Duration::from_secs(4));

    let [far, near] = ["10.0.0.3:999", "10.0.0.2:3888"].map(|addr| addr.parse().unwrap());
    let end = network.connect(far, near).unwrap();
    end.send(&bare(3)[..7]).unwrap();
    pass(&mut loops, 3000);
    assert_eq!(handle.stats().handshake_times.count(), 0);
    end.send(&bare(3)[7..]).unwrap();
    pass(&mut loops, 0);
    assert_eq!(
        counted(&handle.stats().handshake_times),
        [(Some(4_194_304), 1)]
    );

    let before = handle.stats();
    assert_eq!(before.turn_times.sum(), Duration::ZERO);
    end.send(&frame("a slow one")).unwrap();
    pass(&mut loops, 0);
    let after = handle.stats();
    assert_eq!(after.turn_times.sum(), SLOW);
    assert_eq!(after.turn_times.count(), after.turns);
    let slow = (Some(262_144), 1);
    assert_eq!(counted(&after.turn_times)[1..], [slow]);

    handle.wake();
    pass(&mut loops, 0);
    assert_eq!(handle.stats().wakeups, before.wakeups + 1);
}

#[test]
fn a_spinning_loop_knows_when_the_last_frame_of_a_link_came() {
    let idle = Idle::spin(Duration::from_secs(5));
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder.idle(idle));
    let mut peer = TestConnection::member(&address, 2, &[]);
    peer.send("first");
    manager.recv_timeout(LONG).unwrap();
    // More than the precision of the time, so that the two frames can be told apart.
    thread::sleep(Duration::from_millis(5));
    let sent = Instant::now();
    // A frame, and the end of the link in the same read.
    peer.write(&[frame("last"), vec![0; 4]].concat());
    wait_for_down(&manager);
    // One millisecond is the precision.
    let last = manager.stats().peers[0].last_received.unwrap();
    assert!(
        last + Duration::from_millis(1) >= sent,
        "{:?} too early",
        sent - last
    );
}
