//! Tests streams of frames: the queue in place of the slot, waiting for room, receiving in batches.
//!
//! The tests of single frames are in `promises.rs`.

use std::{
    net::TcpListener,
    os::fd::{AsFd as _, AsRawFd as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{
    Batch, CnxManager, Config, EVENTS_MAX, Event, EventLoop, FRAME_BYTES_MAX, Frame, Handle,
    Handler, InboxFull, Outbox, QUEUE_BYTES, Reason, RecvError, SendError, SendOutcome, Sid,
    TryRecvError, simulation::limits::LANES_RUN_BYTES,
};
use support::{
    LONG, Mesh, NOBODY, ReservedAddress, TestConnection, eventually, fill_with_socket, frame,
    listener,
    pair::{self, Pair},
    renewed, single_manager,
    turned::{OWN, PEER},
    within,
};

const NEAR: Sid = Sid(1);
const FAR: Sid = Sid(2);

/// Mostly small; some too large to be copied into a chunk; some of the maximum length.
fn len_of(number: u64) -> usize {
    match number % 1000 {
        0 => FRAME_BYTES_MAX,
        1..10 => 20_000 + number as usize % 50_000,
        _ => 8 + number as usize % 200,
    }
}

/// The payload with this number. Its length follows from the number.
fn numbered(number: u64) -> Vec<u8> {
    pair::numbered(number, len_of(number))
}

fn number_of(payload: &[u8]) -> u64 {
    let number = pair::number_of(payload);
    assert_eq!(payload.len(), len_of(number));
    number
}

/// Sends frames with these numbers by all sending functions, and waits for room where necessary.
fn send(handle: &Handle, numbers: std::ops::Range<u64>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let frames: Vec<Vec<u8>> = (next..numbers.end.min(next + next % 40 + 1))
            .map(numbered)
            .collect();
        let taken = match &frames[..] {
            [one] if next % 2 == 0 => handle.to_send(FAR, one.clone()).map(|_| 1),
            [one] => handle.to_send_slice(FAR, one).map(|_| 1),
            many if next % 3 == 0 => Ok(feed(handle, many)),
            many => {
                let slices: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
                handle.to_send_all(FAR, &slices)
            }
        };
        match taken {
            Ok(taken) => next += taken as u64,
            Err(SendError::Full) => assert!(handle.wait_for_room(FAR, LONG).unwrap()),
            Err(error) => panic!("frame {next}: {error}"),
        }
    }
}

/// Sends these frames by a sender of their own, which is dropped with frames in its buffer. Returns their number.
fn feed(handle: &Handle, frames: &[Vec<u8>]) -> usize {
    let mut sender = handle.sender(FAR).unwrap();
    for frame in frames {
        while let Err(error) = sender.feed(frame) {
            assert_eq!(error, SendError::Full);
            assert!(handle.wait_for_room(FAR, LONG).unwrap());
        }
    }
    frames.len()
}

#[test]
fn fed_frames_enter_the_queue_together() {
    for outbox in [Outbox::QUEUE, Outbox::LANES] {
        check_fed_frames(outbox);
    }
}

fn check_fed_frames(outbox: Outbox) {
    let (near, _) = single_manager(1, &[(2, NOBODY)], |builder| builder.outbox(outbox));
    let sent = || near.stats().sent;
    let mut sender = near.sender(FAR).unwrap();
    assert_eq!(sender.sid(), FAR);
    for _ in 0..3 {
        sender.feed(b"frame").unwrap();
    }
    assert_eq!(sent().accepted, 0);
    sender.flush().unwrap();
    sender.flush().unwrap();
    assert_eq!((sent().accepted, sent().waiting), (3, 3));
    assert_eq!(sender.feed(b""), Err(SendError::Empty));
    let too_large = vec![0; FRAME_BYTES_MAX + 1];
    assert_eq!(
        sender.feed(&too_large),
        Err(SendError::TooLarge(too_large.len()))
    );
    // A long frame does not overtake the short ones, and a full run enters the queue by itself.
    sender.feed(b"frame").unwrap();
    sender.feed(&[1; 200_000]).unwrap();
    assert_eq!(sent().accepted, 5);
    for _ in 0..131 {
        sender.feed(&[1; 1000]).unwrap();
    }
    assert_eq!(sent().accepted, 5 + 130);
    sender.flush().unwrap();
    // The rest of the queue is taken, but for what is reserved for the buffer.
    sender.feed(b"kept").unwrap();
    while near.to_send_slice(FAR, &[2; 1000]).is_ok() {}
    let before = sent().accepted;
    let mut other = near.sender(FAR).unwrap();
    assert_eq!(other.feed(&[2; 1000]), Err(SendError::Full));
    drop(sender);
    assert_eq!(sent().accepted, before + 1);
    other.feed(&[2; 1000]).unwrap();
    near.halt();
    drop(other);
    assert!(sent().balances() && sent().waiting == 0, "{:?}", sent());
    assert_eq!(sent().accepted, before + 2, "discarded, and counted");
}

#[test]
fn feeding_a_slot_or_oneself_sends_at_once() {
    let (manager, _) = single_manager(1, &[(2, NOBODY)], |builder| builder);
    for sid in [NEAR, FAR] {
        let mut sender = manager.sender(sid).unwrap();
        sender.feed(b"one").unwrap();
        sender.feed(b"two").unwrap();
        assert!(format!("{sender:?}").contains("Sender"));
    }
    let own = [manager.recv().unwrap(), manager.recv().unwrap()];
    assert_eq!(own.map(|one| one.payload), ["one", "two"]);
    let sent = manager.stats().sent;
    assert_eq!((sent.accepted, sent.superseded), (2, 1));
    let nobody = manager.sender(Sid(9)).unwrap_err();
    assert_eq!(nobody, SendError::UnknownPeer(Sid(9)));
}

#[test]
fn frame_whose_writer_panics_is_not_sent_and_the_sender_goes_on() {
    for outbox in [Outbox::Latest, Outbox::QUEUE, Outbox::LANES] {
        let (manager, _) = single_manager(1, &[(2, NOBODY)], |builder| builder.outbox(outbox));
        for sid in [NEAR, FAR] {
            let mut sender = manager.sender(sid).unwrap();
            for len in [10, 100, 200_000] {
                let written = || sender.feed_with(len, |_| panic!("part of the test"));
                assert!(catch_unwind(AssertUnwindSafe(written)).is_err());
                sender
                    .feed_with(3, |frame| frame.copy_from_slice(b"one"))
                    .unwrap();
            }
            let unwritten = sender.feed_with(usize::MAX, |_| panic!("part of the test"));
            assert_eq!(unwritten, Err(SendError::TooLarge(usize::MAX)));
        }
        let sent = manager.stats().sent;
        assert_eq!((sent.accepted, sent.balances()), (3, true), "{outbox:?}");
        for _ in 0..3 {
            assert_eq!(manager.recv().unwrap().payload, "one");
        }
    }
}

#[test]
fn a_queue_delivers_every_frame_once_and_in_order() {
    const COUNT: u64 = 30_000;
    let mesh = Mesh::linked(&[1, 2], &[], |builder| {
        builder.outbox(Outbox::QUEUE).inbox_frames(1 << 20)
    });
    let [near, far] = [mesh.managers[0].clone(), mesh.managers[1].clone()];
    within("all frames are sent and received", move || {
        let sender = thread::spawn({
            let handle = near.handle();
            move || send(&handle, 0..COUNT)
        });
        let (mut batch, mut expected) = (Batch::new(), 0);
        while expected < COUNT {
            let count = far.recv_all(&mut batch).unwrap();
            assert_eq!((count, batch.iter().count()), (batch.len(), batch.len()));
            for (from, payload) in &batch {
                assert_eq!((from, number_of(payload)), (NEAR, expected));
                expected += 1;
            }
        }
        sender.join().unwrap();
        eventually("all frames are written", || near.have_delivered());
        let sent = near.stats().sent;
        assert_eq!((sent.accepted, sent.written), (COUNT, COUNT));
        let (near, far) = (near.stats(), far.stats());
        assert!(near.balances() && far.balances());
        assert_eq!((far.inbox.taken, far.inbox.dropped), (COUNT, 0));
        assert!(
            near.turns < COUNT / 2,
            "{} turns for {COUNT} frames: too many",
            near.turns
        );
    });
}

#[test]
fn renewals_of_a_native_link_lose_no_frame_of_a_queue() {
    // The larger sid dials. If the smaller one renews, it knocks, and a link that is young stays.
    for (renewing, times) in [(1, 20), (0, 3)] {
        let mesh = Mesh::linked(&[1, 2], &[], renewed::lossless);
        renewed::check(mesh, renewing, times);
    }
}

#[test]
fn full_queue_is_reported_and_accepts_again_with_room() {
    let (manager, address) =
        single_manager(1, &[(2, NOBODY)], |builder| builder.outbox(Outbox::QUEUE));
    let frame = Bytes::from(vec![7; 100_000]);
    let mut taken = 0;
    let error = loop {
        match manager.to_send(FAR, frame.clone()) {
            Ok(sent) => assert_eq!(sent, SendOutcome::Queued),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert_eq!(error, SendError::Full);
    assert_eq!(taken, QUEUE_BYTES as u64 / 100_004);
    assert_eq!(
        manager.to_send_all(FAR, &[&[1; 100], &[1; 99_000]]),
        Ok(1),
        "the frames that fit are accepted"
    );
    assert_eq!(manager.stats().sent.accepted, taken + 1);
    assert_eq!(manager.wait_for_room(FAR, Duration::ZERO), Ok(false));
    let mut reading = TestConnection::member(&address, 2, &[]);
    for _ in 0..taken {
        assert_eq!(reading.recv(), frame);
    }
    assert_eq!(reading.recv(), [1; 100]);
    assert_eq!(manager.wait_for_room(FAR, LONG), Ok(true));
    assert_eq!(manager.to_send(FAR, "again"), Ok(SendOutcome::Queued));
    assert_eq!(reading.recv(), b"again");
}

#[test]
fn queue_keeps_order_without_duplicates_over_reconnects() {
    for outbox in [Outbox::QUEUE, Outbox::LANES] {
        check_order_over_reconnects(outbox);
    }
}

fn check_order_over_reconnects(outbox: Outbox) {
    const COUNT: u64 = 20_000;
    let mesh = Mesh::linked(&[1, 2], &[], |builder| {
        // A short backoff: the test drops many links.
        let [first, last] = [1, 20].map(Duration::from_millis);
        let builder = builder.outbox(outbox).inbox_frames(1 << 20);
        builder.backoff(first, last)
    });
    let [near, far] = [mesh.managers[0].clone(), mesh.managers[1].clone()];
    within("the frames are sent over many links", move || {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let (handle, stop) = (near.handle(), Arc::clone(&stop));
            move || {
                for part in 0..20 {
                    send(&handle, part * COUNT / 20..(part + 1) * COUNT / 20);
                    handle.soft_halt();
                }
                // The frames that the kernel had taken for the last of these links may be lost. Sends more until one arrives.
                for number in COUNT.. {
                    send(&handle, number..number + 1);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    thread::yield_now();
                }
            }
        });
        let (mut batch, mut last, mut received) = (Batch::new(), None, 0);
        while last < Some(COUNT) {
            far.recv_all_timeout(&mut batch, LONG).unwrap();
            for (_, payload) in &batch {
                let number = number_of(payload);
                assert!(Some(number) > last, "{number} after {last:?}");
                last = Some(number);
                received += 1;
            }
        }
        stop.store(true, Ordering::Release);
        sender.join().unwrap();
        let sent = near.stats().sent;
        assert!(sent.balances() && sent.resent == 0, "{sent:?}");
        assert!(received <= sent.written, "{received} of {}", sent.written);
    });
}

#[test]
fn heartbeat_overtakes_a_queue_that_is_blocked() {
    let (manager, address) =
        single_manager(1, &[(2, NOBODY)], |builder| builder.outbox(Outbox::LANES));
    let mut peer = TestConnection::member(&address, 2, &[]);
    eventually("the peer is linked", || manager.connected_to_peer(FAR));
    // The peer reads nothing. The queue is filled until the socket is full as well.
    let stream = [7; 1000];
    fill_with_socket(&manager.handle(), FAR, || {
        while manager.to_send_slice(FAR, &stream).is_ok() {}
    });
    manager.to_send_latest(FAR, "stale").unwrap();
    manager.to_send_latest(FAR, "beat").unwrap();
    let sent = manager.stats().sent;
    assert!(sent.waiting > 1000, "{sent:?}");
    let of_slot = || manager.peer(FAR).unwrap().stats().sent_latest;
    let (slot, stream_only) = (of_slot(), sent.accepted - 2);
    assert_eq!((slot.accepted, slot.discarded), (2, 0));
    assert!(slot.waiting > 0 && slot.balances(), "{slot:?}");
    let mut before = 0;
    loop {
        match &peer.recv()[..] {
            b"beat" => break,
            b"stale" => {}
            frame => {
                assert_eq!(frame, stream);
                before += 1;
            }
        }
    }
    // The run in hand, which is not counted yet, and one more if the stale frame was being written.
    let runs = 2 * (LANES_RUN_BYTES / stream.len()) as u64;
    assert!(before <= sent.written + runs, "{before} frames, {sent:?}");
    for _ in before + 2..sent.accepted {
        assert_eq!(peer.recv(), stream);
    }
    eventually("all is counted", || manager.have_delivered());
    let (sent, slot) = (manager.stats().sent, of_slot());
    assert!(sent.balances() && slot.balances() && slot.waiting == 0);
    assert_eq!(sent.written - slot.written, stream_only);
}

#[test]
fn sender_that_waits_for_room_supersedes_no_frame() {
    const COUNT: u64 = 2000;
    let mesh = Mesh::linked(&[1, 2], &[], |builder| builder.inbox_frames(1 << 20));
    let [near, far] = [mesh.managers[0].clone(), mesh.managers[1].clone()];
    within("all frames are sent and received", move || {
        let sender = thread::spawn({
            let handle = near.handle();
            move || {
                for number in 0..COUNT {
                    assert!(handle.wait_for_room(FAR, LONG).unwrap());
                    let sent = handle.to_send(FAR, numbered(number)).unwrap();
                    assert!(
                        matches!(sent, SendOutcome::Written | SendOutcome::Queued),
                        "{sent:?}"
                    );
                }
            }
        });
        for expected in 0..COUNT {
            let message = far.recv_timeout(LONG).unwrap();
            assert_eq!(number_of(&message.payload), expected);
        }
        sender.join().unwrap();
        assert_eq!(near.stats().sent.superseded, 0);
    });
}

#[test]
fn wait_for_room_ends_when_the_manager_halts() {
    let (manager, _) = single_manager(1, &[(2, NOBODY)], |builder| builder);
    manager.to_send(FAR, "waits").unwrap();
    let handle = manager.handle();
    assert_eq!(handle.wait_for_room(FAR, Duration::ZERO), Ok(false));
    assert_eq!(
        handle.to_send_all(Sid(7), &[b"a"]),
        Err(SendError::UnknownPeer(Sid(7)))
    );
    assert_eq!(
        handle.wait_for_room(Sid(7), LONG),
        Err(SendError::UnknownPeer(Sid(7)))
    );
    let sender = thread::spawn(move || {
        let room = handle.wait_for_room(FAR, Duration::MAX);
        (room, handle.to_send(FAR, "too late"))
    });
    manager.halt();
    let halted = within("the sender returns", move || sender.join().unwrap());
    assert_eq!(halted, (Ok(true), Err(SendError::Halted)));
}

#[test]
fn batch_takes_all_messages_and_then_reports_the_halt() {
    let (manager, address) =
        single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder.inbox_frames(3));
    let mut batch = Batch::new();
    assert_eq!(manager.try_recv_all(&mut batch), Err(TryRecvError::Empty));
    manager
        .to_send_all(NEAR, &[b"a", b"b", b"c", b"d"])
        .unwrap();
    assert_eq!(manager.try_recv_all(&mut batch), Ok(3));
    let texts: Vec<&[u8]> = batch.iter().map(|(_, payload)| payload).collect();
    assert_eq!(texts, [b"b", b"c", b"d"]);
    let _peer = TestConnection::member(&address, 2, &["e", "f"]);
    eventually("both frames have arrived", || {
        manager.stats().inbox.waiting == 2
    });
    assert_eq!(manager.recv_all(&mut batch), Ok(2));
    assert_eq!(batch.iter().last(), Some((FAR, &b"f"[..])));
    manager.to_send(NEAR, "g").unwrap();
    manager.halt();
    assert_eq!(manager.recv_all(&mut batch), Ok(1));
    assert_eq!(manager.recv_all(&mut batch), Err(RecvError::Halted));
    assert!(batch.is_empty());
    assert!(manager.stats().inbox.balances());
}

/// Sends to the own sid at a refused dial, whose event comes late in a turn.
struct SendLate;

impl Handler for SendLate {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        handle.request_halt();
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::DialFailed { .. } = event {
            handle.to_send(handle.sid(), "late").unwrap();
        }
    }
}

#[test]
fn loopback_frame_sent_late_in_a_turn_makes_the_loop_ready() {
    let (own, address) = listener();
    let builder = Config::builder(NEAR).server(NEAR, &address);
    let config = builder.server(FAR, "127.0.0.1:1").listener(own);
    let mut event_loop = EventLoop::new(config.build().unwrap(), SendLate).unwrap();
    let mut events = mio::Events::with_capacity(8);
    let handle = event_loop.handle().clone();
    let mut is_waiting = false;
    while event_loop.turn(Some(LONG)).unwrap() {
        if handle.stats().inbox.waiting > 0 {
            is_waiting = true;
            // A new poll reports the current state of the descriptor, and no earlier edge.
            let mut poll = mio::Poll::new().unwrap();
            let fd = event_loop.as_fd().as_raw_fd();
            let (source, readable) = (&mut mio::unix::SourceFd(&fd), mio::Interest::READABLE);
            let registry = poll.registry();
            registry.register(source, mio::Token(0), readable).unwrap();
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(!events.is_empty(), "the loop is not ready");
        }
    }
    assert!(is_waiting);
    assert_eq!(event_loop.handle().stats().loopback, 1);
}

/// A manager with a queue, and the listener of its only peer, which is the test. The manager has the larger sid, and dials.
fn dialing_manager() -> (CnxManager, TcpListener) {
    let (peer, address) = listener();
    let (manager, _) = single_manager(2, &[(1, address)], |builder| {
        builder
            .outbox(Outbox::QUEUE)
            .backoff(Duration::from_millis(1), Duration::from_secs(1))
    });
    (manager, peer)
}

fn next_down(manager: &CnxManager) -> (Reason, u64, u64) {
    loop {
        match manager.events().recv_timeout(LONG).expect("a link ends") {
            Event::Down {
                reason,
                link,
                written,
                ..
            } => return (reason, link, written),
            _ => continue,
        }
    }
}

#[test]
fn queue_is_not_written_to_a_link_on_probation() {
    let (manager, listener) = dialing_manager();
    // Closes the connection, like a server that does not know this one.
    drop(TestConnection::accept(&listener));
    assert_eq!(next_down(&manager), (Reason::ClosedAtOnce, 1, 0));
    for n in 0..10_u8 {
        manager.to_send_slice(NEAR, &[n]).unwrap();
    }
    for link in 2..5 {
        let peer = TestConnection::accept(&listener);
        eventually("the peer is linked", || manager.stats().ups == link);
        drop(peer);
        assert_eq!(next_down(&manager), (Reason::ClosedAtOnce, link, 0));
    }
    // The peer keeps the connection, and sends a frame.
    let mut peer = TestConnection::accept(&listener);
    peer.read_initial_message();
    eventually("the peer is linked", || manager.connected_to_peer(NEAR));
    assert_eq!(manager.stats().sent.written, 0);
    peer.send("hello");
    for n in 0..10_u8 {
        assert_eq!(peer.recv(), [n]);
    }
    drop(peer);
    // All ten frames may have been lost: this side cannot know.
    assert_eq!(next_down(&manager), (Reason::Closed, 5, 10));
}

#[test]
fn silent_link_is_proven_after_a_second() {
    let (manager, listener) = dialing_manager();
    drop(TestConnection::accept(&listener));
    next_down(&manager);
    manager.to_send(NEAR, "at last").unwrap();
    let mut peer = TestConnection::accept(&listener);
    peer.read_initial_message();
    assert_eq!(peer.recv(), b"at last");
}

#[test]
fn frames_for_an_absent_peer_can_be_discarded() {
    // Nothing listens there: even a link that ends at once could have been written to.
    let absent = ReservedAddress::new();
    let (manager, _) = single_manager(2, &[(1, &absent.address)], |builder| {
        builder.outbox(Outbox::QUEUE)
    });
    for n in 0..10_u8 {
        manager.to_send_slice(NEAR, &[n]).unwrap();
    }
    assert_eq!(manager.discard(NEAR), Ok(10));
    assert_eq!(
        manager.discard(Sid(77)),
        Err(SendError::UnknownPeer(Sid(77)))
    );
    let sent = manager.stats().sent;
    assert_eq!((sent.accepted, sent.discarded, sent.waiting), (10, 10, 0));
    assert!(manager.have_delivered());
}

#[test]
fn a_slow_application_slows_its_peers_and_loses_nothing() {
    const COUNT: u64 = 100_000;
    let mesh = Mesh::linked(&[1, 2], &[], |builder| {
        // Far fewer than are sent.
        builder.outbox(Outbox::QUEUE).inbox_frames(100)
    });
    let [near, far] = [&mesh.managers[0], &mesh.managers[1]];
    thread::scope(|scope| {
        scope.spawn(|| send(&near.handle(), 0..COUNT));
        let (mut next, mut batch) = (0, Batch::new());
        while next < COUNT {
            // One message at a time, and a batch.
            if next % 3 == 0 {
                let message = far.recv_timeout(LONG).unwrap();
                assert_eq!(number_of(&message.payload), next);
                assert_eq!(message.link, far.stats().ups);
                next += 1;
                continue;
            }
            far.recv_all_timeout(&mut batch, LONG).unwrap();
            for message in batch.messages() {
                assert_eq!((message.from, number_of(message.payload)), (NEAR, next));
                next += 1;
            }
        }
    });
    assert_eq!(far.stats().inbox.dropped, 0);
    assert_eq!(near.stats().ups, 1);
}

#[test]
fn full_inbox_does_not_affect_other_links_or_link_ends() {
    let others = [(8, NOBODY), (9, "127.0.0.1:2")];
    let (manager, address) = single_manager(2, &others, |builder| {
        builder.outbox(Outbox::QUEUE).inbox_frames(10)
    });
    let mut flooding_peer = TestConnection::member(&address, 9, &[]);
    flooding_peer.write(&frame("f").repeat(1000));
    eventually("the inbox is full", || manager.stats().inbox.waiting >= 10);
    // A peer that connects now is linked, and written to.
    let mut quiet_peer = TestConnection::member(&address, 8, &[]);
    eventually("the other peer is linked", || {
        manager.connected_to_peer(Sid(8))
    });
    manager.to_send(Sid(8), "for you").unwrap();
    assert_eq!(quiet_peer.recv(), b"for you");
    quiet_peer.send("for the application");
    // All frames of the flooding peer are read before its link ends.
    drop(flooding_peer);
    let mut senders = Vec::new();
    while senders.len() < 1001 {
        senders.push(manager.recv_timeout(LONG).unwrap().from.0);
    }
    assert_eq!(senders.iter().filter(|sid| **sid == 8).count(), 1);
    eventually("the flooding peer is unlinked", || {
        !manager.connected_to_peer(Sid(9))
    });
    assert_eq!(manager.stats().inbox.dropped, 0);
}

#[test]
fn flooding_sender_drops_only_its_own_messages() {
    let pair = Pair::with(|builder| builder.inbox_full(InboxFull::DropOldest).observers_max(2));
    let (manager, mut member) = (&pair.manager, pair.link());
    let mut observer = TestConnection::member(&pair.address, Sid::OBSERVER.0, &[]);
    eventually("both are linked", || manager.linked_peers().len() == 2);
    for n in 0..40_u8 {
        member.send([n]);
        observer.write(&frame("flood").repeat(1000));
    }
    // The frames of a read are counted as received before they are in the inbox.
    eventually("all frames have arrived", || {
        manager.stats().inbox.pushed == 40 * 1001
    });
    let messages = std::iter::from_fn(|| manager.try_recv().ok());
    let (of_member, of_observer): (Vec<_>, Vec<_>) =
        messages.partition(|message| message.from == Sid(PEER));
    let numbers: Vec<u8> = of_member.iter().map(|message| message.payload[0]).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert_eq!(of_observer.len(), 60, "the rest of a hundred");
    let (mut dropped, mut reported) = (manager.stats().inbox.dropped, 0);
    assert_eq!(dropped, 40 * 1000 - 60);
    while reported < dropped {
        if let Event::Dropped {
            messages, senders, ..
        } = manager.events().recv_timeout(LONG).unwrap()
        {
            assert_eq!(senders, [(Sid::OBSERVER, messages)]);
            reported += messages;
        }
        dropped = manager.stats().inbox.dropped;
    }
    assert_eq!(reported, dropped);
}

#[test]
fn events_about_strangers_displace_none_about_members() {
    let pair = Pair::with(|builder| builder.observers_max(2));
    let (manager, member) = (&pair.manager, pair.link());
    for n in 1..=2 * EVENTS_MAX as u64 {
        // Most claim the own sid. Some are observers, whose links come up and end.
        let sid = if n % 8 == 0 { Sid::OBSERVER.0 } else { OWN };
        let mut stranger = TestConnection::member(&pair.address, sid, &[]);
        if sid == OWN {
            stranger.wait_closed();
        }
    }
    drop(member);
    assert!(manager.stats().events.dropped > 0);
    // Waits for it: a link is shown as ended before its event is there.
    let next = || manager.events().recv_timeout(LONG).expect("the link ends");
    let is_up = |event: &Event| matches!(event, Event::Up { sid, .. } if *sid == Sid(PEER));
    let is_down = |event: &Event| matches!(event, Event::Down { sid, .. } if *sid == Sid(PEER));
    let mut ups = 0;
    loop {
        let event = next();
        if is_down(&event) {
            break;
        }
        ups += usize::from(is_up(&event));
    }
    assert_eq!(ups, 1, "the event of its link was displaced");
}
