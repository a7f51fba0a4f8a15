//! Tests slow applications: one that never takes messages, a handler that blocks, and a slow handler. Only messages without room in
//! the inbox are lost, and all of them are counted.

use std::{
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{
    ConfigBuilder, Event, Frame, Handle, Handler, SendOutcome, Sid, simulation::limits,
};

use crate::setup::{MIB, assert_undisturbed, end, linked, one_at_a_time, run_loop};
use support::{
    LONG,
    crowd::LoadThread,
    eventually, frame,
    gate::Gate,
    many::OWN,
    process::{ProcessResources, wait_descriptors},
    within,
};

#[test]
fn memory_is_bounded_if_messages_are_not_taken() {
    let _guard = one_at_a_time();
    let longest = limits::FRAME_BYTES_MAX;
    for (links, frame_bytes, frames) in [(50, 100, 100_000), (20, longest, 400)] {
        fill_inbox(links, frame_bytes, frames);
    }
}

/// `links` peers send frames at full speed to a manager from which no message is taken.
fn fill_inbox(links: i64, frame_bytes: usize, frames: u64) {
    let before = ProcessResources::own();
    let (manager, streams) = linked(links, |builder| builder);
    let block = frame(vec![7; frame_bytes]);
    let crowd = LoadThread::write(streams, block.repeat((64 << 10) / frame_bytes + 1));
    let wait_for_frames = |count: u64| {
        eventually("the frames arrive", || {
            let inbox = manager.stats().inbox;
            assert!(inbox.waiting <= limits::INBOX_FRAMES as u64 && inbox.balances());
            inbox.pushed >= count
        });
        ProcessResources::own()
    };
    // The inbox is full, and each link has the frame that it is reading.
    let full = wait_for_frames(frames / 2);
    let later = wait_for_frames(frames);
    let held = (limits::INBOX_FRAMES + links as usize) * frame_bytes;
    let allowed = held as u64 + 16 * MIB;
    assert!(
        later.growth_since(before) < allowed && later.descriptors == full.descriptors,
        "{before} became {full} and then {later}, with frames of {frame_bytes} bytes"
    );
    let stats = manager.stats();
    assert_undisturbed(&stats, links as u64);
    let inbox = stats.inbox;
    assert_eq!(
        (inbox.taken, inbox.waiting),
        (0, limits::INBOX_FRAMES as u64)
    );
    assert_eq!(inbox.dropped, inbox.pushed - inbox.waiting);
    drop(crowd);
    // Their messages can still be taken.
    assert_eq!(manager.recv().unwrap().payload.len(), frame_bytes);
    drop(manager);
    wait_descriptors(before);
}

/// Blocks at its first frame, until the gate opens.
struct BlockingHandler {
    gate: Arc<Gate>,
    is_blocked: Arc<AtomicBool>,
    slow_turns: Arc<AtomicU64>,
}

impl Handler for BlockingHandler {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        let is_closed = self.gate.is_closed();
        self.is_blocked.store(is_closed, Ordering::Release);
        self.gate.pass();
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::SlowTurn { took, .. } = event {
            assert!(*took > limits::SLOW_TURN);
            self.slow_turns.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[test]
fn blocked_handler_does_not_block_senders() {
    const LINKS: i64 = 100;
    const FRAMES: u64 = 20_000;
    let _guard = one_at_a_time();
    let before = ProcessResources::own();
    let (gate, is_blocked) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    gate.close();
    let slow_turns = Arc::new(AtomicU64::new(0));
    let handler = BlockingHandler {
        gate: Arc::clone(&gate),
        is_blocked: Arc::clone(&is_blocked),
        slow_turns: Arc::clone(&slow_turns),
    };
    let (handle, loop_thread, mut streams) = run_loop(LINKS, |builder| builder, handler);
    let mut reader = streams.remove(0);
    let crowd = LoadThread::write(streams, frame([7; 100]).repeat(630));
    eventually("the handler blocks", || is_blocked.load(Ordering::Acquire));
    let blocked = ProcessResources::own();
    let moved = crowd.moved();
    // The loop does not run. Frames are written on the thread that sends them.
    let sender = handle.clone();
    let result = within("sending while the loop does not run", move || {
        let mut written = 0;
        for number in 0..FRAMES {
            let sent = sender.to_send(Sid(1), number.to_be_bytes().to_vec());
            written += u64::from(sent == Ok(SendOutcome::Written));
            if sent == Ok(SendOutcome::Written) {
                let mut received = [0; 12];
                reader.read_exact(&mut received).unwrap();
                assert_eq!(received[4..], number.to_be_bytes());
            }
        }
        (written, reader)
    });
    assert_eq!(result.0, FRAMES, "every frame is written at once");
    let sent = handle.stats().sent;
    assert_eq!((sent.accepted, sent.written), (FRAMES, FRAMES));
    // Frames of the other members wait in the kernel, whose buffers are bounded.
    eventually("the other members are blocked", || {
        let before = crowd.moved();
        thread::sleep(Duration::from_millis(20));
        crowd.moved() == before
    });
    let growth = ProcessResources::own().growth_since(blocked);
    assert!(growth < 16 * MIB, "{growth} bytes more, {moved} moved");
    gate.open();
    eventually("the slow turn is reported", || {
        slow_turns.load(Ordering::Acquire) > 0
    });
    eventually("frames of the others arrive again", || {
        handle.stats().received.frames > 100_000
    });
    assert_undisturbed(&handle.stats(), LINKS as u64);
    end(&handle, loop_thread);
    drop((crowd, result, handle));
    wait_descriptors(before);
}

/// Takes a millisecond for each frame.
struct SlowHandler {
    handled: Arc<AtomicU64>,
    /// Receives the number of handled frames of others when a frame to itself arrives.
    answers: Sender<u64>,
}

impl Handler for SlowHandler {
    fn on_frame(&mut self, from: Sid, _: Frame<'_>, _: &Handle) {
        if from == OWN {
            // Fails if the test has ended.
            let _ = self.answers.send(self.handled.load(Ordering::Acquire));
            return;
        }
        self.handled.fetch_add(1, Ordering::AcqRel);
        // The work of a slow application.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn turn_with_a_slow_handler_does_not_serve_all_links() {
    const LINKS: i64 = 200;
    let _guard = one_at_a_time();
    let (sender, answers) = channel();
    let handler = SlowHandler {
        handled: Arc::default(),
        answers: sender,
    };
    let handled = Arc::clone(&handler.handled);
    let adjust = |builder: ConfigBuilder| builder.receive_buffer(Some(4 << 10));
    let (handle, loop_thread, streams) = run_loop(LINKS, adjust, handler);
    let crowd = LoadThread::write(streams, frame([7; 100]).repeat(630));
    // Each socket holds more frames than the handler takes in this test.
    eventually("all sockets are full", || {
        let before = crowd.moved();
        thread::sleep(Duration::from_millis(20));
        crowd.moved() == before && before > 0
    });
    let start = handled.load(Ordering::Acquire);
    for _ in 0..3 {
        handle.to_send(OWN, "loopback").unwrap();
        answers
            .recv_timeout(LONG)
            .expect("the frame to itself arrives");
    }
    let between = handled.load(Ordering::Acquire) - start;
    // All sockets together hold ten times as many frames.
    assert!(between < 20 * LINKS as u64, "{between} frames came first");
    end(&handle, loop_thread);
    drop(crowd);
}
