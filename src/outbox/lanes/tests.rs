//! Unit tests of `lanes`.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use proptest::prelude::*;

use super::{
    super::{PeerOutbox, fixture::*, types::SendOutcome},
    *,
};
use crate::limits::{PREFIX_BYTES, QUEUE_BYTES};

/// Lanes that are linked by a socket with this much room.
fn linked(room: usize) -> (Arc<Pipe>, PeerOutbox) {
    let (pipe, lanes) = (Pipe::with_room(room), lanes(QUEUE_BYTES));
    lanes.attach(pipe.clone(), false);
    (pipe, lanes)
}

/// Acts as the loop: resumes as often as it is asked to.
fn resume(lanes: &PeerOutbox) {
    while lanes.resume().has(LoopRequest::RESUME) {}
}

#[test]
fn latest_frame_is_written_by_the_sender_before_the_queue() {
    let (pipe, lanes) = linked(usize::MAX);
    assert_eq!(lanes.put(frame(1)), queued(LoopRequest::RESUME));
    assert_eq!(lanes.put_latest(frame(2)).0, Ok(SendOutcome::Written));
    assert_eq!(
        pipe.frames(),
        (bodies(&[2, 1]), true),
        "one call wrote both"
    );
    assert_balance(lanes.counts());
}

#[test]
fn one_run_at_most_is_written_before_the_latest_frame() {
    let (pipe, lanes) = linked(10);
    for _ in 0..1000 {
        lanes.put_all(&[&[7; 1000]]);
    }
    resume(&lanes);
    assert_eq!(lanes.put_latest(frame(1)).0, Ok(SendOutcome::Queued));
    assert_eq!(lanes.put_latest(frame(2)).0, Ok(SendOutcome::Superseded));
    pipe.make_room(usize::MAX - 10);
    resume(&lanes);
    let (frames, whole) = pipe.frames();
    assert!(whole && frames.len() == 1001);
    let at = frames.iter().position(|frame| frame[..] == [2, 2]).unwrap();
    let before: usize = frames[..at]
        .iter()
        .map(|frame| PREFIX_BYTES + frame.len())
        .sum();
    assert!((1..=LANES_RUN_BYTES).contains(&before), "{before}");
    assert_eq!(lanes.counts().superseded, 1);
    assert_balance(lanes.counts());
}

/// A socket with room. While it is written to, newer frames are put into the slot.
struct Urging {
    pipe: Arc<Pipe>,
    put: Box<dyn Fn() + Send + Sync>,
}

impl Wire for Urging {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (self.put)();
        self.pipe.write(bufs)
    }
}

impl fmt::Debug for Urging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Urging")
    }
}

#[test]
fn slot_that_is_never_empty_does_not_hold_up_the_queue() {
    let lanes = Arc::new(lanes(QUEUE_BYTES));
    for _ in 0..3 {
        lanes.put_all(&[&[0; 100_000]]);
    }
    let (pipe, next) = (Pipe::with_room(usize::MAX), AtomicU8::new(1));
    let weak = Arc::downgrade(&lanes);
    let put = move || {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n <= 20 {
            weak.upgrade().expect("it is in use").put_latest(frame(n));
        }
    };
    let (wire, put) = (pipe.clone(), Box::new(put));
    lanes.attach(Arc::new(Urging { pipe: wire, put }), false);
    resume(&lanes);
    let order: Vec<u8> = pipe.frames().0.iter().map(|frame| frame[0]).collect();
    assert_eq!(
        order[..6],
        [0, 1, 0, 3, 0, 5],
        "a run after each frame of the slot"
    );
    assert_balance(lanes.counts());
}

#[test]
fn new_link_begins_with_the_last_frame_and_repeats_none_of_the_queue() {
    let (_, lanes) = linked(12);
    lanes.put_latest(frame(1));
    lanes.put(frame(2));
    lanes.put(frame(3));
    resume(&lanes);
    lanes.detach();
    let new = Pipe::with_room(100);
    lanes.attach(new.clone(), false);
    assert_eq!(new.frames(), (bodies(&[1, 3]), true));
    let counts = lanes.counts();
    assert_eq!((counts.written, counts.resent), (3, 1));
    assert_balance(counts);
}

#[test]
fn frame_of_the_slot_that_was_begun_is_finished_first() {
    let (pipe, lanes) = linked(3);
    lanes.put_latest(frame(1));
    lanes.put(frame(2));
    lanes.put_latest(frame(3));
    pipe.make_room(100);
    resume(&lanes);
    assert_eq!(pipe.frames(), (bodies(&[1, 2, 3]), true));
}

#[test]
fn lanes_on_probation_write_nothing() {
    let (pipe, lanes) = (Pipe::with_room(100), lanes(QUEUE_BYTES));
    lanes.attach(pipe.clone(), true);
    lanes.put(frame(1));
    assert_eq!(lanes.put_latest(frame(2)).0, Ok(SendOutcome::Queued));
    resume(&lanes);
    assert_eq!(pipe.frames(), (bodies(&[]), true));
    lanes.end_probation();
    assert_eq!(pipe.frames(), (bodies(&[2, 1]), true));
}

#[test]
fn full_queue_has_no_room_and_the_slot_takes_a_frame() {
    let lanes = lanes(12);
    for n in 1..=2 {
        assert_eq!(lanes.put(frame(n)).0, Ok(SendOutcome::Queued));
    }
    assert!(lanes.put(frame(3)).0.is_err());
    assert_eq!(lanes.put_latest(frame(4)).0, Ok(SendOutcome::Queued));
    assert!(!lanes.wait_for_room(Some(std::time::Instant::now())));
    assert_eq!(lanes.counts().waiting, 3);
    assert_eq!(lanes.discard(), 3);
    assert!(lanes.is_empty());
    lanes.put_latest(frame(5));
    lanes.put(frame(6));
    lanes.close();
    assert!(lanes.put_latest(frame(7)).0.is_err() && lanes.put(frame(8)).0.is_err());
    assert_eq!(lanes.counts().discarded, 5);
    assert_balance(lanes.counts());
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    PutLatest,
    MakeRoom(usize),
    Relink(usize),
    Discard,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![Just(2), Just(3000), Just(70_000)].prop_map(Step::Put),
        3 => Just(Step::PutLatest),
        3 => (1..200_000_usize).prop_map(Step::MakeRoom),
        1 => (0..100_000_usize).prop_map(Step::Relink),
        1 => Just(Step::Discard),
    ]
}

proptest! {
    #[test]
    fn each_lane_is_in_order_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let (mut pipe, lanes) = linked(1000);
        let (mut newest, mut count) = (0_u8, 0_u8);
        // The last frame of each lane that has arrived over any link.
        let (mut queued, mut latest) = (0, 0);
        let mut check = |pipe: &Pipe| {
            for frame in pipe.frames().0 {
                let n = frame[1];
                if frame[0] == 0 {
                    prop_assert!(n > queued, "{n} of the queue after {queued}");
                    queued = n;
                } else {
                    prop_assert!(n >= latest, "{n} of the slot after {latest}");
                    latest = n;
                }
            }
            Ok(latest)
        };
        let put = |n: u8, len: usize| {
            let mut frame = vec![n; len];
            frame[0] = 0;
            // The queue has room for all of them: 60 times 70 kB is more than 2 MiB, and what is refused leaves a gap.
            let (_, request) = lanes.put_long(frame.len(), |payload| payload.copy_from_slice(&frame));
            request
        };
        for step in steps {
            match step {
                Step::Put(len) => {
                    count += 1;
                    if put(count, len).has(LoopRequest::RESUME) {
                        resume(&lanes);
                    }
                }
                Step::PutLatest => {
                    newest += 1;
                    if lanes.put_latest(vec![1, newest].into()).1.has(LoopRequest::RESUME) {
                        resume(&lanes);
                    }
                }
                Step::MakeRoom(more) => {
                    pipe.make_room(more);
                    resume(&lanes);
                }
                Step::Relink(room) => {
                    lanes.detach();
                    check(&pipe)?;
                    pipe = Pipe::with_room(room);
                    if lanes.attach(pipe.clone(), false).has(LoopRequest::RESUME) {
                        resume(&lanes);
                    }
                }
                Step::Discard => {
                    lanes.discard();
                }
            }
            assert_balance(lanes.counts());
        }
        lanes.detach();
        check(&pipe)?;
        newest += 1;
        lanes.put_latest(vec![1, newest].into());
        pipe = Pipe::with_room(usize::MAX);
        if lanes.attach(pipe.clone(), false).has(LoopRequest::RESUME) {
            resume(&lanes);
        }
        prop_assert_eq!(check(&pipe)?, newest);
        prop_assert!(lanes.is_empty() && pipe.frames().1);
        assert_balance(lanes.counts());
    }
}
