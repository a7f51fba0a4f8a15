//! Many frames at once: the queue in place of the slot, waiting for room, receiving in batches.
//!
//! What holds of one frame is in `promises.rs`.

mod common;

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use common::{HOME, LONG, Mesh, Puppet, Vacant, alone, bare, eventually, frame, listener, within};
use quorum_cnx::{
    Batch, Config, Event, EventLoop, Frame, Handle, Handler, Outbox, RecvError, SendError, Sent,
    Sid, limits,
};

const NEAR: Sid = Sid(1);
const FAR: Sid = Sid(2);

/// A frame of any length that is told from all others by its number, and shows when it is torn.
fn numbered(number: u64) -> Vec<u8> {
    // Mostly small, some that are kept whole, some of the greatest length.
    let len = match number % 1000 {
        0 => limits::FRAME_BYTES_MAX,
        1..10 => 20_000 + number as usize % 50_000,
        _ => 8 + number as usize % 200,
    };
    let mut bytes: Vec<u8> = (0..len).map(|at| at as u8 ^ number as u8).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number_of(frame: &[u8]) -> u64 {
    let number = u64::from_be_bytes(frame[..8].try_into().unwrap());
    assert_eq!(frame, numbered(number), "frame {number} is torn");
    number
}

/// Sends frames of these numbers in calls of all kinds, and waits where there is no room.
fn send(handle: &Handle, numbers: std::ops::Range<u64>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let frames: Vec<Vec<u8>> = (next..numbers.end.min(next + next % 40 + 1))
            .map(numbered)
            .collect();
        let taken = match &frames[..] {
            [one] if next % 2 == 0 => handle.to_send(FAR, one.clone()).map(|_| 1),
            [one] => handle.to_send_slice(FAR, one).map(|_| 1),
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
            let came = far.recv_all(&mut batch).unwrap();
            assert_eq!((came, batch.iter().count()), (batch.len(), batch.len()));
            for (from, payload) in &batch {
                assert_eq!((from, number_of(payload)), (NEAR, expected));
                expected += 1;
            }
        }
        sender.join().unwrap();
        eventually("all is accounted for", || near.have_delivered());
        let sent = near.stats().sent;
        assert_eq!((sent.accepted, sent.written), (COUNT, COUNT));
        let (near, far) = (near.stats(), far.stats());
        assert!(near.balances() && far.balances());
        assert_eq!((far.inbox.taken, far.inbox.dropped), (COUNT, 0));
        assert!(
            near.turns < COUNT / 2,
            "{} turns for {COUNT} frames: they leave together",
            near.turns
        );
    });
}

#[test]
fn a_full_queue_says_so_and_takes_again_when_there_is_room() {
    let peer_at = Vacant::new();
    let shape = |builder: quorum_cnx::ConfigBuilder| builder.outbox(Outbox::QUEUE);
    let (manager, address) = alone(1, &[(2, &peer_at.address)], shape);
    let frame = Bytes::from(vec![7; 100_000]);
    let mut taken = 0;
    let error = loop {
        match manager.to_send(FAR, frame.clone()) {
            Ok(sent) => assert_eq!(sent, Sent::Queued),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert_eq!(error, SendError::Full);
    assert_eq!(taken, limits::QUEUE_BYTES as u64 / 100_004);
    assert_eq!(
        manager.to_send_all(FAR, &[&[1; 100], &[1; 60_000]]),
        Ok(1),
        "what has room is taken"
    );
    assert_eq!(manager.stats().sent.accepted, taken + 1);
    assert_eq!(manager.wait_for_room(FAR, Duration::ZERO), Ok(false));
    let peer = Puppet::say(HOME, &address, &bare(2));
    let mut reading = peer;
    for _ in 0..taken {
        assert_eq!(reading.recv(), frame);
    }
    assert_eq!(reading.recv(), [1; 100]);
    assert_eq!(manager.wait_for_room(FAR, LONG), Ok(true));
    assert_eq!(manager.to_send(FAR, "again"), Ok(Sent::Queued));
    assert_eq!(reading.recv(), b"again");
}

#[test]
fn over_many_reconnects_a_queue_repeats_nothing_and_keeps_the_order() {
    const COUNT: u64 = 20_000;
    let mesh = Mesh::linked(&[1, 2], &[], |builder| {
        // Links that are cut on purpose are wanted again at once.
        let [first, last] = [1, 20].map(Duration::from_millis);
        let builder = builder.outbox(Outbox::QUEUE).inbox_frames(1 << 20);
        builder.backoff(first, last)
    });
    let [near, far] = [mesh.managers[0].clone(), mesh.managers[1].clone()];
    within("the frames are sent over many links", move || {
        let is_over = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let (handle, is_over) = (near.handle(), Arc::clone(&is_over));
            move || {
                for part in 0..20 {
                    send(&handle, part * COUNT / 20..(part + 1) * COUNT / 20);
                    handle.soft_halt();
                }
                // What the last of these links had taken is lost with it, and nobody knows what that was.
                for number in COUNT.. {
                    send(&handle, number..number + 1);
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                    thread::yield_now();
                }
            }
        });
        let (mut batch, mut last, mut came) = (Batch::new(), None, 0);
        while last < Some(COUNT) {
            far.recv_all_timeout(&mut batch, LONG).unwrap();
            for (_, payload) in &batch {
                let number = number_of(payload);
                assert!(Some(number) > last, "{number} after {last:?}");
                last = Some(number);
                came += 1;
            }
        }
        is_over.store(true, Ordering::Release);
        sender.join().unwrap();
        let sent = near.stats().sent;
        assert!(sent.balances() && sent.resent == 0, "{sent:?}");
        assert!(came <= sent.written, "{came} came of {}", sent.written);
    });
}

#[test]
fn a_queue_must_have_room_for_the_longest_frame() {
    for (bytes, is_good) in [(524_291, false), (524_292, true), (usize::MAX, false)] {
        let builder = Config::builder(NEAR).server(NEAR, "127.0.0.1:0");
        let built = builder.outbox(Outbox::Queue { bytes }).build();
        assert_eq!(built.is_ok(), is_good, "{bytes}: {:?}", built.err());
    }
}

#[test]
fn who_waits_for_room_in_the_slot_replaces_nothing() {
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
                    assert!(matches!(sent, Sent::Written | Sent::Queued), "{sent:?}");
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
fn who_waits_for_room_is_told_of_the_end() {
    let peer_at = Vacant::new();
    let (manager, _) = alone(1, &[(2, &peer_at.address)], |builder| builder);
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
    let halted = within("the sender is told", move || sender.join().unwrap());
    assert_eq!(halted, (Ok(true), Err(SendError::Halted)));
}

#[test]
fn a_batch_takes_everything_and_the_end_is_told() {
    let (manager, address) = alone(1, &[(2, "127.0.0.1:1")], |builder| builder.inbox_frames(3));
    let mut batch = Batch::new();
    assert_eq!(manager.try_recv_all(&mut batch), Err(RecvError::Timeout));
    manager
        .to_send_all(NEAR, &[b"a", b"b", b"c", b"d"])
        .unwrap();
    assert_eq!(manager.try_recv_all(&mut batch), Ok(3));
    let texts: Vec<&[u8]> = batch.iter().map(|(_, payload)| payload).collect();
    assert_eq!(texts, [b"b", b"c", b"d"]);
    let _peer = Puppet::say(HOME, &address, &[bare(2), frame("e"), frame("f")].concat());
    eventually("both have come", || manager.stats().inbox.waiting == 2);
    assert_eq!(manager.recv_all(&mut batch), Ok(2));
    assert_eq!(batch.iter().last(), Some((FAR, &b"f"[..])));
    manager.to_send(NEAR, "g").unwrap();
    manager.halt();
    assert_eq!(manager.recv_all(&mut batch), Ok(1));
    assert_eq!(manager.recv_all(&mut batch), Err(RecvError::Halted));
    assert!(batch.is_empty());
    assert!(manager.stats().inbox.balances());
}

/// Sends to itself when it hears of a refused dial, which is told late in a turn.
struct Late;

impl Handler for Late {
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
fn what_a_handler_leaves_at_the_end_of_a_turn_makes_the_next_one_due() {
    let (own, address) = listener();
    let builder = Config::builder(NEAR).server(NEAR, &address);
    let config = builder.server(FAR, "127.0.0.1:1").listener(own);
    let mut event_loop = EventLoop::new(config.build().unwrap(), Late).unwrap();
    let mut events = mio::Events::with_capacity(8);
    let handle = event_loop.handle().clone();
    let mut was_left = false;
    while event_loop.turn(Some(LONG)).unwrap() {
        if handle.stats().inbox.waiting > 0 {
            was_left = true;
            // A new one, which sees what is there and not what was.
            let mut poll = mio::Poll::new().unwrap();
            let fd = event_loop.as_fd().as_raw_fd();
            let (source, readable) = (&mut mio::unix::SourceFd(&fd), mio::Interest::READABLE);
            let registry = poll.registry();
            registry.register(source, mio::Token(0), readable).unwrap();
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(!events.is_empty(), "the frame is forgotten");
        }
    }
    assert!(was_left);
    assert_eq!(event_loop.handle().stats().loopback, 1);
}
