//! Threads that wait for room, and since when frames wait.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::*;

#[test]
fn wait_for_room_blocks_until_there_is_room() {
    let pipe = Pipe::with_room(0);
    let outbox = Arc::new(latest());
    outbox.attach(pipe.clone(), false);
    assert_eq!(outbox.put(frame(1)).0, Ok(SendOutcome::Queued));
    let waiting_thread = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || outbox.wait_for_room(None))
    };
    while of_any!(outbox, writer => writer.waiters()) == 0 && !waiting_thread.is_finished() {
        thread::yield_now();
    }
    assert_eq!(outbox.put(frame(2)).0, Ok(SendOutcome::Superseded));
    assert!(!outbox.wait_for_room(Some(Instant::now())) && !waiting_thread.is_finished());
    pipe.make_room(100);
    outbox.resume();
    assert!(waiting_thread.join().unwrap());
    assert_eq!(pipe.frames(), (bodies(&[2]), true));
}

#[test]
fn waiter_is_notified_of_room_after_a_link_ends() {
    let outbox = Arc::new(queue(20));
    // On probation first, so that the three frames are written together.
    outbox.attach(Pipe::with_room(13), true);
    for n in 1..=3 {
        assert_eq!(outbox.put(frame(n)).0, Ok(SendOutcome::Queued));
    }
    outbox.end_probation();
    assert!(
        !outbox.wait_for_room(Some(Instant::now())),
        "18 of 20 bytes are held"
    );
    let waiter = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || outbox.wait_for_room(None))
    };
    while of_any!(outbox, writer => writer.waiters()) == 0 {
        thread::yield_now();
    }
    outbox.detach();
    assert!(waiter.join().unwrap());
}

#[test]
fn waiting_frames_have_the_time_of_the_oldest() {
    let (start, seconds) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let clock = {
        let seconds = Arc::clone(&seconds);
        Clock::new(move || start + Duration::from_secs(seconds.load(Ordering::Relaxed)))
    };
    // The seconds since the start at which the oldest frame that waits was put.
    let since = |outbox: &PeerOutbox| {
        let since = outbox.counts().waiting_since?;
        Some(since.saturating_duration_since(start).as_secs())
    };
    let put_at = |outbox: &PeerOutbox, at: u64| {
        seconds.store(at, Ordering::Relaxed);
        put_and_write(outbox, 1);
    };
    for outbox in [
        PeerOutbox::latest(clock.clone()),
        PeerOutbox::queue(1000, clock.clone()),
        PeerOutbox::lanes(1000, clock.clone()),
    ] {
        assert_eq!(since(&outbox), None, "nothing was put");
        put_at(&outbox, 1);
        put_at(&outbox, 2);
        assert_eq!(since(&outbox), Some(1), "there is no link");

        let pipe = Pipe::with_room(usize::MAX);
        outbox.attach(pipe, false);
        assert_eq!(since(&outbox), None, "all was written");
        put_at(&outbox, 3);
        assert_eq!(since(&outbox), None, "it was written at once");

        // Three of the six bytes of a frame. A link is on probation first, so that no frame is repeated over it.
        outbox.attach(Pipe::with_room(3), true);
        put_at(&outbox, 4);
        assert_eq!(since(&outbox), Some(4), "the link is on probation");
        seconds.store(5, Ordering::Relaxed);
        outbox.end_probation();
        put_at(&outbox, 6);
        assert_eq!(since(&outbox), Some(4), "half of the frame was written");

        outbox.detach();
        assert_eq!(since(&outbox), Some(4), "the frame waits for the next link");
        seconds.store(7, Ordering::Relaxed);
        outbox.attach(Pipe::with_room(7), false);
        put_at(&outbox, 8);
        let oldest = if outbox.has_queue() { 6 } else { 8 };
        assert_eq!(since(&outbox), Some(oldest), "the first one was written");

        outbox.discard();
        outbox.detach();
        outbox.discard();
        assert_eq!(since(&outbox), None, "all was discarded");
        put_at(&outbox, 9);
        assert_eq!(since(&outbox), Some(9), "the next frame has its own time");
    }
}

#[test]
fn frame_that_its_sender_could_not_write_waits_from_then_on() {
    let outbox = latest();
    outbox.attach(Pipe::with_room(0), false);
    let before = Instant::now();
    outbox.put(frame(1));
    let since = outbox.counts().waiting_since;
    assert!(since.is_some_and(|since| since >= before));
    outbox.put(frame(2));
    assert_eq!(
        outbox.counts().waiting_since,
        since,
        "a newer one replaces it"
    );
}
