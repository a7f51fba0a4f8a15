//! An application that does not keep up: one that never asks for what has come, and a handler that is slow.
//!
//! Nothing here is lost but what the inbox has no room for, and that is counted.

use std::{
    io::Read as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{Event, EventLoop, Frame, Handle, Handler, SendOutcome, Sid, limits};

use crate::{
    common::{
        LONG,
        crowd::{self, Crowd},
        eventually, frame,
        process::{Holdings, wait_descriptors},
        within,
    },
    stage::{MIB, OWN, assert_undisturbed, build, crowded, linked, one_at_a_time},
};

#[test]
fn nobody_asks_for_what_has_come_and_memory_stays_flat() {
    let _turn = one_at_a_time();
    let longest = limits::FRAME_BYTES_MAX;
    for (links, frame_bytes, frames) in [(50, 100, 100_000), (20, longest, 400)] {
        unheard(links, frame_bytes, frames);
    }
}

/// So many links pour frames of this length into a manager that nobody asks.
fn unheard(links: i64, frame_bytes: usize, frames: u64) {
    let before = Holdings::own();
    let (manager, streams) = linked(links, |builder| builder);
    let block = frame(vec![7; frame_bytes]);
    let crowd = Crowd::pour(streams, block.repeat((64 << 10) / frame_bytes + 1));
    let come = |count: u64| {
        eventually("the frames come", || {
            let inbox = manager.stats().inbox;
            assert!(inbox.waiting <= limits::INBOX_FRAMES as u64 && inbox.balances());
            inbox.pushed >= count
        });
        Holdings::own()
    };
    // The inbox is full, and each link has the frame that it is reading.
    let full = come(frames / 2);
    let later = come(frames);
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
    // They are there for who comes late.
    assert_eq!(manager.recv().unwrap().payload.len(), frame_bytes);
    drop(manager);
    wait_descriptors(before);
}

/// Shut, it holds up whoever comes.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    /// Those who came while it was shut.
    held_up: AtomicU64,
}

impl Gate {
    fn pass(&self) {
        let mut is_open = self.is_open.lock().unwrap();
        if !*is_open {
            self.held_up.fetch_add(1, Ordering::AcqRel);
        }
        while !*is_open {
            is_open = self.opened.wait(is_open).unwrap();
        }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Stands at the gate with the first frame, and then with none.
struct Slow {
    gate: Arc<Gate>,
    slow_turns: Arc<AtomicU64>,
}

impl Handler for Slow {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
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
fn a_handler_that_is_held_up_holds_up_nobody_who_sends() {
    const LINKS: i64 = 100;
    const FRAMES: u64 = 20_000;
    let _turn = one_at_a_time();
    let before = Holdings::own();
    let (builder, address) = crowded(LINKS);
    let handler = Slow {
        gate: Arc::default(),
        slow_turns: Arc::default(),
    };
    let (gate, slow_turns) = (Arc::clone(&handler.gate), Arc::clone(&handler.slow_turns));
    let mut event_loop = EventLoop::new(build(builder), handler).unwrap();
    let handle = event_loop.handle().clone();
    let turner = thread::spawn(move || event_loop.run().unwrap());
    let mut streams = crowd::members(1..=LINKS, &address);
    eventually("all members are linked", || {
        handle.linked_peers().len() == LINKS as usize
    });
    let mut reader = streams.remove(0);
    let crowd = Crowd::pour(streams, frame([7; 100]).repeat(630));
    eventually("the handler is held up", || {
        gate.held_up.load(Ordering::Acquire) > 0
    });
    let held_up = Holdings::own();
    let moved = crowd.moved();
    // The loop stands still, and frames leave all the same, on the thread that sends them.
    let sender = handle.clone();
    let receipts = within("sending while the loop stands still", move || {
        let mut written = 0;
        for number in 0..FRAMES {
            let sent = sender.to_send(Sid(1), number.to_be_bytes().to_vec());
            written += u64::from(sent == Ok(SendOutcome::Written));
            if sent == Ok(SendOutcome::Written) {
                let mut came = [0; 12];
                reader.read_exact(&mut came).unwrap();
                assert_eq!(came[4..], number.to_be_bytes());
            }
        }
        (written, reader)
    });
    assert_eq!(receipts.0, FRAMES, "there was room all the time");
    let sent = handle.stats().sent;
    assert_eq!((sent.accepted, sent.written), (FRAMES, FRAMES));
    // What the others say waits in the kernel, which has only so much room.
    eventually("the others are held up", || {
        let before = crowd.moved();
        thread::sleep(Duration::from_millis(20));
        crowd.moved() == before
    });
    let growth = Holdings::own().growth_since(held_up);
    assert!(growth < 16 * MIB, "{growth} bytes more, {moved} moved");
    gate.open();
    eventually("the turn is told to be slow", || {
        slow_turns.load(Ordering::Acquire) > 0
    });
    eventually("the others are heard again", || {
        handle.stats().received.frames > 100_000
    });
    assert_undisturbed(&handle.stats(), LINKS as u64);
    handle.request_halt();
    within("the loop ends", move || turner.join().unwrap());
    drop((crowd, receipts, handle));
    wait_descriptors(before);
}

/// Takes its time for every frame.
struct Sluggish {
    handled: Arc<AtomicU64>,
    /// Told how many frames of others had been handled when one by loopback came.
    heard: Sender<u64>,
}

impl Handler for Sluggish {
    fn on_frame(&mut self, from: Sid, _: Frame<'_>, _: &Handle) {
        if from == OWN {
            // Fails when the test has given up.
            let _ = self.heard.send(self.handled.load(Ordering::Acquire));
            return;
        }
        self.handled.fetch_add(1, Ordering::AcqRel);
        // The work of a slow application.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_slow_handler_makes_no_turn_as_long_as_all_links_take_together() {
    const LINKS: i64 = 200;
    let _turn = one_at_a_time();
    let (builder, address) = crowded(LINKS);
    let (sender, heard) = channel();
    let handler = Sluggish {
        handled: Arc::default(),
        heard: sender,
    };
    let handled = Arc::clone(&handler.handled);
    let config = build(builder.receive_buffer(Some(4 << 10)));
    let mut event_loop = EventLoop::new(config, handler).unwrap();
    let handle = event_loop.handle().clone();
    let turner = thread::spawn(move || event_loop.run().unwrap());
    let streams = crowd::members(1..=LINKS, &address);
    eventually("all members are linked", || {
        handle.linked_peers().len() == LINKS as usize
    });
    let crowd = Crowd::pour(streams, frame([7; 100]).repeat(630));
    // Each has more in its socket than it sends here.
    eventually("all sockets are full", || {
        let before = crowd.moved();
        thread::sleep(Duration::from_millis(20));
        crowd.moved() == before && before > 0
    });
    let start = handled.load(Ordering::Acquire);
    for _ in 0..3 {
        handle.to_send(OWN, "what about me?").unwrap();
        heard.recv_timeout(LONG).expect("the loop sees to itself");
    }
    let between = handled.load(Ordering::Acquire) - start;
    // All sockets together hold ten times as many.
    assert!(between < 20 * LINKS as u64, "{between} frames came first");
    handle.request_halt();
    within("the loop ends", move || turner.join().unwrap());
    drop(crowd);
}
