//! Models of what threads share in `outbox`, for loom.

use loom::{sync::Arc as LoomArc, thread};

use super::{fixture::*, *};

#[test]
fn loom_waiter_is_notified_of_room() {
    for outbox in [latest, || queue(12)] {
        loom::model(move || {
            let pipe = Pipe::with_room(0);
            let outbox = LoomArc::new(outbox());
            outbox.attach(pipe.clone(), false);
            outbox.put(frame(1));
            outbox.put(frame(2));
            let sender = {
                let outbox = LoomArc::clone(&outbox);
                thread::spawn(move || {
                    assert!(outbox.wait_for_room(None));
                    outbox.put(frame(3));
                })
            };
            pipe.make_room(100);
            outbox.resume();
            sender.join().unwrap();
            outbox.resume();
            assert_eq!(pipe.frames().0.last(), Some(&vec![3, 3]));
        });
    }
}

/// A thread waits for room while `make_room` is called; it must be notified.
fn assert_told(outbox: fn() -> PeerOutbox, make_room: fn(&PeerOutbox)) {
    loom::model(move || {
        let outbox = LoomArc::new(outbox());
        // Two of three frames of 6 bytes are written. They are counted as written when the link ends.
        outbox.attach(Pipe::with_room(13), false);
        for n in 1..=3 {
            outbox.put(frame(n));
        }
        outbox.resume();
        let waiter = {
            let outbox = LoomArc::clone(&outbox);
            thread::spawn(move || assert!(outbox.wait_for_room(None)))
        };
        make_room(&outbox);
        waiter.join().unwrap();
    });
}

#[test]
fn loom_waiter_is_notified_after_a_link_ends() {
    assert_told(
        || queue(20),
        |outbox| {
            outbox.detach();
        },
    );
}

#[test]
fn loom_waiter_is_notified_by_close() {
    assert_told(
        || queue(20),
        |outbox| {
            outbox.close();
        },
    );
    // The third frame is written in part, so it is not in the slot: one more frame fills the slot.
    assert_told(
        || {
            let outbox = latest();
            outbox.put(frame(0));
            outbox
        },
        |outbox| {
            outbox.put(frame(4));
            outbox.close();
        },
    );
}
