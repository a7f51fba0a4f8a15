//! Unit tests of `queue`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    super::{SendOutcome, buffer::prefix_of, fixture::*, run::Run, writer::Writer},
    *,
};
use crate::limits::{QUEUE_BYTES, TURN_BYTES, WHOLE_FRAME_BYTES};

fn queue(bytes_max: usize) -> Writer<Queue> {
    Writer::new(Queue::new(bytes_max), clock(), 2)
}

impl Piece {
    /// The memory that the piece holds.
    fn held(&self) -> usize {
        match self {
            Self::Run { bytes, .. } => bytes.capacity(),
            Self::Whole { frame, .. } => frame.len(),
        }
    }
}

#[test]
fn queued_frames_request_one_write_by_the_loop() {
    let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(1000));
    assert_eq!(queue.attach(pipe.clone(), false), LoopRequest::NONE);
    assert_eq!(queue.put(frame(1)), queued(LoopRequest::RESUME));
    assert_eq!(queue.put(frame(2)), queued(LoopRequest::NONE));
    assert_eq!(queue.resume(), LoopRequest::RELEASE);
    assert_eq!(pipe.frames(), (bodies(&[1, 2]), true));
    assert_eq!(queue.put(frame(3)), queued(LoopRequest::RESUME));
}

#[test]
fn queue_requests_a_link_once_after_each_loss() {
    let queue = queue(1000);
    for _ in 0..2 {
        assert_eq!(queue.put(frame(1)), queued(LoopRequest::LINK));
        assert_eq!(queue.put(frame(2)), queued(LoopRequest::NONE));
        queue.attach(Pipe::with_room(0), false);
        assert_eq!(queue.put(frame(3)), queued(LoopRequest::NONE));
        queue.detach();
    }
    assert_eq!(queue.counts().waiting, 6);
}

#[test]
fn room_is_enough_for_the_frame_that_was_refused() {
    let queue = queue(100);
    for _ in 0..2 {
        // 50 bytes each with the prefix.
        assert_eq!(queue.put_all(&[&[7; 46]]).0, Ok(1));
    }
    assert_eq!(queue.put_all(&[&[7; 66]]).0, Err(Refusal::Full));
    let pipe = Pipe::with_room(50);
    queue.attach(pipe.clone(), false);
    queue.detach();
    assert_eq!(queue.counts().waiting, 1);
    assert!(!queue.has_room(), "half is free, and 70 bytes are needed");
    pipe.make_room(1000);
    queue.attach(pipe.clone(), false);
    assert!(queue.has_room());
    assert_eq!(queue.put_all(&[&[7; 66]]).0, Ok(1));
    // Empty again, so that nothing is remembered.
    queue.resume();
    assert_eq!(queue.put_all(&[&[7; 46]]).0, Ok(1));
    queue.detach();
    assert!(queue.has_room());
}

#[test]
fn full_queue_accepts_the_frames_that_fit() {
    let queue = queue(20);
    let frame = &[7, 7][..];
    assert_eq!(queue.put_all(&[frame; 5]).0, Ok(3));
    assert_eq!(
        queue.put_all(&[frame; 5]),
        (Err(Refusal::Full), LoopRequest::NONE)
    );
    assert_eq!(queue.put_all(&[]), (Ok(0), LoopRequest::NONE));
    let pipe = Pipe::with_room(100);
    queue.attach(pipe.clone(), false);
    assert_eq!(queue.put_all(&[frame; 5]).0, Ok(3), "all have left");
    assert_eq!(queue.counts().accepted, 6);
    assert_balance(queue.counts());
}

#[test]
fn only_the_interrupted_frame_is_written_again() {
    let (old, new) = (Pipe::with_room(9), Pipe::with_room(100));
    let queue = queue(1000);
    queue.attach(old, false);
    for n in 1..=3 {
        queue.put(frame(n));
    }
    queue.resume();
    queue.detach();
    assert_eq!((queue.counts().written, queue.counts().waiting), (1, 2));
    assert_eq!(queue.counts().bytes, 6);
    queue.attach(new.clone(), false);
    assert_eq!(new.frames(), (bodies(&[2, 3]), true));
    assert_eq!(queue.counts().bytes, 18);
    assert_eq!(
        queue.put_all(&[&[0; 996]]).0,
        Ok(1),
        "all room is free again"
    );
}

#[test]
fn one_call_writes_at_most_its_budget() {
    let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(3 * BATCH_BYTES));
    let frame = Bytes::from(vec![1; WHOLE_FRAME_BYTES]);
    let batch = BATCH_BYTES / (PREFIX_BYTES + WHOLE_FRAME_BYTES);
    for _ in 0..=2 * batch {
        queue.put(frame.clone());
    }
    assert_eq!(queue.attach(pipe.clone(), false), LoopRequest::RESUME);
    assert_eq!(
        pipe.frames().0.len(),
        2 * batch,
        "the writer of this test writes two batches"
    );
    assert_eq!(queue.put(frame.clone()), queued(LoopRequest::RESUME));
    assert_eq!(queue.resume(), LoopRequest::NONE);
    assert_eq!(pipe.frames().0.len(), 2 * batch + 2);
}

#[test]
fn sender_writes_the_queue_once_enough_is_collected() {
    // A small queue is written when half of it is full.
    for (bytes_max, write_at) in [(2 << 20, QUEUE_WRITE_BYTES), (1000, 500)] {
        let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(bytes_max));
        queue.attach(pipe.clone(), false);
        let frame = &vec![1; write_at / 10][..];
        let many = write_at.div_ceil(PREFIX_BYTES + frame.len());
        assert_eq!(queue.put_all(&[frame]), (Ok(1), LoopRequest::RESUME));
        for _ in 2..many {
            assert_eq!(queue.put_all(&[frame]), (Ok(1), LoopRequest::NONE));
        }
        assert_eq!(pipe.frames().0.len(), 0);
        assert_eq!(queue.put_all(&[frame]), (Ok(1), LoopRequest::RELEASE));
        assert_eq!(pipe.frames().0.len(), many);
        // The loop was asked by the first frame, and now finds nothing to write.
        assert_eq!(
            (queue.resume(), queue.counts().waiting),
            (LoopRequest::NONE, 0)
        );
    }
}

#[test]
fn buffers_are_released_once_they_were_not_used_for_a_while() {
    let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(1000));
    queue.attach(pipe, false);
    let spare = || queue.look(|state| state.backlog.spare.len());
    let write = |requested| {
        queue.put(frame(1));
        assert_eq!((queue.resume(), spare()), (requested, 1));
    };
    write(LoopRequest::RELEASE);
    write(LoopRequest::NONE);
    // Used since the last time, which was never.
    assert_eq!((queue.release_unused(), spare()), (LoopRequest::RELEASE, 1));
    write(LoopRequest::NONE);
    assert_eq!((queue.release_unused(), spare()), (LoopRequest::RELEASE, 1));
    assert_eq!((queue.release_unused(), spare()), (LoopRequest::NONE, 0));
    write(LoopRequest::RELEASE);
    queue.detach();
    assert_eq!(spare(), 0, "without a link, no buffer is kept");
    assert_eq!(queue.release_unused(), LoopRequest::NONE);
}

#[test]
fn many_frames_are_taken_in_parts() {
    let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(QUEUE_BYTES));
    queue.attach(pipe.clone(), false);
    let frame = &[1; 1000][..];
    let part = QUEUE_RUN_BYTES.div_ceil(PREFIX_BYTES + frame.len());
    let parts = QUEUE_WRITE_BYTES / QUEUE_RUN_BYTES;
    let all = vec![frame; parts * part];
    for n in 0..parts {
        assert_eq!(pipe.frames().0.len(), 0);
        assert_eq!(queue.put_all(&all[n * part..]).0, Ok(part));
    }
    assert_eq!(pipe.frames().0.len(), parts * part, "enough for a write");
}

#[test]
fn long_frames_are_copied_into_buffers_that_were_written() {
    let (pipe, queue) = (Pipe::with_room(0), queue(QUEUE_BYTES));
    queue.attach(pipe.clone(), false);
    let long = [7; QUEUE_RUN_BYTES];
    let buffers = || {
        queue.look(|state| {
            let of = |piece: &Piece| piece.parts()[0].as_ptr();
            state.backlog.pieces.iter().map(of).collect::<Vec<_>>()
        })
    };
    assert_eq!(queue.put_copy(&long), queued(LoopRequest::RESUME));
    assert_eq!(queue.put_copy(&long), queued(LoopRequest::NONE));
    let written = buffers();
    assert_eq!(queue.resume(), LoopRequest::NONE);
    assert_eq!(pipe.frames().0.len(), 0, "the socket is full");
    pipe.make_room(2 * (PREFIX_BYTES + long.len()));
    assert_eq!(queue.resume(), LoopRequest::RELEASE);
    assert_eq!(pipe.frames(), (vec![long.to_vec(); 2], true));
    // The loop finds nothing to write, and keeps the buffers.
    assert_eq!(queue.resume(), LoopRequest::NONE);
    assert_eq!(queue.put_copy(&long), queued(LoopRequest::RESUME));
    assert!(written.contains(&buffers()[0]), "its buffer is used again");
    let too_long = vec![0; QUEUE_BYTES];
    assert_eq!(queue.put_copy(&too_long).0, Err(Refusal::Full));
    queue.close();
    assert_eq!(queue.put_copy(&long).0, Err(Refusal::Closed));
}

#[test]
fn panic_while_a_frame_is_written_gives_its_room_back() {
    let queue = queue(3 * QUEUE_RUN_BYTES);
    let panics = |call: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    let long = QUEUE_RUN_BYTES;
    panics(&mut || {
        let _ = queue.put_long(long, |_| panic!("part of the test"));
    });
    assert_eq!(queue.look(|state| state.backlog.bytes), 0);
    let mut run = Run::default();
    queue.reserve(&mut run, 10).unwrap();
    panics(&mut || run.append_with(3, |_| panic!("part of the test")));
    // It may be used again, or be put without a frame.
    for frames in [&[&b"one"[..], b"two"][..], &[]] {
        for frame in frames {
            run.append_copy(frame);
        }
        queue.put_run(&mut run).0.unwrap();
        let bytes: usize = frames.iter().map(|frame| PREFIX_BYTES + frame.len()).sum();
        assert_eq!(queue.look(|state| state.backlog.bytes), bytes);
        let pipe = Pipe::with_room(usize::MAX);
        queue.attach(pipe.clone(), false);
        assert_eq!(pipe.frames().0, *frames);
        queue.detach();
        queue.reserve(&mut run, 10).unwrap();
    }
}

#[test]
fn frame_that_is_written_over_an_older_one_is_that_of_the_application() {
    let (pipe, queue) = (Pipe::with_room(usize::MAX), queue(QUEUE_BYTES));
    queue.attach(pipe.clone(), false);
    let mut run = Run::default();
    for (byte, len) in [(1, 100), (2, 3), (3, 2000), (4, 1)] {
        queue.reserve(&mut run, PREFIX_BYTES + len).unwrap();
        run.append_with(len, |payload| payload.fill(byte));
        queue.put_run(&mut run).0.unwrap();
        queue.resume();
        assert_eq!(pipe.frames().0.last(), Some(&vec![byte; len]));
    }
    assert!(
        queue.look(|state| state.backlog.spare.len()) == 2,
        "two buffers in turn"
    );
}

#[test]
fn queue_closed_after_a_reservation_takes_nothing_and_balances() {
    let queue = queue(1000);
    let mut run = Run::default();
    queue.reserve(&mut run, 10).unwrap();
    run.append_copy(b"fed");
    queue.close();
    let late = Piece::Whole {
        prefix: prefix_of(1),
        frame: Bytes::from_static(b"x"),
        since: queue.stamps().now(),
    };
    // What was not taken is not counted, and what was taken is discarded.
    assert!(queue.transition().backlog.push_reserved(late, 0).is_err());
    assert_eq!(queue.counts().accepted, 0);
    assert_eq!(queue.put_run(&mut run).0, Err(Refusal::Closed));
    queue.discard_late(1);
    let counts = queue.counts();
    assert_eq!((counts.accepted, counts.discarded), (1, 1));
    assert_balance(counts);
    assert_eq!(queue.look(|state| state.backlog.bytes), 0);
}

#[test]
fn small_frames_between_large_ones_hold_little_memory() {
    let (pipe, queue) = (Pipe::with_room(0), queue(QUEUE_BYTES));
    queue.attach(pipe.clone(), false);
    let (small, large) = (&[1; 1000][..], Bytes::from(vec![2; WHOLE_FRAME_BYTES]));
    while queue.put_all(&[small]).0 == Ok(1) {}
    let full = queue.look(|state| state.backlog.bytes);
    for _ in 0..16 {
        // Room for as much as a turn writes, whose buffers are then kept.
        pipe.make_room(TURN_BYTES);
        while queue.resume().has(LoopRequest::RESUME) {}
        while queue.put_all(&[small]).0 == Ok(1)
            && queue.put(large.clone()).0 == Ok(SendOutcome::Queued)
        {}
    }
    let (held, bytes) = queue.look(|state| {
        let held: usize = state.backlog.pieces.iter().map(Piece::held).sum();
        (held, state.backlog.bytes)
    });
    assert!(bytes > full / 2 && held <= 2 * bytes, "{held} for {bytes}");
}

#[test]
fn link_on_probation_is_written_to_once_proven() {
    let (first, pipe, queue) = (Pipe::with_room(100), Pipe::with_room(100), queue(1000));
    queue.put(frame(1));
    assert_eq!(queue.attach(first.clone(), true), LoopRequest::NONE);
    assert_eq!(queue.put(frame(2)), queued(LoopRequest::NONE));
    assert_eq!(queue.resume(), LoopRequest::NONE);
    assert_eq!(queue.detach(), 0, "nothing was written");
    assert_eq!(queue.end_probation(), LoopRequest::NONE, "there is no link");
    queue.attach(pipe.clone(), true);
    assert_eq!(queue.end_probation(), LoopRequest::RELEASE);
    assert_eq!(pipe.frames(), (bodies(&[1, 2]), true));
    assert!(first.frames().0.is_empty());
    assert_eq!(queue.put(frame(3)), queued(LoopRequest::RESUME));
    queue.resume();
    assert_eq!(queue.detach(), 3);
}

#[test]
fn waiting_frames_can_be_discarded() {
    let queue = queue(1000);
    queue.attach(Pipe::with_room(9), false);
    for n in 1..=3 {
        queue.put(frame(n));
    }
    queue.resume();
    queue.put(frame(4));
    assert_eq!(queue.discard(), 1, "the rest is just being written");
    assert_eq!(queue.detach(), 1, "one has left whole");
    assert_eq!(queue.discard(), 2);
    let counts = queue.counts();
    assert_eq!(
        (counts.written, counts.discarded, counts.waiting),
        (1, 3, 0)
    );
    assert_balance(counts);
    assert_eq!(
        queue.put_all(&[&[0; 996]]).0,
        Ok(1),
        "all room is free again"
    );
}

proptest! {
    /// Frames of all sizes, sockets that accept any number of bytes, links that end anywhere.
    #[test]
    fn every_frame_arrives_once_and_in_order(
        lens in prop::collection::vec(prop_oneof![1_usize..100, 10_000_usize..40_000], 1..40),
        rooms in prop::collection::vec(0_usize..90_000, 1..20),
    ) {
        let queue = queue(4 << 20);
        let mut pipe = Pipe::with_room(0);
        queue.attach(pipe.clone(), false);
        let (mut came, mut room) = (Vec::new(), rooms.iter().cycle());
        for (n, &len) in lens.iter().enumerate() {
            let frame = Bytes::from(vec![n as u8; len]);
            prop_assert_eq!(queue.put(frame).0, Ok(SendOutcome::Queued));
            pipe.make_room(*room.next().unwrap());
            while queue.resume().has(LoopRequest::RESUME) {}
            if n % 5 == 4 {
                queue.detach();
                came.extend(pipe.frames().0);
                pipe = Pipe::with_room(0);
                queue.attach(pipe.clone(), false);
            }
            assert_balance(queue.counts());
        }
        pipe.make_room(usize::MAX >> 1);
        while queue.resume().has(LoopRequest::RESUME) {}
        came.extend(pipe.frames().0);
        let sent: Vec<Vec<u8>> = lens.iter().enumerate().map(|(n, &len)| vec![n as u8; len]).collect();
        prop_assert_eq!(came, sent);
        let counts = queue.counts();
        prop_assert_eq!((counts.waiting, counts.written), (0, lens.len() as u64));
        prop_assert_eq!(queue.look(|state| state.backlog.bytes), 0);
    }
}
