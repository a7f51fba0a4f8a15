//! A loop that shuts down: it halts once the peers have read what was sent to them, or when the time is over.
//!
//! The tests of `halt` are in `promises.rs` and `system/halt/`.

use std::{
    iter,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use quorum_cnx::{
    Batch, CnxManager, Event, EventLoop, Leave, Outbox, Reason, ReconfigureError, RecvError,
    SendError, Sid, Unknown, simulation::Network,
};
use support::{
    LONG, Mesh, NOBODY, TestConnection, bare, configure, eventually,
    pair::Pair,
    single_manager,
    turned::{OWN, PEER, Recorder, TurnedLoop},
    within,
};

/// Who has left, and how many frames were discarded.
fn left(events: &[Event]) -> Vec<(Sid, u64)> {
    let of = |event: &Event| match event {
        Event::Left { sid, discarded, .. } => Some((*sid, *discarded)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Receives all messages until the manager has halted.
fn drain(manager: &CnxManager) {
    let mut batch = Batch::new();
    while manager.recv_all(&mut batch).is_ok() {}
}

/// After a `halt`, each of these heartbeats would reset the connection.
#[test]
fn peers_that_send_read_the_whole_queue() {
    let mesh = Mesh::linked(&[1, 5, 9], &[], |builder| builder.outbox(Outbox::QUEUE));
    let [one, five, nine] = &mesh.managers[..] else {
        panic!("three servers")
    };
    let fill = |sid| iter::from_fn(|| five.to_send_slice(sid, &[0; 4 << 10]).ok()).count();
    let sent = [Sid(1), Sid(9)].map(fill);
    five.request_shutdown(LONG * 3);
    thread::scope(|scope| {
        for (peer, sent) in [one, nine].into_iter().zip(sent) {
            scope.spawn(move || {
                for _ in 0..sent {
                    peer.recv_timeout(LONG).unwrap();
                    // An error means that the queue is full.
                    let _ = peer.to_send_slice(Sid(5), b"heartbeat");
                }
            });
        }
        scope.spawn(|| drain(five));
    });
    assert!(five.is_halted() && !five.has_died());
    let stats = five.stats();
    assert!(stats.balances(), "{stats:?}");
    assert_eq!(stats.sent.discarded, 0);
}

#[test]
fn everything_is_refused_from_the_request_on() {
    let pair = Pair::with(|builder| builder.outbox(Outbox::QUEUE));
    let (manager, sid) = (&pair.manager, Sid(PEER));
    let mut peer = pair.link();
    let found = manager.peer(sid).unwrap();
    let mut sender = manager.sender(sid).unwrap();
    sender.feed(b"not flushed").unwrap();
    manager.to_send(sid, "the last one").unwrap();
    manager.request_shutdown(LONG * 3);
    assert_eq!(manager.to_send(sid, "late"), Err(SendError::Halted));
    assert_eq!(manager.to_send(Sid(77), "who?"), Err(SendError::Halted));
    assert_eq!(found.send("late"), Err(SendError::Halted));
    assert_eq!(sender.flush(), Err(SendError::Halted));
    let refused = Err(ReconfigureError::Halted);
    assert_eq!(manager.set_server(Sid(7), NOBODY), refused);
    assert_eq!(manager.remove_server(sid, Leave::Now), refused);
    // What the peer sends is received, until it has read everything.
    assert_eq!(peer.recv(), b"the last one");
    peer.send("I know");
    assert_eq!(manager.recv().unwrap().payload, "I know");
    assert!(!manager.is_halted());
    assert_eq!(peer.wait_closed(), b"");
    drop(peer);
    assert_eq!(manager.recv().unwrap_err(), RecvError::Halted);
    let stats = manager.stats();
    assert_eq!((stats.sent.written, stats.sent.discarded), (1, 1));
    assert!(stats.balances(), "{stats:?}");
}

#[test]
fn loop_without_peers_halts_at_once() {
    let (manager, _) = single_manager(OWN, &[(PEER, NOBODY)], |builder| builder);
    manager.to_send(Sid(OWN), "to myself").unwrap();
    manager.request_shutdown(Duration::MAX);
    let messages = within("halting", move || {
        let messages: Vec<_> = iter::from_fn(|| manager.recv().ok()).collect();
        manager.request_shutdown(Duration::MAX);
        messages
    });
    assert_eq!(messages.len(), 1);
}

/// An observer and an admitted server are no members. They read only now.
#[test]
fn guests_read_their_frames() {
    let mut it = TurnedLoop::passive(|builder| {
        let builder = builder.outbox(Outbox::QUEUE);
        builder.unknown(Unknown::admit(2))
    });
    let handle = it.handle();
    let mut guests = [
        it.connect(12, &[]),
        TestConnection::dial_and_write(Ipv4Addr::LOCALHOST, &it.address, &bare(Sid::OBSERVER.0)),
    ];
    it.until("both are linked", |handle, _| {
        handle.linked_peers().len() == 2
    });
    let sids = handle.linked_peers();
    let mut sent = [0, 0];
    for (sid, sent) in sids.iter().zip(&mut sent) {
        while handle.to_send_slice(*sid, &[0; 100_000]).is_ok() {
            *sent += 1;
        }
    }
    handle.request_shutdown(LONG * 3);
    it.turn();
    // A member that comes back is no unknown server: it dials again when this one is back.
    it.connect(PEER, &[]);
    it.until("it is refused", |_, handler| {
        let is_refusal = |event: &Event| {
            matches!(
                event,
                Event::Rejected {
                    reason: Reason::Halted,
                    ..
                }
            )
        };
        handler.events.iter().any(is_refusal)
    });
    // The sid of the observer is negative.
    sent.reverse();
    let readers: Vec<_> = guests
        .iter_mut()
        .zip(sent)
        .map(|(guest, sent)| {
            let mut guest = TestConnection(guest.0.try_clone().unwrap());
            thread::spawn(move || {
                for _ in 0..sent {
                    assert_eq!(guest.recv().len(), 100_000);
                }
                assert_eq!(guest.wait_closed(), b"");
                guest.0.shutdown(Shutdown::Both).unwrap();
            })
        })
        .collect();
    eventually("it halts", || {
        !it.event_loop.turn(Some(Duration::from_millis(1))).unwrap()
    });
    for reader in readers {
        reader.join().unwrap();
    }
    let mut told = left(&it.handler().events);
    told.retain(|(sid, _)| *sid != Sid(PEER));
    told.sort_unstable();
    assert_eq!(told, [(sids[0], 0), (sids[1], 0)]);
    assert!(handle.stats().balances(), "{:?}", handle.stats());
}

/// The time is simulated. A later call shortens it.
#[test]
fn peer_that_never_reads_is_waited_for_until_the_time_is_over() {
    let (network, peer) = (Network::new(), Sid(PEER));
    let own: SocketAddr = "10.0.0.5:3888".parse().unwrap();
    let servers = [(OWN, own.to_string()), (PEER, "10.0.0.9:3888".to_owned())];
    let config = configure(OWN, &servers).outbox(Outbox::QUEUE).build();
    let net = network.host(own.ip()).net();
    let recorder = Recorder::new(|_, _, _| {});
    let mut event_loop = EventLoop::with_net(config.unwrap(), recorder, net).unwrap();
    let handle = event_loop.handle().clone();
    let end = network.connect("10.0.0.9:1".parse().unwrap(), own).unwrap();
    end.send(&PEER.to_be_bytes()).unwrap();
    end.set_room(100_000);
    let mut turn = || event_loop.turn(Some(Duration::ZERO)).unwrap();
    while !handle.connected_to_peer(peer) {
        assert!(turn());
    }
    while handle.to_send_slice(peer, &[0; 4 << 10]).is_ok() {}
    let minute = Duration::from_secs(60);
    handle.request_shutdown(10 * minute);
    network.advance(minute);
    assert!(turn());
    handle.request_shutdown(minute);
    handle.request_shutdown(10 * minute);
    network.advance(minute - Duration::from_secs(1));
    assert!(turn());
    network.advance(Duration::from_secs(1));
    while turn() {}
    let stats = handle.stats();
    assert!(stats.sent.discarded > 0 && stats.balances(), "{stats:?}");
    let handler = event_loop.handler();
    assert_eq!(left(&handler.events), [(peer, stats.sent.discarded)]);
    assert_eq!(handler.ends(), [Reason::Removed]);
}
