//! Unit tests of `outbox`.

use std::{
    fmt,
    io::IoSlice,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::{fixture::*, *};
use crate::limits::WHOLE_FRAME_BYTES;

/// One outbox of each kind.
fn all() -> [PeerOutbox; 3] {
    [latest(), queue(1000), lanes(1000)]
}

/// Puts a frame, and lets the loop do what a queue asks of it. Returns what is left for the loop then.
fn put_and_write(outbox: &PeerOutbox, n: u8) -> LoopRequest {
    let (outcome, request) = outbox.put(frame(n));
    assert!(outcome.is_ok());
    if request == LoopRequest::RESUME {
        outbox.resume()
    } else {
        request
    }
}

#[test]
fn attaching_a_new_link_clears_the_failure() {
    for outbox in all() {
        outbox.attach(Arc::new(Cut), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::BROKEN);
        assert_eq!(put_and_write(&outbox, 2), LoopRequest::NONE);
        assert_eq!(outbox.resume(), LoopRequest::NONE);
        assert_eq!(outbox.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.broken(), None);
        let waited: &[u8] = if outbox.has_queue() { &[1, 2] } else { &[2] };
        assert_eq!(pipe.frames(), (bodies(waited), true));
        assert_balance(outbox.counts());
    }
}

#[test]
fn write_of_zero_bytes_is_a_failure() {
    for outbox in all() {
        outbox.attach(Arc::new(Stuck), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::BROKEN);
        assert_eq!(outbox.broken(), Some(io::ErrorKind::WriteZero));
        assert_eq!(outbox.counts().waiting, 1);
    }
}

#[test]
fn interrupted_frame_restarts_on_the_replacing_link() {
    for outbox in all() {
        outbox.attach(Pipe::with_room(3), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::NONE);
        // The older link is not detached before.
        let new = Pipe::with_room(100);
        let request = outbox.attach(new.clone(), false);
        assert_eq!(request.without(LoopRequest::RELEASE), LoopRequest::NONE);
        assert_eq!(new.frames(), (bodies(&[1]), true));
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    }
}

#[test]
fn closed_outbox_accepts_nothing_and_discards_its_frame() {
    for outbox in all() {
        outbox.attach(Pipe::with_room(9), false);
        for n in 1..=3 {
            put_and_write(&outbox, n);
        }
        // One frame is written, and one is cut off. In a slot, the third waits behind it.
        outbox.close();
        let none = LoopRequest::NONE;
        assert_eq!(outbox.put(frame(4)), (Err(Refusal::Closed), none));
        let many = outbox.put_all(&[&[0][..]; 2]);
        assert_eq!(many, (Err(Refusal::Closed), none));
        let counts = outbox.counts();
        assert_eq!((counts.written, counts.discarded), (1, 2));
        assert_balance(counts);
    }
}

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
fn slot_closed_between_two_frames_has_accepted_the_first() {
    let outbox = Arc::new(latest());
    let closing = Arc::downgrade(&outbox);
    outbox.attach(
        Arc::new(Closing(move || {
            closing.upgrade().expect("it is in use").close();
        })),
        false,
    );
    assert_eq!(outbox.put_all(&[&[1, 1], &[2, 2]]).0, Ok(1));
    let counts = outbox.counts();
    assert_eq!((counts.accepted, counts.written), (1, 1));
    assert_balance(counts);
}

/// A socket with room. This function is called while it is written to.
struct Closing<F>(F);

impl<F: Fn() + Send + Sync> Wire for Closing<F> {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (self.0)();
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

impl<F> fmt::Debug for Closing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closing")
    }
}

/// A payload whose owner panics when it is freed.
struct Bomb([u8; WHOLE_FRAME_BYTES]);

impl Bomb {
    fn payload(n: u8) -> Bytes {
        Bytes::from_owner(Self([n; WHOLE_FRAME_BYTES]))
    }
}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload panics when it is freed, which this test expects");
    }
}

#[test]
fn panic_while_dropping_a_payload_blocks_no_peer() {
    for outbox in [latest(), queue(1 << 20), lanes(1 << 20)] {
        let mut put = 0;
        let mut put_some = || {
            for n in 1..=3 {
                outbox.put(Bomb::payload(n));
                put += 1;
            }
        };
        // Payloads are dropped in all ways: replaced in the slot, cut off by the end of a link, sent over the next link,
        // written by `put`, and written by `resume`.
        put_some();
        outbox.attach(Pipe::with_room(WHOLE_FRAME_BYTES), false);
        put_some();
        outbox.detach();
        put_some();
        let pipe = Pipe::with_room(usize::MAX);
        outbox.attach(pipe.clone(), false);
        while outbox.resume() == LoopRequest::RESUME {}
        put_some();
        outbox.resume();
        assert_eq!(outbox.put(frame(9)).0, outbox.put(frame(9)).0);
        outbox.resume();
        assert_eq!(pipe.frames().0.last(), Some(&vec![9, 9]));
        assert_eq!(outbox.counts().accepted, put + 2);
        outbox.close();
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    }
}

#[test]
fn denied_link_request_is_repeated_by_the_next_frame() {
    for outbox in all() {
        assert!(!outbox.update_demand(), "nothing waits");
        assert_eq!(outbox.put(frame(1)).1, LoopRequest::LINK);
        assert!(outbox.update_demand());
        // The loop knows already.
        assert_eq!(outbox.put(frame(2)).1, LoopRequest::NONE);
        outbox.attach(Pipe::with_room(100), false);
        outbox.resume();
        outbox.detach();
        assert!(!outbox.update_demand());
        assert_eq!(outbox.put(frame(3)).1, LoopRequest::LINK);
    }
}

#[test]
fn closed_slot_accepts_no_frame_of_a_batch() {
    let outbox = latest();
    assert_eq!(outbox.put_all(&[&[1], &[2]]).0, Ok(2));
    outbox.close();
    assert_eq!(
        outbox.put_all(&[&[3], &[4]]),
        (Err(Refusal::Closed), LoopRequest::NONE)
    );
    assert_balance(outbox.counts());
}

#[test]
fn sealed_outbox_takes_nothing_and_writes_what_waits() {
    for outbox in all() {
        outbox.attach(Pipe::with_room(3), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::NONE);
        outbox.put(frame(2)).0.unwrap();
        outbox.seal();
        let mut run = Run::default();
        assert_eq!(
            outbox.put(frame(3)),
            (Err(Refusal::Closed), LoopRequest::NONE)
        );
        assert_eq!(outbox.put_all(&[&[3]]).0, Err(Refusal::Closed));
        assert_eq!(
            outbox
                .put_long(WHOLE_FRAME_BYTES, |payload| payload.fill(3))
                .0,
            Err(Refusal::Closed)
        );
        assert_ne!(outbox.reserve(&mut run, 5), Some(Ok(())));
        assert!(
            outbox.wait_for_room(Some(Instant::now())),
            "the next send tells"
        );
        // The frame that was cut off and the other one wait for the next link.
        outbox.detach();
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        let waited: &[u8] = if outbox.has_queue() { &[1, 2] } else { &[2] };
        assert_eq!(pipe.frames(), (bodies(waited), true));
        assert!(outbox.is_empty());
        assert_eq!(outbox.close(), 0);
        assert_balance(outbox.counts());
    }
}

#[test]
fn run_that_was_begun_before_the_outbox_was_sealed_is_discarded() {
    let outbox = queue(1000);
    let mut run = Run::default();
    assert_eq!(outbox.reserve(&mut run, 6), Some(Ok(())));
    run.append_copy(&frame(1));
    outbox.seal();
    assert_eq!(outbox.put_run(&mut run).0, Err(Refusal::Closed));
    assert_eq!(run.frames(), 0);
    outbox.discard_late(1);
    assert_eq!(outbox.counts().discarded, 1);
    assert_balance(outbox.counts());
}

#[test]
fn closing_tells_how_many_frames_were_discarded() {
    for outbox in all() {
        outbox.put(frame(1)).0.unwrap();
        outbox.put(frame(2)).0.unwrap();
        assert_eq!(outbox.close(), if outbox.has_queue() { 2 } else { 1 });
        assert_eq!(outbox.close(), 0);
    }
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

fn ping(number: u8) -> Controls {
    let ping = Some(number.into());
    Controls { ping, pong: None }
}

fn ping_bytes(number: u8) -> [u8; 12] {
    [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, number]
}

#[test]
fn control_frames_go_before_the_frames_that_are_not_begun() {
    for outbox in all() {
        let pipe = Pipe::with_room(3);
        outbox.attach(pipe.clone(), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::NONE);
        assert_eq!(put_and_write(&outbox, 2), LoopRequest::NONE);
        for number in [7, 8] {
            assert_eq!(outbox.put_controls(ping(number)), (true, LoopRequest::NONE));
        }
        let pong = Controls {
            pong: Some(9),
            ping: None,
        };
        assert_eq!(outbox.put_controls(pong), (true, LoopRequest::NONE));
        let mut expected = vec![0, 0, 0, 2, 1, 1];
        expected.extend([255, 255, 255, 254, 0, 0, 0, 0, 0, 0, 0, 9]);
        expected.extend(ping_bytes(8));
        expected.extend([0, 0, 0, 2, 2, 2]);
        // The socket is full again in the middle of each.
        for _ in 0..expected.len() {
            pipe.make_room(1);
            if outbox.resume() == LoopRequest::RESUME {
                outbox.resume();
            }
        }
        assert_eq!(pipe.bytes(), expected);
        let counts = outbox.counts();
        assert_eq!((counts.accepted, counts.written, counts.bytes), (2, 2, 12));
        assert_balance(counts);
        // The link is idle now.
        pipe.make_room(100);
        assert_eq!(outbox.put_controls(ping(9)), (true, LoopRequest::NONE));
        expected.extend(ping_bytes(9));
        assert_eq!(pipe.bytes(), expected);
        assert_eq!(outbox.detach(), 2);
    }
}

#[test]
fn control_frames_are_not_kept_for_another_link() {
    for outbox in all() {
        assert_eq!(outbox.put_controls(ping(1)), (false, LoopRequest::NONE));
        // One is written in part, and another one waits.
        outbox.attach(Pipe::with_room(3), false);
        outbox.put_controls(ping(1));
        outbox.put_controls(ping(2));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), true);
        assert_eq!(outbox.put_controls(ping(3)), (false, LoopRequest::NONE));
        outbox.end_probation();
        let _ = put_and_write(&outbox, 1);
        assert_eq!(pipe.frames(), (bodies(&[1]), true));
        assert_balance(outbox.counts());
    }
}

#[test]
fn control_frame_is_written_to_a_link_that_is_handed_over() {
    for outbox in all() {
        let outbox = Arc::new(outbox);
        let pipe = Pipe::with_room(100);
        let (new, of) = (pipe.clone(), Arc::downgrade(&outbox));
        // While a thread writes, the loop replaces the link, and sends a ping over the new one.
        let replace = move || {
            let outbox = of.upgrade().expect("it is in use");
            outbox.attach(new.clone(), false);
            assert_eq!(outbox.put_controls(ping(1)), (true, LoopRequest::NONE));
        };
        outbox.attach(Arc::new(Closing(replace)), false);
        let _ = put_and_write(&outbox, 1);
        assert!(pipe.bytes().ends_with(&ping_bytes(1)), "{outbox:?}");
    }
}

#[test]
fn control_frames_do_not_hide_how_long_a_frame_waits() {
    for outbox in all() {
        let pipe = Pipe::with_room(3);
        outbox.attach(pipe.clone(), false);
        outbox.put_controls(ping(1));
        let _ = put_and_write(&outbox, 1);
        let since = outbox.counts().waiting_since;
        assert!(since.is_some());
        pipe.make_room(10);
        outbox.resume();
        assert_eq!(outbox.counts().waiting_since, since);
    }
}
