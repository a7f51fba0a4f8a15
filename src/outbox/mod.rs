//! The outbox of one peer, of either kind: the frames that wait for it.
//!
//! Nothing is decided here: a [`Slot`] or a [`Queue`] holds the frames, and a [`Writer`] writes them.

#[cfg(test)]
mod fixture;
mod queue;
mod slot;
mod types;
mod writer;

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::limits::{WRITER_BATCHES_MAX, WRITER_FRAMES_MAX};

use queue::Queue;
use slot::Slot;
use writer::Writer;

pub(crate) use types::{LoopRequest, Refusal, SendCounts};
pub use types::{SendOutcome, Wire};

/// The outbox of one peer.
#[derive(Debug)]
pub(crate) struct Outbox(Kind);

#[derive(Debug)]
enum Kind {
    Latest(Writer<Slot>),
    Queue(Writer<Queue>),
}

/// Evaluates the same expression for both kinds.
macro_rules! of_either {
    ($outbox:expr, $writer:ident => $call:expr) => {
        match &$outbox.0 {
            Kind::Latest($writer) => $call,
            Kind::Queue($writer) => $call,
        }
    };
}

impl Outbox {
    /// Makes an outbox of one slot.
    pub(crate) fn latest() -> Self {
        Self(Kind::Latest(Writer::new(
            Slot::default(),
            WRITER_FRAMES_MAX,
        )))
    }

    /// Makes an outbox with a queue of at most `bytes_max` bytes.
    pub(crate) fn queue(bytes_max: usize) -> Self {
        Self(Kind::Queue(Writer::new(
            Queue::new(bytes_max),
            WRITER_BATCHES_MAX,
        )))
    }

    pub(crate) fn is_queue(&self) -> bool {
        matches!(self.0, Kind::Queue(_))
    }

    /// Takes a frame, and writes it if the rules of the outbox say so.
    pub(crate) fn put(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        of_either!(self, writer => writer.put(frame))
    }

    /// Takes the first of these frames, as many as there is room for and as are written together. Returns their number, or why no
    /// frame was taken.
    // Inlined always: for one frame, the compiler then removes the loops below, a quarter of all instructions of a call.
    #[inline(always)]
    pub(crate) fn put_all(&self, frames: &[&[u8]]) -> (Result<usize, Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Latest(latest) => put_one_by_one(latest, frames),
            Kind::Queue(queue) => queue.put_all(frames),
        }
    }

    /// Continues to write, since the socket is writable again or the loop was asked to write.
    pub(crate) fn resume(&self) -> LoopRequest {
        of_either!(self, writer => writer.resume())
    }

    /// Writes to this link from now on, perhaps in place of an older one. `held`: nothing is written before the link is
    /// [confirmed](Self::confirm).
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>, held: bool) -> LoopRequest {
        of_either!(self, writer => writer.attach(wire, held))
    }

    /// Lets the link that was attached last be written to, if it was held.
    pub(crate) fn confirm(&self) -> LoopRequest {
        of_either!(self, writer => writer.confirm())
    }

    /// The link has ended. Returns an upper bound of the number of frames that were written to it.
    pub(crate) fn detach(&self) -> u64 {
        of_either!(self, writer => writer.detach())
    }

    /// Discards the frames that wait, except those that are being written. Returns their number.
    pub(crate) fn discard(&self) -> u64 {
        of_either!(self, writer => writer.discard())
    }

    /// The peer is removed: frames that wait are discarded, and no more are accepted.
    pub(crate) fn close(&self) {
        of_either!(self, writer => writer.close());
    }

    /// Whether a frame waits for the peer. If so, the answer counts as a request for a link. If not, the next frame requests one.
    pub(crate) fn demand(&self) -> bool {
        of_either!(self, writer => writer.demand())
    }

    /// Why the link that was attached last cannot be written to. The loop calls this after [`LoopRequest::BROKEN`], before it ends
    /// a link: by then a new link may have replaced the broken one.
    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        of_either!(self, writer => writer.broken())
    }

    /// Whether every accepted frame has been written, replaced or discarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts().waiting == 0
    }

    pub(crate) fn counts(&self) -> SendCounts {
        of_either!(self, writer => writer.counts())
    }

    /// Blocks until the slot is free, or at least half of the queue, or the deadline has passed (`None`: no deadline). Returns
    /// whether there is room. A closed outbox has room: the next [`put`](Self::put) returns the error.
    pub(crate) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        of_either!(self, writer => writer.wait_for_room(deadline))
    }
}

/// Puts these frames into a slot, one after the other. If the slot is closed meanwhile, the frames before that were taken.
fn put_one_by_one(
    latest: &Writer<Slot>,
    frames: &[&[u8]],
) -> (Result<usize, Refusal>, LoopRequest) {
    let mut request = LoopRequest::NONE;
    for (taken, frame) in frames.iter().enumerate() {
        let (outcome, more) = latest.put(Bytes::copy_from_slice(frame));
        request = request.and(more);
        match outcome {
            Ok(_) => {}
            Err(refusal) if taken == 0 => return (Err(refusal), request),
            Err(_) => return (Ok(taken), request),
        }
    }
    (Ok(frames.len()), request)
}

#[cfg(all(test, loom))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{fixture::*, *};

    #[test]
    fn loom_who_waits_for_room_is_told_of_it() {
        for outbox in [Outbox::latest, || Outbox::queue(12)] {
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
    fn assert_told(outbox: fn() -> Outbox, make_room: fn(&Outbox)) {
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
    fn loom_room_made_by_the_end_of_a_link_is_told() {
        assert_told(
            || Outbox::queue(20),
            |outbox| {
                outbox.detach();
            },
        );
    }

    #[test]
    fn loom_room_made_by_closing_is_told() {
        assert_told(|| Outbox::queue(20), Outbox::close);
        // The third frame is written in part, so it is not in the slot: one more frame fills the slot.
        assert_told(
            || {
                let outbox = Outbox::latest();
                outbox.put(frame(0));
                outbox
            },
            |outbox| {
                outbox.put(frame(4));
                outbox.close();
            },
        );
    }
}

#[cfg(all(test, not(loom)))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod tests {
    use std::{fmt, io::IoSlice, thread};

    use super::{fixture::*, *};
    use crate::limits::WHOLE_FRAME_BYTES;

    #[test]
    fn who_waits_for_room_sleeps_until_there_is_some() {
        let pipe = Pipe::with_room(0);
        let outbox = Arc::new(Outbox::latest());
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.put(frame(1)).0, Ok(SendOutcome::Queued));
        let sleeper = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || outbox.wait_for_room(None))
        };
        while of_either!(outbox, writer => writer.waiters()) == 0 && !sleeper.is_finished() {
            thread::yield_now();
        }
        assert_eq!(outbox.put(frame(2)).0, Ok(SendOutcome::Superseded));
        assert!(!outbox.wait_for_room(Some(Instant::now())) && !sleeper.is_finished());
        pipe.make_room(100);
        outbox.resume();
        assert!(sleeper.join().unwrap());
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
    }

    #[test]
    fn room_made_by_the_end_of_a_link_is_told() {
        let outbox = Arc::new(Outbox::queue(20));
        outbox.attach(Pipe::with_room(13), false);
        for n in 1..=3 {
            assert_eq!(outbox.put(frame(n)).0, Ok(SendOutcome::Queued));
        }
        outbox.resume();
        assert!(
            !outbox.wait_for_room(Some(Instant::now())),
            "18 of 20 bytes are held"
        );
        let waiter = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || outbox.wait_for_room(None))
        };
        while of_either!(outbox, writer => writer.waiters()) == 0 {
            thread::yield_now();
        }
        outbox.detach();
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_slot_closed_between_two_frames_has_taken_the_first() {
        let outbox = Arc::new(Outbox::latest());
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

    /// A socket with room, whose outbox is closed while it is written to.
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
    fn a_payload_that_panics_when_freed_mutes_no_peer() {
        for outbox in [Outbox::latest(), Outbox::queue(1 << 20)] {
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
    fn a_demand_that_is_denied_is_made_anew_by_the_next_frame() {
        for outbox in [Outbox::latest(), Outbox::queue(1000)] {
            assert!(!outbox.demand(), "nothing waits");
            assert_eq!(outbox.put(frame(1)).1, LoopRequest::LINK);
            assert!(outbox.demand());
            // The loop knows already.
            assert_eq!(outbox.put(frame(2)).1, LoopRequest::NONE);
            outbox.attach(Pipe::with_room(100), false);
            outbox.resume();
            outbox.detach();
            assert!(!outbox.demand());
            assert_eq!(outbox.put(frame(3)).1, LoopRequest::LINK);
        }
    }

    #[test]
    fn of_many_frames_a_closed_slot_takes_none() {
        let outbox = Outbox::latest();
        assert_eq!(outbox.put_all(&[&[1], &[2]]).0, Ok(2));
        outbox.close();
        assert_eq!(
            outbox.put_all(&[&[3], &[4]]),
            (Err(Refusal::Closed), LoopRequest::NONE)
        );
        assert_balance(outbox.counts());
    }
}
