//! Outboxes that are sealed or closed, and payloads that are dropped.

use super::*;
use crate::limits::WHOLE_FRAME_BYTES;

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
fn slot_closed_between_two_frames_has_accepted_the_first() {
    let outbox = Arc::new(latest());
    let closing = Arc::downgrade(&outbox);
    outbox.attach(
        Arc::new(OnWrite(move || {
            closing.upgrade().expect("it is in use").close();
        })),
        false,
    );
    assert_eq!(outbox.put_all(&[&[1, 1], &[2, 2]]).0, Ok(1));
    let counts = outbox.counts();
    assert_eq!((counts.accepted, counts.written), (1, 1));
    assert_balance(counts);
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
