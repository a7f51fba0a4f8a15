//! One loop that the test turns itself, so that it decides what happens within one turn.
//!
//! Nothing here runs beside the loop, except where a test says so.

use std::{
    fs,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{
    ConfigBuilder, Dial, Event, EventLoop, Frame, Handle, Handler, Outbox, Reason, SendOutcome,
    Sid, Stats,
};
use socket2::SockRef;
use support::{ABROAD, HOME, LONG, Puppet, Vacant, bare, configure, eventually, frame, listener};

/// The loop under test. Its only member is larger and so the one that dials.
const OWN: i64 = 5;
const PEER: i64 = 9;

/// The first observer.
const OBSERVER: Sid = Sid(-1);

/// What the handler was given.
#[derive(Debug, Default)]
struct Seen {
    frames: usize,
    bytes: usize,
    ends: Vec<Reason>,
}

/// Does something with each frame, and counts.
struct Acting<F> {
    act: F,
    seen: Seen,
}

impl<F: FnMut(Sid, &[u8], &Handle)> Handler for Acting<F> {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        self.seen.frames += 1;
        self.seen.bytes += frame.len();
        (self.act)(from, &frame, handle);
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::Down { reason, .. } = event {
            self.seen.ends.push(reason.clone());
        }
    }
}

struct Turned<F: FnMut(Sid, &[u8], &Handle)> {
    event_loop: EventLoop<Acting<F>>,
    address: String,
    _peer_at: Vacant,
}

impl<F: FnMut(Sid, &[u8], &Handle)> Turned<F> {
    fn new(act: F, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (peer_at, own) = (Vacant::new(), listener());
        let servers = [(OWN, &own.1), (PEER, &peer_at.address)];
        let config = shape(configure(OWN, &servers).listener(own.0))
            .build()
            .unwrap();
        let seen = Seen::default();
        Self {
            event_loop: EventLoop::new(config, Acting { act, seen }).unwrap(),
            address: own.1,
            _peer_at: peer_at,
        }
    }

    fn handle(&self) -> Handle {
        self.event_loop.handle().clone()
    }

    fn seen(&mut self) -> &Seen {
        &self.event_loop.handler_mut().seen
    }

    /// Turns until something is so.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Handle, &Seen) -> bool) {
        let handle = self.handle();
        eventually(what, || {
            assert!(self.event_loop.turn(Some(Duration::ZERO)).unwrap());
            is_so(&handle, self.seen())
        });
    }

    /// The peer dials, and is linked.
    #[track_caller]
    fn link(&mut self) -> Puppet {
        let peer = Puppet::say(HOME, &self.address, &bare(PEER));
        self.until("the peer is linked", |handle, _| {
            handle.connected_to_peer(Sid(PEER))
        });
        peer
    }
}

/// Waits, without a turn, until the kernel knows that this connection has ended.
#[track_caller]
fn wait_for_the_end(handle: &Handle, peer: Sid) {
    eventually("a write fails", || {
        handle.to_send(peer, "is it there?").unwrap() != SendOutcome::Written
    });
}

/// ZooKeeper's FastLeaderElection calls `connectAll` from where it handles messages, too.
#[track_caller]
fn an_observer_resets_while_it_is_answered(outbox: Outbox, ask: fn(&Handle)) {
    let observer: Arc<Mutex<Option<Puppet>>> = Arc::default();
    let leaving = Arc::clone(&observer);
    let act = move |from: Sid, _: &[u8], handle: &Handle| {
        if from != Sid(PEER) {
            return;
        }
        let observer = leaving.lock().unwrap().take().expect("it leaves once");
        observer.reset();
        match outbox {
            Outbox::Latest => wait_for_the_end(handle, OBSERVER),
            _ => {
                handle.to_send(OBSERVER, "answer").unwrap();
            }
        }
        ask(handle);
    };
    let mut turned = Turned::new(act, |builder| builder.outbox(outbox).observers_max(2));
    let mut peer = turned.link();
    *observer.lock().unwrap() = Some(Puppet::say(HOME, &turned.address, &bare(i64::MAX)));
    turned.until("the observer is linked", |handle, _| {
        handle.connected_to_peer(OBSERVER)
    });
    peer.send("go");
    turned.until("the observer is forgotten", |handle, seen| {
        seen.frames == 1 && handle.stats().peers.len() == 1
    });
    let handle = turned.handle();
    assert!(handle.connected_to_peer(Sid(PEER)) && !handle.is_halted());
    assert!(handle.stats().sent.balances());
}

#[test]
fn a_resetting_observer_does_not_end_the_loop() {
    let asks: [fn(&Handle); 3] = [
        Handle::connect_all,
        |handle| {
            let _ = handle.connect_one(OBSERVER);
        },
        |handle| {
            let _ = handle.initiate_connection(OBSERVER);
        },
    ];
    for outbox in [Outbox::Latest, Outbox::QUEUE] {
        for ask in asks {
            an_observer_resets_while_it_is_answered(outbox, ask);
        }
    }
}

#[test]
fn a_waiting_frame_is_dialed_for_after_two_ends_in_one_turn() {
    let mut turned = Turned::new(
        |_, _: &[u8], _: &Handle| {},
        |builder| builder.dial(Dial::OnDemand),
    );
    let older = turned.link();
    let contender = Puppet::say(ABROAD, &turned.address, &bare(PEER));
    turned.until("a contender waits", |handle, _| handle.stats().pending == 1);
    // What the kernel has to say about the two so far is known, so that their ends come in this order.
    for _ in 0..3 {
        turned.event_loop.turn(Some(Duration::ZERO)).unwrap();
    }
    let handle = turned.handle();
    while handle.to_send(Sid(PEER), vec![7; 100_000]).unwrap() == SendOutcome::Written {}
    handle.to_send(Sid(PEER), "newest").unwrap();
    let dials = handle.stats().dials;
    // The older one first, so that the contender takes its place and then ends too. Over the loopback interface the end is
    // there when the call returns.
    older.reset();
    contender.reset();
    turned.until("the peer is dialed for the frame", |handle, _| {
        handle.stats().dials > dials
    });
}

#[test]
fn loopback_ends_with_the_request_to_halt() {
    let mut turned = Turned::new(
        |_, _: &[u8], handle: &Handle| handle.request_halt(),
        |builder| builder,
    );
    for _ in 0..5 {
        turned.handle().to_send(Sid(OWN), "to myself").unwrap();
    }
    turned.event_loop.run().unwrap();
    assert_eq!(turned.seen().frames, 1);
}

#[test]
fn the_creating_thread_waits_for_no_room_before_the_first_turn() {
    let turned = Turned::new(|_, _: &[u8], _: &Handle| {}, |builder| builder);
    let handle = turned.handle();
    handle.to_send(Sid(PEER), "waits for a link").unwrap();
    // It would wait for itself.
    assert_eq!(handle.wait_for_room(Sid(PEER), Duration::MAX), Ok(false));
}

/// Whether the kernel of the far end has all that was written, which takes it a while on a busy machine.
fn has_arrived(puppet: &Puppet) -> bool {
    let port = format!(":{:04X}", puppet.0.local_addr().unwrap().port());
    // See proc_net_tcp.txt of the kernel: local_address is the second column, tx_queue:rx_queue the fifth.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table.lines().map(|row| row.split_whitespace());
    let row = rows.find(|row| {
        row.clone()
            .nth(1)
            .is_some_and(|local| local.ends_with(&port))
    });
    let queues = row.and_then(|mut row| row.nth(4)).expect("it is listed");
    queues.starts_with("00000000:")
}

const FRAME: usize = 4 << 10;

/// Bytes of the length before a frame.
const PREFIX: usize = 4;

/// How long a full receive buffer is given to take more.
const BRIEFLY: Duration = Duration::from_millis(200);

/// Frames of so many payload bytes in all.
fn frames(bytes: usize) -> Vec<u8> {
    frame(vec![1; FRAME]).repeat(bytes / FRAME)
}

impl<F: FnMut(Sid, &[u8], &Handle)> Turned<F> {
    /// A stream of the peer, until the kernel has made the receive buffer so large that this many bytes wait there unread.
    /// Returns how many have come.
    fn stream(&mut self, peer: &Puppet, unread: usize) -> usize {
        const BYTES: usize = 32 << 20;
        let mut come = 0;
        for _ in 0..50 {
            self.say(peer, &frames(BYTES), &mut come);
            let (probe, mut written) = (frames(unread * 3 / 2), 0);
            peer.0.set_write_timeout(Some(BRIEFLY)).unwrap();
            while let Ok(count) = (&peer.0).write(&probe[written..])
                && count > 0
            {
                written += count;
            }
            peer.0.set_write_timeout(Some(LONG)).unwrap();
            let deadline = Instant::now() + BRIEFLY;
            let mut arrived = false;
            while written == probe.len() && !arrived && Instant::now() < deadline {
                arrived = has_arrived(peer);
            }
            come += written;
            self.say(peer, &probe[written..], &mut come);
            if arrived {
                return self.seen().bytes;
            }
        }
        panic!("no receive buffer grows to {unread} bytes here: see tcp_rmem in tcp(7)");
    }

    /// The peer writes this, and all of it is read, after as many bytes as have come before.
    fn say(&mut self, peer: &Puppet, bytes: &[u8], come: &mut usize) {
        *come += bytes.len();
        thread::scope(|scope| {
            scope.spawn(|| (&peer.0).write_all(bytes).unwrap());
            let payload = *come / (FRAME + PREFIX) * FRAME;
            self.until("all of it has come", |_, seen| seen.bytes == payload);
        });
    }
}

#[test]
fn what_was_received_is_read_after_a_failed_write() {
    // More than two turns read.
    const REST: usize = 640 << 10;
    let mut turned = Turned::new(|_, _: &[u8], _: &Handle| {}, |builder| builder);
    let mut peer = turned.link();
    let before = turned.stream(&peer, REST);
    // From here on nothing is read. Closing waits until all of it has arrived.
    peer.write(&frames(REST));
    SockRef::from(&peer.0).set_linger(Some(LONG)).unwrap();
    drop(peer);
    let handle = turned.handle();
    wait_for_the_end(&handle, Sid(PEER));
    turned.until("the link has ended", |_, seen| !seen.ends.is_empty());
    assert_eq!(turned.seen().bytes, before + REST);
    assert!(handle.stats().balances());
}

#[test]
fn what_was_received_is_read_before_a_link_is_replaced() {
    // More than one turn reads, and less than two.
    const REST: usize = 384 << 10;
    let mut turned = Turned::new(|_, _: &[u8], _: &Handle| {}, |builder| builder);
    let mut older = turned.link();
    let before = turned.stream(&older, REST);
    let mut newer = Puppet::dial(HOME, &turned.address);
    turned.until("it is accepted", |handle, _| handle.stats().accepted == 2);
    // Both are there when the loop turns again.
    older.write(&frames(REST));
    eventually("all has arrived", || has_arrived(&older));
    newer.write(&[bare(PEER), frame("newer")].concat());
    turned.until("the newer one is heard", |_, seen| {
        seen.bytes % FRAME == "newer".len()
    });
    assert_eq!(turned.seen().ends, [Reason::Replaced]);
    assert_eq!(turned.seen().bytes, before + REST + "newer".len());
}

#[test]
fn totals_never_run_backwards() {
    let mut turned = Turned::new(
        |_, _: &[u8], _: &Handle| {},
        |builder| builder.observers_max(64),
    );
    let (handle, done) = (turned.handle(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let total = |stats: &Stats| {
                [
                    stats.received.frames,
                    stats.received.bytes,
                    stats.sent.accepted,
                ]
            };
            let mut last = [0; 3];
            while !done.load(Ordering::Relaxed) {
                let now = total(&handle.stats());
                assert!(
                    now.iter().zip(&last).all(|(now, last)| now >= last),
                    "{now:?} after {last:?}"
                );
                last = now;
            }
        });
        let said = [bare(i64::MAX), frame("a"), frame("b")].concat();
        for round in 1..=200 {
            drop(Puppet::say(HOME, &turned.address, &said));
            turned.until("an observer has come and gone", |handle, _| {
                let stats = handle.stats();
                stats.received.frames == 2 * round && stats.peers.len() == 1
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}
