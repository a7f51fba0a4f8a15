//! Tests the promises of the crate page over real sockets.
//!
//! Attacks by strangers are in `hostile.rs`, the tests of the original in `parity.rs`.

use std::{
    io,
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    os::fd::{AsFd as _, AsRawFd as _},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{
    Batch, CnxManager, ConfigBuilder, Dial, Event, EventLoop, Frame, Handle, Handler, Idle,
    Listening, Reason, ReasonKind, RecvError, SendError, SendOutcome, Sid, Stats, TryRecvError,
    simulation::limits::{
        ACCEPTS_PER_TURN, FRAME_BYTES_MAX, HOT_TURNS_MAX, KNOCK_CROSSING, SLOW_TURN,
    },
};
use support::{
    LONG, MEMBER_IP, Mesh, NOBODY, ReservedAddress, TestConnection, V1, assert_message, configure,
    eventually, expect_message, frame, is_free, listener,
    pair::{Pair, number_of, numbered},
    single_manager,
    turned::{OWN, PEER, Recorder, TurnedLoop},
    versioned, wait_for, wait_for_listening, within,
};

const LARGE: usize = 100_000;

/// Sends numbered frames to a peer that does not read, until the link is blocked and frames replace each other in the slot.
/// Returns the last number.
#[track_caller]
fn block(pair: &Pair) -> u64 {
    let manager = Arc::clone(&pair.manager);
    within("sending to a peer that does not read", move || {
        let (mut number, mut superseded) = (0, 0);
        while superseded < 10 {
            number += 1;
            let frame = numbered(number, LARGE);
            match manager.to_send(Sid(PEER), frame).unwrap() {
                SendOutcome::Written | SendOutcome::Queued => {
                    assert_eq!(superseded, 0, "a full slot has room again")
                }
                SendOutcome::Superseded => superseded += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
        number
    })
}

fn sent_to(stats: &Stats, sid: i64) -> quorum_cnx::SendStats {
    let of_sid = |peer: &&quorum_cnx::PeerStats| peer.sid == Sid(sid);
    stats.peers.iter().find(of_sid).unwrap().sent
}

// Promises 1 and 2: sending never waits, newest wins, nothing is torn.

#[test]
fn sending_never_blocks_and_the_newest_frame_arrives_whole() {
    let pair = Pair::new();
    let mut peer = pair.link();
    let newest = block(&pair);
    let waiting = sent_to(&pair.manager.stats(), PEER);
    assert!(waiting.balances() && waiting.waiting > 0, "{waiting:?}");
    // The peer reads again. A frame that was written in part is finished, and one that was replaced never arrives.
    let (mut last, mut count) = (0, 0);
    while last < newest {
        let number = number_of(&peer.recv());
        assert!(number > last, "{number} after {last}");
        (last, count) = (number, count + 1);
    }
    eventually("all is written", || pair.manager.have_delivered());
    let sent = sent_to(&pair.manager.stats(), PEER);
    assert_eq!((sent.accepted, sent.written), (newest, count));
    assert_eq!(sent.superseded, newest - count);
    // The link works as before.
    assert_eq!(pair.send("next"), SendOutcome::Written);
    assert_eq!(peer.recv(), b"next");
}

#[test]
fn blocked_peer_does_not_delay_another() {
    let pair = Pair::with(|builder| builder.server(Sid(8), "127.0.0.1:2"));
    let blocked = pair.link();
    let mut other = TestConnection::member(&pair.address, 8, &["linked"]);
    // A frame of it shows that its link can be written to. `linked_peers` names it a moment earlier.
    expect_message(&pair.manager, 8, "linked");
    block(&pair);
    for round in 0..100_u64 {
        let sent = pair.manager.to_send(Sid(8), numbered(round, LARGE));
        assert_eq!(sent, Ok(SendOutcome::Written));
        assert_eq!(number_of(&other.recv()), round);
        other.send(round.to_be_bytes());
        expect_message(&pair.manager, 8, round.to_be_bytes());
    }
    drop(blocked);
}

#[test]
fn send_outcome_says_what_happened_to_the_frame() {
    let pair = Pair::new();
    assert_eq!(pair.send("one"), SendOutcome::Queued);
    assert!(!pair.manager.have_delivered());
    assert_eq!(pair.send("two"), SendOutcome::Superseded);
    let mut peer = pair.link();
    assert_eq!(peer.recv(), b"two");
    eventually("nothing waits", || pair.manager.have_delivered());
    assert_eq!(pair.send("three"), SendOutcome::Written);
    assert_eq!(peer.recv(), b"three");
    let link_to_itself = pair.manager.initiate_connection(Sid(OWN));
    assert_eq!(link_to_itself, Err(SendError::UnknownPeer(Sid(OWN))));
    let to_itself = pair.manager.to_send(Sid(OWN), "me");
    assert_eq!(to_itself, Ok(SendOutcome::Loopback));
    let before = pair.manager.stats();
    let longest = FRAME_BYTES_MAX;
    for (sid, len, error) in [
        (7, 1, SendError::UnknownPeer(Sid(7))),
        (-1, 1, SendError::UnknownPeer(Sid(-1))),
        (i64::MAX, 1, SendError::UnknownPeer(Sid::OBSERVER)),
        (PEER, 0, SendError::Empty),
        (OWN, 0, SendError::Empty),
        (PEER, longest + 1, SendError::TooLarge(longest + 1)),
        (OWN, longest + 1, SendError::TooLarge(longest + 1)),
    ] {
        assert_eq!(pair.manager.to_send(Sid(sid), vec![1; len]), Err(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(pair.manager.stats().sent, before.sent);
    assert_eq!(pair.manager.stats().loopback, before.loopback);
    pair.manager.halt();
    for sid in [PEER, OWN].map(Sid) {
        assert_eq!(pair.manager.to_send(sid, "late"), Err(SendError::Halted));
    }
}

#[test]
fn shortest_and_longest_frames_arrive_in_both_directions() {
    let mesh = Mesh::linked(&[1, 2], &[], |builder| builder);
    for len in [1, 2, 3, 4, 5, 65_535, 65_536, 65_537, 524_287, 524_288] {
        let bytes: Vec<u8> = (0..len).map(|at: usize| ((at * 31) >> 3) as u8).collect();
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (&mesh.managers[from], &mesh.managers[to]);
            from.to_send(to.sid(), bytes.clone()).unwrap();
            let message = to.recv_timeout(LONG).unwrap();
            assert_eq!(message.from, from.sid());
            assert!(message.payload == bytes, "{len} bytes arrived differently");
        }
    }
}

// Promise 3: the last frame is sent once more over a new link, and never an older one after a newer one.

#[test]
fn last_frame_is_resent_on_a_new_link_unless_superseded() {
    let pair = Pair::new();
    let mut peer = pair.link();
    pair.send("one");
    assert_eq!(peer.recv(), b"one");
    pair.unlink(peer);
    let mut peer = pair.link();
    assert_eq!(peer.recv(), b"one");
    pair.unlink(peer);
    pair.send("two");
    pair.send("three");
    let mut peer = pair.link();
    assert_eq!(peer.recv(), b"three");
    pair.send("four");
    assert_eq!(peer.recv(), b"four");
    eventually("nothing waits", || pair.manager.have_delivered());
    let sent = sent_to(&pair.manager.stats(), PEER);
    assert_eq!((sent.accepted, sent.written), (4, 3));
    assert_eq!((sent.superseded, sent.resent), (1, 1));
}

#[test]
fn interrupted_frame_is_sent_whole_over_the_next_link() {
    let pair = Pair::new();
    let peer = pair.link();
    let newest = block(&pair);
    pair.unlink(peer);
    let mut peer = pair.link();
    let bytes = peer.recv();
    assert_eq!((number_of(&bytes), bytes.len()), (newest, LARGE));
    pair.send("next");
    assert_eq!(peer.recv(), b"next");
    let sent = sent_to(&pair.manager.stats(), PEER);
    assert!(sent.balances() && sent.resent == 0, "{sent:?}");
}

#[test]
fn order_is_kept_and_newest_arrives_over_many_reconnects() {
    let pair = Pair::new();
    let manager = Arc::clone(&pair.manager);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = thread::spawn(move || {
        let mut number = 0_u64;
        while !stopped.load(Ordering::Acquire) {
            number += 1;
            manager
                .to_send(Sid(PEER), number.to_be_bytes().to_vec())
                .unwrap();
        }
        number
    });
    let mut last = 0;
    for round in 0..50 {
        let mut peer = pair.link();
        for at in 0..20 {
            let number = number_of(&peer.recv());
            // The first frame may be one that has arrived over the old link already.
            assert!(number > last || at == 0 && number == last);
            last = number;
        }
        if round % 2 == 0 {
            peer.reset();
        } else {
            drop(peer);
        }
        pair.wait_unlinked();
    }
    stop.store(true, Ordering::Release);
    let newest = sender.join().unwrap();
    let mut peer = pair.link();
    while last < newest {
        let number = number_of(&peer.recv());
        assert!(number >= last);
        last = number;
    }
    let sent = sent_to(&pair.manager.stats(), PEER);
    assert!(sent.balances(), "{sent:?}");
    assert_eq!(sent.accepted, newest);
}

// Promise 4: loopback.

#[test]
fn loopback_frames_arrive_in_the_inbox() {
    let pair = Pair::new();
    for text in ["a", "b", "c"] {
        let sent = pair.manager.to_send(Sid(OWN), text);
        assert_eq!(sent, Ok(SendOutcome::Loopback));
    }
    for text in ["a", "b", "c"] {
        assert_message(&pair.manager.try_recv().unwrap(), OWN, text);
    }
    assert_eq!(pair.manager.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(pair.manager.stats().loopback, 3);
}

#[test]
fn loopback_frames_reach_the_handler() {
    let (sender, received) = channel();
    let act = move |from, frame: &[u8], handle: &Handle| {
        // A frame that a handler sends to its own sid is delivered in the next turn.
        if from == Sid(OWN) && frame.len() < 5 {
            handle.to_send(Sid(OWN), [frame, b"!"].concat()).unwrap();
        }
        sender.send((from, frame.to_vec())).unwrap();
    };
    let mut test_loop = TurnedLoop::new(act, |builder| builder);
    let sent = test_loop.handle().to_send(Sid(OWN), "me");
    assert_eq!(sent, Ok(SendOutcome::Loopback));
    test_loop.until("the frames come back", |_, recorded| recorded.frames == 4);
    let expected = ["me", "me!", "me!!", "me!!!"].map(|text| (Sid(OWN), text.into()));
    assert_eq!(received.try_iter().collect::<Vec<_>>(), expected);
    assert_eq!(test_loop.handle().stats().loopback, 4);
}

// Promise 5: the inbox drops its oldest messages, and counts them.

#[test]
fn full_inbox_drops_and_counts_the_oldest_messages() {
    let pair = Pair::with(|builder| builder.inbox_frames(3));
    let mut peer = pair.link();
    for number in 0..10_u64 {
        peer.send(number.to_be_bytes());
    }
    eventually("all have arrived", || {
        pair.manager.stats().inbox.pushed == 10
    });
    for number in 7..10 {
        assert_eq!(number_of(&pair.manager.recv().unwrap().payload), number);
    }
    assert_eq!(pair.manager.try_recv(), Err(TryRecvError::Empty));
    let stats = pair.manager.stats();
    assert_eq!((stats.inbox.dropped, stats.inbox.taken), (7, 3));
    eventually("the loop has counted whose they were", || {
        // Once a second. Each turn looks.
        pair.manager.handle().wake();
        pair.manager.stats().peers[0].dropped == 7
    });
    assert_eq!((stats.received.frames, stats.received.bytes), (10, 80));
}

#[test]
fn debug_output_shows_no_payload() {
    let (manager, _) = single_manager(1, &[(2, NOBODY)], |builder| builder);
    manager.to_send(Sid(2), "a secret").unwrap();
    manager.to_send(Sid(1), "a secret").unwrap();
    let mut shown = format!("{:?} {:?} {:?}", manager.handle(), manager, manager.recv());
    manager.to_send(Sid(1), "a secret").unwrap();
    let mut batch = Batch::new();
    manager.recv_all(&mut batch).unwrap();
    shown += &format!("{batch:?} {:?}", batch.iter());
    let mut test_loop = TurnedLoop::with(DebugRecorder::default(), |builder| builder);
    test_loop.handle().to_send(Sid(OWN), "a secret").unwrap();
    test_loop.until("the frame is received", |_, handler| !handler.0.is_empty());
    shown += &format!("{:?} {}", test_loop.event_loop, test_loop.handler().0);
    let batch = ["Batch(1", "BatchIter"];
    for name in ["Handle", "Message", "EventLoop", "Frame(8"]
        .iter()
        .chain(&batch)
    {
        assert!(shown.contains(name), "{name} is not in {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
}

/// Keeps the `Debug` output of frames.
#[derive(Default)]
struct DebugRecorder(String);

impl Handler for DebugRecorder {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.0 += &format!("{frame:?}");
    }
}

#[test]
fn recv_timeout_accepts_the_maximum_duration() {
    for idle in [Idle::Block, Idle::spin(Duration::from_millis(1))] {
        let (manager, _) = single_manager(1, &[] as &[(i64, String)], |builder| builder.idle(idle));
        manager.to_send(Sid(1), "to oneself").unwrap();
        let message = manager.recv_timeout(Duration::MAX).unwrap();
        assert_eq!(message.payload, "to oneself");
        assert!(manager.events().recv_timeout(Duration::MAX).is_ok());
        let halter = manager.handle();
        let receiver = thread::spawn(move || manager.recv_timeout(Duration::MAX));
        halter.request_halt();
        let received = within("receiving", || receiver.join().unwrap());
        assert_eq!(received, Err(RecvError::Halted));
    }
}

#[test]
fn default_inbox_holds_a_hundred_messages() {
    let pair = Pair::new();
    for number in 0..130_u64 {
        let bytes = number.to_be_bytes().to_vec();
        pair.manager.to_send(Sid(OWN), bytes).unwrap();
    }
    let inbox = pair.manager.stats().inbox;
    assert_eq!((inbox.waiting, inbox.dropped), (100, 30));
    assert_eq!(number_of(&pair.manager.try_recv().unwrap().payload), 30);
}

// Promise 7: every frame is accounted for.

#[test]
fn every_accepted_frame_is_accounted_for() {
    // One peer reads, one is blocked, one is absent, and observers connect and disconnect.
    let pair = Pair::with(|builder| {
        let others = [(Sid(8), "127.0.0.1:2"), (Sid(7), "127.0.0.1:3")];
        builder.servers(others)
    });
    let (manager, address) = (&pair.manager, &pair.address);
    let blocked = TestConnection::member(address, 8, &[]);
    eventually("the peer is linked", || manager.connected_to_peer(Sid(8)));
    let (accepted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut observed = 0;
    thread::scope(|scope| {
        for sid in [PEER, 8, 7] {
            let (accepted, stop) = (&accepted, &stop);
            scope.spawn(move || {
                let payload = Bytes::from(numbered(1, LARGE));
                while !stop.load(Ordering::Acquire) {
                    manager.to_send(Sid(sid), payload.clone()).unwrap();
                    accepted.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for round in 1..=10 {
            let mut peer = TestConnection::member(address, PEER, &[]);
            let observer = TestConnection::member(address, i64::MAX, &[]);
            for _ in 0..20 {
                peer.recv();
            }
            let sid = Sid(-round);
            eventually("the observer is known", || {
                manager.to_send(sid, "observe").is_ok()
            });
            observed += 1;
            drop((peer, observer));
            for peer in manager.stats().peers {
                assert!(peer.sent.balances(), "{peer:?}");
            }
            eventually("the observer is forgotten", || {
                manager.stats().peers.len() == 3
            });
        }
        stop.store(true, Ordering::Release);
    });
    let stats = manager.stats();
    assert!(stats.sent.balances(), "{stats:?}");
    let accepted = accepted.load(Ordering::Acquire);
    assert_eq!(stats.sent.accepted, accepted + observed);
    assert!(stats.sent.waiting >= 1 && stats.sent.superseded > 0 && stats.sent.written > 200);
    manager.halt();
    let sent = manager.stats().sent;
    assert_eq!(sent.waiting, 0);
    assert!(sent.balances() && sent.discarded >= 2, "{sent:?}");
    drop(blocked);
}

// Promise 8: halt.

#[test]
fn halt_frees_the_port_and_closes_every_connection() {
    let pair = Pair::new();
    let mut peer = pair.link();
    let mut silent = TestConnection::dial(MEMBER_IP, &pair.address);
    peer.send("left behind");
    eventually("the frame has arrived", || {
        pair.manager.stats().received.frames == 1
    });
    assert!(!is_free(&pair.address));
    pair.manager.halt();
    assert!(is_free(&pair.address));
    peer.wait_closed();
    silent.wait_closed();
    assert!(pair.manager.is_halted() && !pair.manager.has_died());
    assert!(pair.manager.listening().is_empty() && pair.manager.linked_peers().is_empty());
    assert_eq!(pair.manager.stats().connections, 0);
    // What was received can still be taken. After it comes the error.
    assert_eq!(pair.manager.recv().unwrap().payload, "left behind");
    assert_eq!(pair.manager.recv(), Err(RecvError::Halted));
    assert_eq!(pair.manager.try_recv(), Err(TryRecvError::Halted));
    assert_eq!(pair.manager.connect_one(Sid(PEER)), Err(SendError::Halted));
    let mut events = Vec::new();
    while let Ok(event) = pair.manager.events().recv() {
        events.push(event);
    }
    let stats = pair.manager.stats();
    assert!(stats.balances(), "{stats:?}");
    let rejected = [(ReasonKind::Halted, 1)].into();
    assert_eq!(stats.rejected, rejected, "the silent connection");
    let is_down = |event: &Event| {
        let down = (Sid(PEER), Reason::Halted);
        matches!(event, Event::Down { sid, reason, .. } if (*sid, reason.clone()) == down)
    };
    assert!(events.iter().any(is_down), "{events:?}");
    assert_eq!(events.last(), Some(&Event::Halted));
}

#[test]
fn halt_does_not_wait_for_a_peer_that_does_not_read() {
    let pair = Pair::new();
    let peer = pair.link();
    block(&pair);
    pair.halt();
    assert!(is_free(&pair.address));
    let sent = pair.manager.stats().sent;
    assert!(sent.balances() && sent.discarded >= 1, "{sent:?}");
    drop(peer);
}

#[test]
fn halt_works_from_any_thread_and_repeatedly() {
    let pair = Pair::new();
    let _peer = pair.link();
    let waiting = Arc::clone(&pair.manager);
    let receiver = thread::spawn(move || waiting.recv());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (manager, address) = (Arc::clone(&pair.manager), pair.address.clone());
            thread::spawn(move || {
                manager.halt();
                // `halt` has the same effect on each thread.
                assert!(manager.is_halted());
                assert_eq!(manager.listening(), []);
                address
            })
        })
        .collect();
    within("halting on four threads", move || {
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(receiver.join().unwrap(), Err(RecvError::Halted));
    });
    pair.manager.halt();
    assert!(is_free(&pair.address));
}

#[test]
fn a_handler_can_halt_its_own_loop() {
    let act = |_, _: &[u8], handle: &Handle| handle.request_halt();
    let mut test_loop = TurnedLoop::new(act, |builder| builder);
    let (handle, address) = (test_loop.handle(), test_loop.address.clone());
    let thread = thread::spawn(move || {
        test_loop.event_loop.run().unwrap();
        test_loop
    });
    // One read returns all three. Nothing is delivered after the request.
    let mut peer = TestConnection::member(&address, PEER, &["stop", "more", "and more"]);
    peer.wait_closed();
    let mut test_loop = within("running the loop", || thread.join().unwrap());
    assert!(handle.is_halted() && !handle.has_died());
    assert!(is_free(&address));
    assert_eq!(test_loop.handler().events.last(), Some(&Event::Halted));
    assert_eq!(test_loop.handler().frames, 1);
    assert_eq!(handle.stats().received.frames, 1);
    // The loop does not turn again.
    assert!(!test_loop.event_loop.turn(None).unwrap());
    assert_eq!(handle.to_send(Sid(OWN), "me"), Err(SendError::Halted));
}

#[test]
fn halt_on_the_thread_of_the_loop_does_not_deadlock() {
    let pair = Pair::new();
    let peer = pair.link();
    let (manager, (sender, halted)) = (Arc::clone(&pair.manager), channel());
    // The loop frees this frame when the next one has replaced it as the last frame.
    pair.send(payload(b"halts", move || {
        manager.halt();
        let _ = sender.send(thread::current().name().map(str::to_owned));
    }));
    pair.unlink(peer);
    pair.send("next");
    let _peer = TestConnection::member(&pair.address, PEER, &[]);
    let thread = halted.recv_timeout(LONG).expect("halt returns");
    assert_eq!(thread.as_deref(), Some("quorum-cnx-5"));
    pair.halt();
    assert!(!pair.manager.has_died() && is_free(&pair.address));
}

#[test]
fn a_handler_can_halt_another_manager() {
    let (other_listener, own_listener) = (listener(), listener());
    let servers = [(OWN, &own_listener.1), (PEER, &other_listener.1)];
    let other = configure(PEER, &servers).listener(other_listener.0);
    let other = Arc::new(CnxManager::start(other.build().unwrap()).unwrap());
    let halted_by_handler = Arc::clone(&other);
    let (sender, halted) = channel();
    // `halt` waits on the loop's thread, although the link between the two managers needs both loops.
    let act = move |_, _: &[u8], _: &Handle| {
        halted_by_handler.halt();
        sender.send(()).unwrap();
    };
    let config = configure(OWN, &servers).listener(own_listener.0);
    let mut event_loop = EventLoop::new(config.build().unwrap(), Recorder::new(act)).unwrap();
    let handle = event_loop.handle().clone();
    let thread = thread::spawn(move || event_loop.run());
    other.to_send(Sid(OWN), "halt yourself").unwrap();
    halted.recv_timeout(LONG).expect("halt returns");
    assert!(other.is_halted() && is_free(&other_listener.1));
    eventually("the link has ended", || handle.linked_peers().is_empty());
    handle.request_halt();
    within("running the loop", || thread.join().unwrap().unwrap());
}

#[test]
fn dropping_a_manager_halts_it() {
    let (manager, address) = single_manager(OWN, &[] as &[(i64, String)], |builder| builder);
    let handle = manager.handle();
    within("dropping the manager", move || drop(manager));
    assert!(handle.is_halted());
    assert!(is_free(&address));
}

#[test]
fn links_are_reestablished_after_a_soft_halt() {
    let mesh = Mesh::linked(&[1, 2, 3], &[], |builder| builder);
    let [one, two, three] = [&mesh.managers[0], &mesh.managers[1], &mesh.managers[2]];
    two.to_send(Sid(1), "before").unwrap();
    assert_eq!(one.recv_timeout(LONG).unwrap().payload, "before");
    two.soft_halt();
    eventually("the links have ended", || {
        two.stats().downs.get(&ReasonKind::Dropped) == Some(&2)
    });
    mesh.wait_linked();
    eventually("the links are new ones at both ends", || {
        two.stats().ups >= 4 && one.stats().ups >= 3 && three.stats().ups >= 3
    });
    assert!(!two.is_halted());
    // The last frame may arrive once more before this one.
    two.to_send(Sid(1), "after").unwrap();
    eventually("the frame arrives", || {
        one.recv_timeout(LONG).unwrap().payload == "after"
    });
    assert_eq!(three.stats().downs.get(&ReasonKind::Dropped), None);
}

// A dead loop is reported.

fn panicking_loop() -> TurnedLoop<Recorder> {
    TurnedLoop::new(|_, _, _| panic!("expected by the test"), |builder| builder)
}

#[test]
fn loop_does_not_turn_after_a_handler_panic() {
    let mut test_loop = panicking_loop();
    let (handle, event_loop) = (test_loop.handle(), &mut test_loop.event_loop);
    handle.to_send(Sid(OWN), "boom").unwrap();
    let turns = || while event_loop.turn(Some(Duration::ZERO)).unwrap() {};
    panic::catch_unwind(AssertUnwindSafe(turns)).unwrap_err();
    // A caller that catches the panic of a handler cannot continue with a loop whose state is incomplete.
    for _ in 0..2 {
        assert!(event_loop.turn(Some(Duration::ZERO)).is_err());
        assert!(handle.has_died());
    }
    assert_eq!(handle.to_send(Sid(PEER), "x"), Err(SendError::Halted));
}

#[test]
fn handler_panic_ends_the_loop_and_fails_all_calls() {
    let mut test_loop = panicking_loop();
    let (handle, address) = (test_loop.handle(), test_loop.address.clone());
    assert!(!handle.has_died());
    let thread = thread::spawn(move || test_loop.event_loop.run());
    let mut peer = TestConnection::member(&address, PEER, &["boom"]);
    peer.wait_closed();
    assert!(within("running the loop", || thread.join()).is_err());
    assert!(handle.has_died() && handle.is_halted());
    for sid in [PEER, OWN].map(Sid) {
        assert_eq!(handle.to_send(sid, "x"), Err(SendError::Halted));
    }
    assert_eq!(handle.connect_one(Sid(PEER)), Err(SendError::Halted));
    assert!(handle.linked_peers().is_empty() && handle.listening().is_empty());
    assert!(is_free(&address));
}

#[test]
fn panic_in_on_loop_start_ends_the_loop() {
    let pair = Pair::with(|builder| builder.on_loop_start(|| panic!("expected by the test")));
    let manager = Arc::clone(&pair.manager);
    let received = within("receiving", move || manager.recv());
    assert_eq!(received, Err(RecvError::Halted));
    assert!(pair.manager.has_died() && pair.manager.is_halted());
    let sent = pair.manager.to_send(Sid(PEER), "x");
    assert_eq!(sent, Err(SendError::Halted));
    pair.halt();
    assert!(is_free(&pair.address));
}

/// A payload that calls a function when it is dropped.
struct Payload<F: FnMut()>(&'static [u8], F);

impl<F: FnMut()> AsRef<[u8]> for Payload<F> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<F: FnMut()> Drop for Payload<F> {
    fn drop(&mut self) {
        (self.1)();
    }
}

fn payload(bytes: &'static [u8], on_drop: impl FnMut() + Send + 'static) -> Bytes {
    Bytes::from_owner(Payload(bytes, on_drop))
}

/// A logger of the application that panics at a line about one peer.
struct Panicking;

/// That peer. No other test has it.
const PANIC_SID: i64 = 6666;

impl log::Log for Panicking {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        assert!(
            !line.starts_with(&format!("peer {PANIC_SID}:")),
            "expected by the test"
        );
    }

    fn flush(&self) {}
}

#[test]
fn manager_reports_that_its_loop_has_died() {
    log::set_logger(&Panicking).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    // On demand: a failed dial would be logged as well, perhaps before the peer has connected.
    let pair = Pair::with(|builder| {
        let builder = builder.dial(Dial::OnDemand);
        builder.server(Sid(PANIC_SID), "127.0.0.1:2")
    });
    let waiting = Arc::clone(&pair.manager);
    let receiver = thread::spawn(move || waiting.recv());
    let mut peer = TestConnection::member(&pair.address, PANIC_SID, &[]);
    peer.wait_closed();
    let received = within("receiving", || receiver.join().unwrap());
    assert_eq!(received, Err(RecvError::Halted));
    assert!(pair.manager.has_died() && pair.manager.is_halted());
    let stats = pair.manager.stats();
    assert_eq!(stats.peers[1].last_end, Some(Reason::Died));
    assert_eq!(stats.downs, [(ReasonKind::Died, 1)].into());
    let sent = pair.manager.to_send(Sid(PANIC_SID), "x");
    assert_eq!(sent, Err(SendError::Halted));
    let manager = Arc::clone(&pair.manager);
    let all = move || while manager.events().recv().is_ok() {};
    within("receiving events", all);
    pair.halt();
    assert!(pair.manager.has_died());
    assert!(is_free(&pair.address));
}

#[test]
fn panic_while_dropping_a_payload_does_not_end_the_loop() {
    let pair = Pair::new();
    let peer = pair.link();
    // The loop frees this frame when the next one has replaced it as the last frame.
    pair.send(payload(b"boom", || panic!("expected by the test")));
    pair.unlink(peer);
    pair.send("next");
    let mut peer = pair.link();
    assert_eq!(peer.recv(), b"next");
    pair.send("and on");
    assert_eq!(peer.recv(), b"and on");
}

#[test]
fn dropped_payload_may_use_the_handle() {
    let pair = Pair::new();
    let (sender, freed) = channel();
    let reentrant = |name: &'static str| {
        let (handle, sender) = (pair.manager.handle(), sender.clone());
        payload(name.as_bytes(), move || {
            let _ = handle.stats();
            handle
                .to_send(Sid(PEER), "from within")
                .unwrap_or(SendOutcome::Queued);
            let _ = sender.send(name);
        })
    };
    let send = |frame: Bytes| {
        let manager = Arc::clone(&pair.manager);
        within("sending", move || {
            manager.to_send(Sid(PEER), frame).unwrap()
        })
    };
    let expect = |name| assert_eq!(freed.recv_timeout(LONG), Ok(name));
    // Replaced in the slot.
    send(reentrant("superseded"));
    send("newer".into());
    expect("superseded");
    // Replaced as the last frame.
    let mut peer = pair.link();
    eventually("nothing waits", || pair.manager.have_delivered());
    send(reentrant("last"));
    send("newer".into());
    expect("last");
    while peer.recv() != b"newer" {}
    // Replaced while the link is blocked.
    block(&pair);
    send(reentrant("waiting"));
    send("newer".into());
    expect("waiting");
    // The link ends while a frame is written in part.
    pair.unlink(peer);
    // Discarded by the loop.
    send(reentrant("discarded"));
    pair.halt();
    expect("discarded");
}

#[test]
fn interrupted_payload_may_use_the_handle_when_dropped() {
    let pair = Pair::new();
    let (sender, freed) = channel();
    let peer = pair.link();
    // Large frames, one of which is written in part when the socket is full. A newer frame waits behind it.
    static LARGE: [u8; 500_000] = [7; 500_000];
    let mut sent = 0;
    while pair.manager.have_delivered() {
        let (handle, sender) = (pair.manager.handle(), sender.clone());
        pair.send(payload(&LARGE, move || {
            let _ = handle.stats();
            let _ = sender.send(());
        }));
        sent += 1;
    }
    pair.send("newest");
    pair.unlink(peer);
    let mut peer = pair.link();
    assert_eq!(peer.recv(), b"newest");
    for _ in 0..sent {
        freed.recv_timeout(LONG).unwrap();
    }
}

// The application turns the loop.

#[test]
fn two_loops_run_in_one_poll_of_the_application() {
    const COUNT: u64 = 1000;
    let echo = |from, frame: &[u8], handle: &Handle| {
        let number = number_of(frame) + 1;
        if number < COUNT {
            handle.to_send(from, number.to_be_bytes().to_vec()).unwrap();
        }
    };
    let (listeners, addresses): (Vec<_>, Vec<_>) = (0..2).map(|_| listener()).unzip();
    let servers = [(1, &addresses[0]), (2, &addresses[1])];
    let mut poll = mio::Poll::new().unwrap();
    let mut loops = Vec::new();
    for (at, listener) in listeners.into_iter().enumerate() {
        let config = configure(servers[at].0, &servers).listener(listener);
        let event_loop = EventLoop::new(config.build().unwrap(), Recorder::new(echo)).unwrap();
        let fd = event_loop.as_fd().as_raw_fd();
        let (source, readable) = (&mut mio::unix::SourceFd(&fd), mio::Interest::READABLE);
        let token = mio::Token(at);
        poll.registry().register(source, token, readable).unwrap();
        loops.push(event_loop);
    }
    // The frame waits: there is no link yet.
    let first = 0_u64.to_be_bytes().to_vec();
    loops[0].handle().to_send(Sid(2), first).unwrap();
    let mut events = mio::Events::with_capacity(8);
    let mut due = [true, true];
    eventually("the number goes to and fro", || {
        let timeout = loops.iter().filter_map(EventLoop::timeout).min();
        let timeout = timeout.unwrap_or(LONG).min(LONG);
        let now = if due.contains(&true) {
            Duration::ZERO
        } else {
            timeout
        };
        poll.poll(&mut events, Some(now)).unwrap();
        due = [false, false];
        for event in &events {
            due[event.token().0] = true;
        }
        for (at, event_loop) in loops.iter_mut().enumerate() {
            if due[at] || event_loop.timeout() == Some(Duration::ZERO) {
                assert!(event_loop.turn(Some(Duration::ZERO)).unwrap());
            }
        }
        let received = loops.iter().map(|event_loop| event_loop.handler().frames);
        received.sum::<usize>() as u64 == COUNT
    });
    // Nothing is due. A request makes the descriptor of its loop readable.
    let handle = loops[1].handle().clone();
    handle.request_halt();
    poll.poll(&mut events, Some(LONG)).unwrap();
    assert!(events.iter().any(|event| event.token() == mio::Token(1)));
    assert!(!loops[1].turn(Some(Duration::ZERO)).unwrap());
}

#[test]
fn handler_answer_is_written_in_the_same_turn() {
    let act = |from, frame: &[u8], handle: &Handle| {
        let answer: Vec<u8> = frame.iter().rev().copied().collect();
        assert_eq!(handle.to_send(from, answer), Ok(SendOutcome::Written));
    };
    let mut test_loop = TurnedLoop::new(act, |builder| builder);
    let mut peer = test_loop.connect(PEER, &["abc"]);
    test_loop.until("the frame is answered", |_, recorded| recorded.frames == 1);
    // Written in the same turn: no further turn is needed.
    assert_eq!(peer.recv(), b"cba");
}

#[test]
fn halt_request_of_a_handler_takes_effect_in_the_same_turn() {
    let for_at_most = Duration::from_millis(1);
    for idle in [Idle::Block, Idle::spin(for_at_most)] {
        let act = |_, payload: &[u8], handle: &Handle| {
            if payload == b"halt" {
                handle.request_halt();
            }
        };
        let mut test_loop = TurnedLoop::new(act, |builder| builder.idle(idle));
        let mut peer = test_loop.connect(PEER, &["first"]);
        test_loop.until("the peer is the last active link", |_, recorded| {
            recorded.frames == 1
        });
        peer.send("halt");
        eventually(
            "the frame arrives, and the loop halts in the same turn",
            || {
                let goes_on = test_loop.event_loop.turn(Some(Duration::ZERO)).unwrap();
                let arrived = test_loop.handler().frames == 2;
                assert_eq!(goes_on, !arrived, "{idle:?}");
                arrived
            },
        );
    }
}

#[test]
fn slow_turn_is_reported() {
    let act = |_, _: &[u8], _: &Handle| thread::sleep(SLOW_TURN + Duration::from_millis(1));
    let mut test_loop = TurnedLoop::new(act, |builder| builder);
    test_loop.handle().to_send(Sid(OWN), "slow").unwrap();
    test_loop.until("the turn is reported", |_, recorded| {
        let is_report =
            |event: &Event| matches!(event, Event::SlowTurn { took, .. } if *took > SLOW_TURN);
        recorded.events.iter().any(is_report)
    });
}

/// Sends to each peer whose link has ended or whose dial has failed.
struct SendAfterEnd;

impl Handler for SendAfterEnd {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::Down { sid, .. } | Event::DialFailed { sid, .. } = event {
            // The sid may be unknown already.
            let _ = handle.to_send(*sid, "come back");
            let _ = handle.initiate_connection(*sid);
        }
    }
}

#[test]
fn sending_to_an_observer_that_just_left_is_harmless() {
    let mut test_loop = TurnedLoop::with(SendAfterEnd, |builder| builder);
    let observer = test_loop.connect(i64::MAX, &[]);
    test_loop.until("the observer is linked", |handle, _| {
        handle.connected_to_peer(Sid(-1))
    });
    drop(observer);
    test_loop.until("the observer is forgotten", |handle, _| {
        handle.stats().peers.len() == 1
    });
    let _observer = test_loop.connect(i64::MAX, &[]);
    test_loop.until("another observer is linked", |handle, _| {
        handle.connected_to_peer(Sid(-2))
    });
    assert!(test_loop.handle().stats().sent.balances());
}

#[test]
fn sending_to_an_unreachable_joiner_is_harmless() {
    let mut test_loop = TurnedLoop::with(SendAfterEnd, |builder| {
        builder.unknown(quorum_cnx::Unknown::admit(1))
    });
    let knock = versioned(V1, 1, NOBODY);
    for round in 1..=3 {
        let _joiner = TestConnection::dial_and_write(MEMBER_IP, &test_loop.address, &knock);
        test_loop.until("the joiner has knocked", |handle, _| {
            handle.stats().knocks == round
        });
        test_loop.until("the joiner is forgotten", |handle, _| {
            handle.stats().peers.len() == 1
        });
    }
}

#[test]
fn error_of_an_old_link_does_not_end_the_new_one() {
    let mut test_loop = TurnedLoop::passive(|builder| builder);
    let old = test_loop.link();
    // All of it before the next turn: the old link ends, a sender notices first, and the new connection arrives.
    old.reset();
    let mut new = test_loop.connect(PEER, &["new"]);
    let handle = test_loop.handle();
    eventually("the sender notices", || {
        handle.to_send(Sid(PEER), "lost").unwrap() != SendOutcome::Written
    });
    test_loop.until("the new link is up", |_, recorded| recorded.frames == 1);
    assert_eq!(new.recv(), b"lost");
    let stats = handle.stats();
    assert!(stats.rejected.is_empty(), "{:?}", stats.rejected);
    assert_eq!(stats.ups, 2);
}

/// With two addresses, the connections of one peer wait in two accept queues, and may be accepted in any order.
#[test]
fn abandoned_connection_replaces_no_link_and_delivers_nothing() {
    let second = listener();
    let mut test_loop = TurnedLoop::passive(|builder| builder.listener(second.0));
    TestConnection::member(&second.1, PEER, &["older"]).reset();
    let mut newer = test_loop.connect(PEER, &["the newer"]);
    test_loop.until("both connections are processed", |handle, recorded| {
        let stats = handle.stats();
        stats.accepted == 2 && stats.pending == 0 && recorded.frames > 0
    });
    let handle = test_loop.handle();
    handle.to_send(Sid(PEER), "answer").unwrap();
    assert_eq!(newer.recv(), b"answer");
    let recorded = test_loop.handler();
    assert_eq!((recorded.frames, recorded.bytes), (1, "the newer".len()));
    let stats = handle.stats();
    let rejected = [(ReasonKind::Io, 1)].into();
    assert_eq!((stats.ups, stats.rejected), (1, rejected));
}

// When peers are dialed.

#[test]
fn on_demand_dials_for_a_frame_and_not_after_a_link_ends() {
    let (listener, address) = listener();
    let mut test_loop =
        TurnedLoop::passive(|builder| builder.server(Sid(1), address).dial(Dial::OnDemand));
    let handle = test_loop.handle();
    // Nothing is dialed, and nothing is due.
    test_loop.turn();
    // A frame dials, and so does a request. The last frame is repeated.
    for (dials, frame, repeated) in [(0, "one", ""), (1, "two", ""), (2, "", "two")] {
        assert_eq!(
            (test_loop.event_loop.timeout(), handle.stats().dials),
            (None, dials)
        );
        if frame.is_empty() {
            handle.connect_one(Sid(1)).unwrap();
        } else {
            assert_eq!(handle.to_send(Sid(1), frame), Ok(SendOutcome::Queued));
        }
        test_loop.until("the frame is written", |handle, _| {
            handle.connected_to_peer(Sid(1)) && handle.have_delivered()
        });
        let mut peer = TestConnection::accept(&listener);
        assert_eq!(peer.read_initial_message().sid, OWN);
        assert_eq!(peer.recv(), [frame, repeated].concat().into_bytes());
        drop(peer);
        test_loop.until("the link ends", |_, recorded| {
            recorded.ends().len() as u64 == dials + 1
        });
    }
    assert_eq!(handle.stats().dials, 3);
}

#[test]
fn refused_dial_is_reported_and_retried_until_linked() {
    for (own, peer) in [(1, 2), (2, 1)] {
        let peer_listener = ReservedAddress::new();
        let (manager, address) =
            single_manager(own, &[(peer, &peer_listener.address)], |builder| builder);
        for _ in 0..3 {
            let failed = wait_for(&manager, |event| match event {
                Event::DialFailed {
                    sid, addr, reason, ..
                } => Some((*sid, *addr, reason.clone())),
                _ => None,
            });
            let refused = Reason::Io(io::ErrorKind::ConnectionRefused);
            let addr = peer_listener.address.parse().unwrap();
            assert_eq!(failed, (Sid(peer), Some(addr), refused));
        }
        assert!(manager.stats().dial_failures >= 3);
        manager.to_send(Sid(peer), "are you there?").unwrap();
        let (listener, peer_address) = peer_listener.open();
        let servers = [(own, &address), (peer, &peer_address)];
        let config = configure(peer, &servers).listener(listener);
        let appeared = CnxManager::start(config.build().unwrap()).unwrap();
        expect_message(&appeared, own, "are you there?");
    }
}

#[test]
fn unknown_host_name_is_reported_and_looked_up_again() {
    // A label of a name has at most 63 characters, so that the resolver sends no query.
    let unknown = "x".repeat(64);
    let (manager, _) = single_manager(OWN, &[(1, format!("{unknown}:1"))], |builder| builder);
    for _ in 0..3 {
        let names = wait_for(&manager, |event| match event {
            Event::DialFailed {
                sid: Sid(1),
                addr: None,
                reason: Reason::NoAddress(names),
                ..
            } => Some(names.clone()),
            _ => None,
        });
        // The text of the system's error follows the name.
        let error = (unknown.as_str(), 0).to_socket_addrs().unwrap_err();
        let error = error.to_string();
        let text = error.rsplit(": ").next().unwrap();
        assert_eq!(names, format!("{unknown} ({text})"));
    }
}

// Addresses of peers, and of this server.

#[test]
fn peers_are_dialed_by_name_and_at_all_their_addresses() {
    let peers = [listener(), listener(), listener()];
    let ports = [0, 1].map(|at| peers[at].1.rsplit_once(':').unwrap().1);
    let dead = ReservedAddress::new();
    // A name; an address after one at which nothing listens; an address after a name that cannot exist.
    let servers = [
        (1, format!("localhost:{}", ports[0])),
        (2, format!("{}|127.0.0.1:{}", dead.address, ports[1])),
        (3, format!("{}:1|{}", "x".repeat(64), peers[2].1)),
    ];
    let (manager, _) = single_manager(OWN, &servers, |builder| builder);
    for (sid, peer) in (1..).zip(&peers) {
        manager.to_send(Sid(sid), format!("for {sid}")).unwrap();
        let mut link = TestConnection::accept(&peer.0);
        assert_eq!(link.read_initial_message().sid, OWN);
        assert_eq!(link.recv(), format!("for {sid}").into_bytes());
    }
}

/// As with Java's wildcard, a name may have addresses of both families.
#[test]
fn listen_on_all_ips_covers_ipv4_and_ipv6() {
    for own in ["localhost:0", "[::1]:0"] {
        let config = configure(OWN, &[(OWN, own)]).listen_on_all_ips(true);
        let manager = CnxManager::start(config.build().unwrap()).unwrap();
        let at = wait_for_listening(&manager);
        assert_eq!(manager.listening()[0], Listening::Open(at));
        TcpStream::connect(("127.0.0.1", at.port())).unwrap();
        // Only on a machine with IPv6.
        if TcpListener::bind("[::1]:0").is_ok() {
            TcpStream::connect(("::1", at.port())).unwrap();
        }
    }
}

/// Only Linux has several IPv4 addresses on loopback.
#[cfg(target_os = "linux")]
#[test]
fn outgoing_connections_use_the_configured_source_address() {
    let peer_listener = listener();
    let (_manager, _) = single_manager(OWN, &[(1, &peer_listener.1)], |builder| {
        builder.dial_from(support::STRANGER_IP.into())
    });
    let peer = TestConnection::accept(&peer_listener.0);
    assert_eq!(peer.0.peer_addr().unwrap().ip(), support::STRANGER_IP);
}

#[test]
fn spinning_loop_and_receiver_behave_like_blocking_ones() {
    let idle = Idle::spin(Duration::from_millis(2));
    let mesh = Mesh::linked(&[1, 2], &[], |builder| builder.idle(idle));
    let [one, two] = [&mesh.managers[0], &mesh.managers[1]];
    for number in 0..100_u64 {
        one.to_send(Sid(2), number.to_be_bytes().to_vec()).unwrap();
        assert_eq!(number_of(&two.recv_timeout(LONG).unwrap().payload), number);
    }
    assert_eq!(
        one.recv_timeout(Duration::from_millis(1)),
        Err(RecvError::Timeout)
    );
    let waiting = Arc::clone(two);
    let receiver = thread::spawn(move || waiting.recv());
    two.halt();
    let received = within("receiving", || receiver.join().unwrap());
    assert_eq!(received, Err(RecvError::Halted));
}

/// A manager whose receivers spin for longer than any test takes, and so turn the loop themselves.
fn lent() -> Pair {
    Pair::with(|builder| builder.idle(Idle::spin(3 * LONG)))
}

#[test]
fn loop_goes_on_when_its_receiver_stays_away() {
    let pair = lent();
    let mut peer = pair.link();
    peer.send("first");
    // This thread has turned the loop. From now on it does not.
    expect_message(&pair.manager, PEER, "first");
    pair.unlink(peer);
    let mut peer = pair.link();
    eventually("a frame is received", || {
        peer.send("second");
        pair.manager.stats().inbox.waiting > 0
    });
    expect_message(&pair.manager, PEER, "second");
    let manager = Arc::clone(&pair.manager);
    // Not taken for the loop's thread, which would not wait.
    within("halting", move || manager.halt());
    assert!(is_free(&pair.address));
}

#[test]
fn spinning_receivers_get_every_message_once() {
    for count in 1..=2 {
        let pair = lent();
        let mut peer = pair.link();
        let (sender, taken) = channel();
        let receivers: Vec<_> = (0..count)
            .map(|_| {
                let (manager, sender) = (Arc::clone(&pair.manager), sender.clone());
                thread::spawn(move || {
                    while let Ok(message) = manager.recv() {
                        sender.send(number_of(&message.payload)).unwrap();
                    }
                })
            })
            .collect();
        let mut numbers = Vec::new();
        for number in 0..200 {
            // Some from the network, and some from a thread that does not wake the loop.
            match number % 2 {
                0 => peer.send(numbered(number, 8)),
                _ => drop(pair.manager.to_send(Sid(OWN), numbered(number, 8)).unwrap()),
            }
            numbers.push(taken.recv_timeout(LONG).unwrap());
        }
        assert_eq!(numbers, Vec::from_iter(0..200));
        pair.halt();
        within("receiving until the end", move || {
            receivers.into_iter().for_each(|one| one.join().unwrap());
        });
        assert!(is_free(&pair.address) && taken.try_recv().is_err());
    }
}

#[test]
fn receiver_that_turns_the_loop_ends_at_its_deadline() {
    let manager = lent().manager;
    within("receiving", move || {
        for timeout in [Duration::ZERO, Duration::from_millis(1)] {
            let received = manager.recv_timeout(timeout);
            assert_eq!(received, Err(RecvError::Timeout));
        }
    });
}

/// A loop that spins, turned until it has received a frame of its peer, which then is the last active link.
fn spinning_loop(
    act: impl FnMut(Sid, &[u8], &Handle) + Send + 'static,
    shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> (TurnedLoop<Recorder>, TestConnection) {
    let idle = Idle::spin(Duration::from_millis(1));
    let mut test_loop = TurnedLoop::new(act, |builder| shape(builder).idle(idle));
    let busy_peer = test_loop.connect(PEER, &["first"]);
    test_loop.until("the frame is received", |_, recorded| recorded.frames == 1);
    (test_loop, busy_peer)
}

#[test]
fn spinning_loop_serves_others_beside_a_busy_peer() {
    let (sender, received) = channel();
    let act = move |from: Sid, _: &[u8], _: &Handle| sender.send(from).unwrap();
    let (mut test_loop, mut busy_peer) =
        spinning_loop(act, |builder| builder.server(Sid(PEER + 1), "127.0.0.1:2"));
    let mut other = test_loop.connect(PEER + 1, &[]);
    test_loop.until("both are linked", |handle, _| {
        handle.linked_peers().len() == 2
    });
    busy_peer.send("again");
    test_loop.until("the first peer is the last active link", |_, recorded| {
        recorded.frames == 2
    });
    other.send("once");
    // On a busy machine a packet may take a while, but less than a hundred times as long as a turn.
    let is_served = (1..=100 * HOT_TURNS_MAX).any(|_| {
        busy_peer.send("again");
        test_loop.turn();
        received.try_iter().any(|from| from.0 > PEER)
    });
    assert!(is_served, "the frame of the other peer is not received");
}

#[test]
fn spinning_loop_closes_its_last_active_link_in_one_turn() {
    let no_length = [0; 4];
    for last_bytes in [Vec::new(), [&frame("again")[..], &no_length].concat()] {
        // On demand: else the peer may be dialed in the turn in which its link ends.
        let on_demand = |builder: ConfigBuilder| builder.dial(Dial::OnDemand);
        let (mut test_loop, mut busy_peer) = spinning_loop(|_, _, _| {}, on_demand);
        assert_eq!(test_loop.handle().stats().connections, 1);
        busy_peer.write(&last_bytes);
        drop(busy_peer);
        test_loop.until("the end is reported", |_, recorded| {
            !recorded.ends().is_empty()
        });
        assert_eq!(test_loop.handle().stats().connections, 0);
    }
}

#[test]
fn spinning_loop_accepts_a_full_batch_in_each_turn() {
    let (mut test_loop, mut busy_peer) = spinning_loop(|_, _, _| {}, |builder| builder);
    let turns = 4;
    let waiting = turns * ACCEPTS_PER_TURN;
    let _waiting: Vec<_> = (0..waiting)
        .map(|_| TestConnection::dial(MEMBER_IP, &test_loop.address))
        .collect();
    let handle = test_loop.handle();
    let accepted = || handle.stats().accepted - 1;
    let mut turn = || {
        busy_peer.send("again");
        test_loop.turn();
    };
    eventually("the loop accepts", || {
        turn();
        accepted() > 0
    });
    (1..turns).for_each(|_| turn());
    assert_eq!(accepted(), waiting as u64);
}

#[test]
fn knock_is_an_initial_message_and_a_fin() {
    let peer_listener = listener();
    let (_manager, _) = single_manager(OWN, &[(PEER, &peer_listener.1)], |builder| {
        builder.handshake_timeout(Duration::from_secs(3600))
    });
    let mut knock = TestConnection::accept(&peer_listener.0);
    assert_eq!(knock.read_initial_message().sid, OWN);
    assert_eq!(knock.wait_closed(), b"");
}

#[test]
fn unanswered_knock_is_reset_before_the_next_one() {
    let peer_listener = listener();
    let (_manager, _) = single_manager(OWN, &[(PEER, &peer_listener.1)], |builder| {
        builder.handshake_timeout(Duration::from_millis(200))
    });
    let [first, _second] = [(); 2].map(|()| TestConnection::accept(&peer_listener.0));
    // The peer must not process it after the second one.
    first.wait_reset();
}

#[test]
fn slow_knock_is_reset_once_there_is_a_link() {
    let peer_listener = listener();
    let (manager, address) = single_manager(OWN, &[(PEER, &peer_listener.1)], |builder| builder);
    let knock = TestConnection::accept(&peer_listener.0);
    // Elapsed time alone makes a knock slow: there is no event to wait for.
    thread::sleep(KNOCK_CROSSING / 2);
    let _link = TestConnection::member(&address, PEER, &[]);
    eventually("the peer is linked", || {
        manager.connected_to_peer(Sid(PEER))
    });
    knock.wait_reset();
}
