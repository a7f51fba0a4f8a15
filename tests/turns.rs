//! Tests what happens within one turn of the loop, on a loop that the test turns itself.
//!
//! No other thread runs, except where a test says so.

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
    Dial, Event, EventLoop, Handle, Leave, Outbox, Reason, SendError, SendOutcome, Sid, Stats,
};
use socket2::SockRef;
use support::{
    LONG, MEMBER_IP, STRANGER_IP, TestConnection, bare, eventually, frame,
    turned::{Ignore, OWN, PEER, Recorder, TurnedLoop},
    within,
};

/// A future that borrows a loop can be spawned on a runtime with several threads.
const _: fn() = || {
    fn moves_between_threads<T: Send + Sync>() {}
    moves_between_threads::<EventLoop<Ignore>>();
};

/// The first observer.
const OBSERVER: Sid = Sid(-1);

/// Waits, without a turn, until the kernel reports the end of this connection.
#[track_caller]
fn wait_for_the_end(handle: &Handle, peer: Sid) {
    eventually("a write fails", || {
        handle.to_send(peer, "is it there?").unwrap() != SendOutcome::Written
    });
}

/// ZooKeeper's FastLeaderElection, too, calls `connectAll` where it handles messages.
#[track_caller]
fn reset_an_observer_while_it_is_answered(outbox: Outbox, request: fn(&Handle)) {
    let observer: Arc<Mutex<Option<TestConnection>>> = Arc::default();
    let resetting = Arc::clone(&observer);
    let act = move |from: Sid, _: &[u8], handle: &Handle| {
        if from != Sid(PEER) {
            return;
        }
        let observer = resetting
            .lock()
            .unwrap()
            .take()
            .expect("the frame arrives once");
        observer.reset();
        match outbox {
            Outbox::Latest => wait_for_the_end(handle, OBSERVER),
            _ => {
                handle.to_send(OBSERVER, "answer").unwrap();
            }
        }
        request(handle);
    };
    let mut test_loop = TurnedLoop::new(act, |builder| builder.outbox(outbox).observers_max(2));
    let mut peer = test_loop.link();
    *observer.lock().unwrap() = Some(test_loop.connect(i64::MAX, &[]));
    test_loop.until("the observer is linked", |handle, _| {
        handle.connected_to_peer(OBSERVER)
    });
    peer.send("go");
    test_loop.until("the observer is forgotten", |handle, received| {
        received.frames == 1 && handle.stats().peers.len() == 1
    });
    let handle = test_loop.handle();
    assert!(handle.connected_to_peer(Sid(PEER)) && !handle.is_halted());
    assert!(handle.stats().sent.balances());
}

#[test]
fn observer_reset_does_not_end_the_loop() {
    let requests: [fn(&Handle); 3] = [
        Handle::connect_all,
        |handle| {
            let _ = handle.connect_one(OBSERVER);
        },
        |handle| {
            let _ = handle.initiate_connection(OBSERVER);
        },
    ];
    for outbox in [Outbox::Latest, Outbox::QUEUE] {
        for request in requests {
            reset_an_observer_while_it_is_answered(outbox, request);
        }
    }
}

#[test]
fn waiting_frame_causes_a_dial_after_two_ends_in_one_turn() {
    let mut test_loop = TurnedLoop::passive(|builder| builder.dial(Dial::OnDemand));
    let older = test_loop.link();
    let contender = TestConnection::dial_and_write(STRANGER_IP, &test_loop.address, &bare(PEER));
    test_loop.until("a contender waits", |handle, _| handle.stats().pending == 1);
    // The loop has handled all events of the two connections so far, so that it sees their ends in this order.
    (0..3).for_each(|_| test_loop.turn());
    let handle = test_loop.handle();
    while handle.to_send(Sid(PEER), vec![7; 100_000]).unwrap() == SendOutcome::Written {}
    handle.to_send(Sid(PEER), "newest").unwrap();
    let dials = handle.stats().dials;
    // First the older one, so that the contender takes its place and then ends, too. Over the loopback interface a reset has
    // arrived when the call returns.
    older.reset();
    contender.reset();
    test_loop.until("the peer is dialed for the frame", |handle, _| {
        handle.stats().dials > dials
    });
}

/// The loop writes what else is put into a queue: together, and while the sender goes on.
#[test]
fn reply_in_a_queue_is_written_by_its_sender() {
    let mut test_loop = TurnedLoop::passive(|builder| builder.outbox(Outbox::QUEUE));
    let peer = test_loop.link();
    let handle = test_loop.handle();
    // Sends a frame after this many have come in one turn. Returns how many were written then, without a turn.
    let mut send = |received: usize| {
        let before = test_loop.handler().frames;
        (&peer.0).write_all(&frame("?").repeat(received)).unwrap();
        eventually("they have arrived", || has_arrived(&peer));
        test_loop.until("they are read", |_, seen| seen.frames == before + received);
        handle.to_send(Sid(PEER), "!").unwrap();
        handle.stats().sent.written
    };
    assert_eq!(send(0), 0);
    assert_eq!(send(1), 2, "with the one before");
    assert_eq!(send(1), 3);
    assert_eq!(send(0), 3);
    assert_eq!(send(2), 4);
    test_loop.turn();
    assert_eq!(handle.stats().sent.written, 5);
}

#[test]
fn member_comes_up_and_its_time_is_over_in_one_turn() {
    let time = Duration::from_millis(50);
    let mut found = None;
    // Once more if this thread was kept from running for so long that the time was over before.
    eventually("the first turn is in time", || {
        let begun = Instant::now();
        let mut test_loop = TurnedLoop::passive(|builder| builder.outbox(Outbox::QUEUE));
        let handle = test_loop.handle();
        handle.to_send(Sid(PEER), "waits").unwrap();
        handle.remove_server(Sid(PEER), Leave::After(time)).unwrap();
        test_loop.turn();
        found = (begun.elapsed() < time).then_some((test_loop, handle, Instant::now()));
        found.is_some()
    });
    let (mut test_loop, handle, turned) = found.unwrap();
    let _peer = test_loop.connect(PEER, &[]);
    while turned.elapsed() <= time {
        thread::yield_now();
    }
    test_loop.until("the member has left", |_, recorder| {
        let left = |event: &Event| matches!(event, Event::Left { .. });
        recorder.events.iter().any(left)
    });
    let events = &test_loop.handler().events;
    let up = |event: &&Event| matches!(event, Event::Up { .. });
    let up = events.iter().find(up);
    // The member had dialed it.
    assert!(
        matches!(up, Some(Event::Up { dialed: false, .. })),
        "{events:?}"
    );
    assert_eq!(test_loop.handler().ends(), [Reason::Removed]);
    assert!(handle.stats().balances());
}

#[test]
fn no_loopback_frame_is_delivered_after_a_halt_request() {
    let mut test_loop = TurnedLoop::new(
        |_, _: &[u8], handle: &Handle| handle.request_halt(),
        |builder| builder,
    );
    for _ in 0..5 {
        test_loop.handle().to_send(Sid(OWN), "to myself").unwrap();
    }
    test_loop.event_loop.run().unwrap();
    assert_eq!(test_loop.handler().frames, 1);
}

#[test]
fn nothing_is_accepted_after_a_halt_request() {
    let test_loop = TurnedLoop::passive(|builder| builder);
    let handle = test_loop.handle();
    handle.request_halt();
    for sid in [PEER, OWN].map(Sid) {
        assert_eq!(handle.to_send(sid, "x"), Err(SendError::Halted));
        assert_eq!(handle.to_send_all(sid, &[b"x"]), Err(SendError::Halted));
    }
    // The loop has not handled the request.
    assert!(!handle.is_halted());
}

#[test]
fn wait_for_room_does_not_block_the_thread_of_the_loop() {
    within("waiting for room", || {
        let act = |_, _: &[u8], handle: &Handle| {
            assert_eq!(handle.wait_for_room(Sid(PEER), Duration::MAX), Ok(false));
            assert_eq!(handle.wait_for_room(Sid(OWN), Duration::MAX), Ok(true));
        };
        let mut test_loop = TurnedLoop::new(act, |builder| builder);
        let handle = test_loop.handle();
        handle.to_send(Sid(PEER), "waits for a link").unwrap();
        // The thread would wait for itself. In a handler, too.
        assert_eq!(handle.wait_for_room(Sid(PEER), Duration::MAX), Ok(false));
        handle.to_send(Sid(OWN), "now").unwrap();
        test_loop.until("the handler has run", |_, received| received.frames == 1);
    });
}

/// Whether the kernel of the other end has all that was written. On a busy machine that takes a while.
fn has_arrived(connection: &TestConnection) -> bool {
    let port = format!(":{:04X}", connection.0.local_addr().unwrap().port());
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

/// How long to wait until a full receive buffer accepts more.
const BRIEFLY: Duration = Duration::from_millis(200);

/// Frames with so many payload bytes in total.
fn frames(bytes: usize) -> Vec<u8> {
    frame(vec![1; FRAME]).repeat(bytes / FRAME)
}

/// Writes frames as the peer until the kernel has enlarged the receive buffer so much that it holds `unread` bytes. Returns
/// how many payload bytes the handler has received.
fn stream(test_loop: &mut TurnedLoop<Recorder>, peer: &TestConnection, unread: usize) -> usize {
    const BYTES: usize = 32 << 20;
    let mut total = 0;
    for _ in 0..50 {
        write_and_read(test_loop, peer, &frames(BYTES), &mut total);
        let (probe, mut written) = (frames(unread * 3 / 2), 0);
        peer.0.set_write_timeout(Some(BRIEFLY)).unwrap();
        while let Ok(count @ 1..) = (&peer.0).write(&probe[written..]) {
            written += count;
        }
        peer.0.set_write_timeout(Some(LONG)).unwrap();
        let deadline = Instant::now() + BRIEFLY;
        let mut arrived = false;
        while written == probe.len() && !arrived && Instant::now() < deadline {
            arrived = has_arrived(peer);
        }
        total += written;
        write_and_read(test_loop, peer, &probe[written..], &mut total);
        if arrived {
            return test_loop.handler().bytes;
        }
    }
    panic!("no receive buffer grows to {unread} bytes here: see tcp_rmem in tcp(7)");
}

/// Writes this as the peer, and turns until the handler has received all of it. `total` is the number of bytes written so far.
fn write_and_read(
    test_loop: &mut TurnedLoop<Recorder>,
    peer: &TestConnection,
    bytes: &[u8],
    total: &mut usize,
) {
    *total += bytes.len();
    thread::scope(|scope| {
        scope.spawn(|| (&peer.0).write_all(bytes).unwrap());
        let payload = *total / (FRAME + PREFIX) * FRAME;
        test_loop.until("everything is read", |_, received| {
            received.bytes == payload
        });
    });
}

#[test]
fn received_bytes_are_read_after_a_failed_write() {
    // More than two turns can read.
    const REST: usize = 640 << 10;
    let mut test_loop = TurnedLoop::passive(|builder| builder);
    let mut peer = test_loop.link();
    let before = stream(&mut test_loop, &peer, REST);
    // From here on nothing is read. Closing the socket waits until all of it has arrived.
    peer.write(&frames(REST));
    SockRef::from(&peer.0).set_linger(Some(LONG)).unwrap();
    drop(peer);
    let handle = test_loop.handle();
    wait_for_the_end(&handle, Sid(PEER));
    test_loop.until("the link has ended", |_, received| {
        !received.ends().is_empty()
    });
    assert_eq!(test_loop.handler().bytes, before + REST);
    assert!(handle.stats().balances());
}

#[test]
fn received_bytes_are_read_before_a_link_is_replaced() {
    // More than one turn can read, and less than two.
    const REST: usize = 384 << 10;
    let mut test_loop = TurnedLoop::passive(|builder| builder);
    let mut older = test_loop.link();
    let before = stream(&mut test_loop, &older, REST);
    let mut newer = TestConnection::dial(MEMBER_IP, &test_loop.address);
    test_loop.until("the connection is accepted", |handle, _| {
        handle.stats().accepted == 2
    });
    // When the loop turns again, both the bytes and the newer connection are there.
    older.write(&frames(REST));
    eventually("all has arrived", || has_arrived(&older));
    newer.write(&[bare(PEER), frame("newer")].concat());
    test_loop.until(
        "the frame of the newer connection is read",
        |_, received| received.bytes % FRAME == "newer".len(),
    );
    assert_eq!(test_loop.handler().ends(), [Reason::Replaced]);
    assert_eq!(test_loop.handler().bytes, before + REST + "newer".len());
}

#[test]
fn stats_totals_never_decrease() {
    let mut test_loop = TurnedLoop::passive(|builder| builder.observers_max(64));
    let (handle, done) = (test_loop.handle(), AtomicBool::new(false));
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
        for round in 1..=200 {
            drop(test_loop.connect(i64::MAX, &["a", "b"]));
            test_loop.until("an observer has connected and disconnected", |handle, _| {
                let stats = handle.stats();
                stats.received.frames == 2 * round && stats.peers.len() == 1
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}
