//! One slot: a newer frame replaces one that is not being written, and the last frame written is kept for the next link.
//!
//! Nothing here chooses the thread that writes: see [`Writer`]. A sender that finds no writer writes its frame itself.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::{
    types::{LoopRequest, Refusal, SendCounts, SendOutcome, Wire},
    writer::{self, Backlog, InFlight, Progress, Writer},
};
use crate::sync::release;

#[derive(Debug, Default)]
pub(super) struct Slot {
    next: Option<Bytes>,
    /// The last frame that was written to its end, for the next link.
    last: Option<Bytes>,
    /// True exactly when nothing is accepted any more.
    closed: bool,
    counts: SendCounts,
}

/// A frame of which `done` bytes, prefix included, have been written.
#[derive(Debug)]
pub(super) struct PartialFrame {
    frame: Bytes,
    done: usize,
    /// True exactly when the frame was accepted and is not counted yet. False for the last frame, which is written once more.
    fresh: bool,
}

/// Frames that are no longer needed, at most one of each kind.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    requeued: Option<Bytes>,
    last: Option<Bytes>,
    slot: Option<Bytes>,
}

impl writer::Deferred for Deferred {
    #[inline]
    fn release(self) {
        // Not a loop: this is on the path of every frame.
        if let Some(frame) = self.last {
            release(frame);
        }
        if let Some(frame) = self.slot {
            release(frame);
        }
        if let Some(frame) = self.requeued {
            release(frame);
        }
    }
}

impl Writer<Slot> {
    /// Takes a frame, and writes it at once if no thread writes and the socket is not full.
    pub(super) fn put(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        let mut state = self.transition();
        if state.backlog.closed {
            // `frame` is a parameter, so it is dropped last, after the lock is released.
            return (Err(Refusal::Closed), LoopRequest::NONE);
        }
        state.backlog.counts.accepted += 1;
        let wire = state.acquire();
        // If there is an older frame although no thread writes, the loop was asked to write it and has not done so yet.
        let older = state.backlog.next.take();
        state.backlog.counts.superseded += u64::from(older.is_some());
        if let Some(wire) = wire {
            let partial = PartialFrame::fresh(frame);
            state.mark_writing(&partial);
            drop(state);
            if let Some(older) = older {
                release(older);
            }
            return match self.write(wire, partial) {
                (true, request) => (Ok(SendOutcome::Written), request),
                (false, request) => (Ok(SendOutcome::Queued), request),
            };
        }
        state.backlog.next = Some(frame);
        let request = state.want_link();
        drop(state);
        let Some(older) = older else {
            return (Ok(SendOutcome::Queued), request);
        };
        release(older);
        (Ok(SendOutcome::Superseded), request)
    }
}

impl Slot {
    /// Returns an accepted frame of which no byte was written to the slot, unless the slot has a newer one.
    #[inline]
    fn requeue_unsent(
        &mut self,
        partial: Option<PartialFrame>,
        deferred: &mut Deferred,
    ) -> Option<PartialFrame> {
        match partial {
            Some(partial) if partial.done == 0 && partial.fresh => {
                self.requeue(partial, deferred);
                None
            }
            partial => partial,
        }
    }
}

impl Backlog for Slot {
    type InFlight = PartialFrame;
    type Deferred = Deferred;

    /// The frame in the slot, else the last frame once more.
    fn first(&mut self) -> Option<PartialFrame> {
        match self.next.take() {
            Some(frame) => Some(PartialFrame::fresh(frame)),
            None => self.last.clone().map(|frame| PartialFrame {
                frame,
                done: 0,
                fresh: false,
            }),
        }
    }

    /// The partial frame, unless no byte of it was written and the slot has a newer one.
    #[inline]
    fn next(
        &mut self,
        partial: Option<PartialFrame>,
        deferred: &mut Deferred,
    ) -> Option<PartialFrame> {
        match self.requeue_unsent(partial, deferred) {
            Some(partial) if partial.done > 0 || self.next.is_none() => Some(partial),
            last => {
                if let Some(last) = last {
                    self.requeue(last, deferred);
                }
                self.next.take().map(PartialFrame::fresh)
            }
        }
    }

    fn on_blocked(
        &mut self,
        partial: PartialFrame,
        deferred: &mut Deferred,
    ) -> Option<PartialFrame> {
        self.requeue_unsent(Some(partial), deferred)
    }

    /// The frame waits again, unless the slot has a newer one.
    fn requeue(&mut self, partial: PartialFrame, deferred: &mut Deferred) {
        let PartialFrame { frame, fresh, .. } = partial;
        // If it is not fresh, it is the last frame, which is kept anyway.
        if fresh {
            if self.closed {
                self.counts.discarded += 1;
            } else if self.next.is_some() {
                self.counts.superseded += 1;
            } else {
                self.next = Some(frame);
                return;
            }
        }
        deferred.requeued = Some(frame);
    }

    /// Keeps the frame as the last one, in place of the one before.
    #[inline]
    fn on_written(&mut self, partial: PartialFrame, deferred: &mut Deferred) {
        if partial.fresh {
            self.counts.written += 1;
        } else {
            self.counts.resent += 1;
        }
        self.counts.bytes += partial.done as u64;
        deferred.last = if self.closed {
            Some(partial.frame)
        } else {
            self.last.replace(partial.frame)
        };
    }

    fn on_loop_resume(&mut self) {}

    fn has_waiting(&self) -> bool {
        self.next.is_some()
    }

    fn has_room(&self) -> bool {
        self.next.is_none() || self.closed
    }

    fn release_buffers(&mut self, _: &mut Deferred) {}

    fn close(&mut self, deferred: &mut Deferred) {
        self.closed = true;
        self.discard(deferred);
        deferred.last = self.last.take();
    }

    fn discard(&mut self, deferred: &mut Deferred) {
        deferred.slot = self.next.take();
        self.counts.discarded += u64::from(deferred.slot.is_some());
    }

    fn counts(&self) -> SendCounts {
        SendCounts {
            waiting: u64::from(self.next.is_some()),
            ..self.counts
        }
    }
}

impl PartialFrame {
    fn fresh(frame: Bytes) -> Self {
        Self {
            frame,
            done: 0,
            fresh: true,
        }
    }
}

impl InFlight for PartialFrame {
    #[inline]
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        // The public calls refuse longer frames.
        let len = u32::try_from(self.frame.len()).expect("a frame is at most 512 KiB long");
        let prefix = len.to_be_bytes();
        loop {
            let written = match self.done.checked_sub(prefix.len()) {
                None => wire.write(&[
                    IoSlice::new(&prefix[self.done..]),
                    IoSlice::new(&self.frame),
                ]),
                Some(at) => wire.write(&[IoSlice::new(&self.frame[at..])]),
            };
            match written {
                // A socket that accepts no byte without an error will accept none later.
                Ok(0) => return Progress::Broken(io::ErrorKind::WriteZero),
                Ok(n) => self.done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Progress::Broken(error.kind()),
            }
            if self.done == prefix.len() + self.frame.len() {
                return Progress::Done;
            }
        }
    }

    fn frames(&self) -> u64 {
        u64::from(self.fresh)
    }
}

#[cfg(all(test, loom))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{super::fixture::*, *};

    #[test]
    fn loom_of_two_callers_at_once_no_frame_is_left_behind() {
        loom::model(|| {
            let pipe = Pipe::with_room(usize::MAX);
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(pipe.clone(), false);
            let other = {
                let outbox = LoomArc::clone(&outbox);
                thread::spawn(move || outbox.put(frame(1)))
            };
            outbox.put(frame(2));
            other.join().unwrap();
            let (frames, whole) = pipe.frames();
            assert!(whole);
            let counts = outbox.counts();
            assert_eq!((counts.accepted, counts.waiting), (2, 0));
            assert_eq!(counts.written + counts.superseded, 2);
            assert_eq!(frames.len() as u64, counts.written);
        });
    }

    #[test]
    fn loom_an_edge_while_somebody_writes_is_not_lost() {
        loom::model(|| {
            // Room for half a frame: the writer finds the socket full while the loop makes room.
            let pipe = Pipe::with_room(3);
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(pipe.clone(), false);
            let the_loop = {
                let (outbox, pipe) = (LoomArc::clone(&outbox), pipe.clone());
                thread::spawn(move || {
                    // The socket becomes writable once, and not again.
                    pipe.make_room(100);
                    outbox.resume();
                })
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            let (frames, whole) = pipe.frames();
            assert!(whole, "the remainder was left behind");
            assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
            assert_eq!(outbox.counts().waiting, 0);
            assert_balance(outbox.counts());
        });
    }

    #[test]
    fn loom_a_new_link_under_a_writer_gets_the_newest_frame() {
        loom::model(|| {
            let (old, new) = (Pipe::with_room(3), Pipe::with_room(usize::MAX));
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(old, false);
            let the_loop = {
                let (outbox, new) = (LoomArc::clone(&outbox), new.clone());
                thread::spawn(move || {
                    outbox.detach();
                    outbox.attach(new, false);
                })
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            let (frames, whole) = new.frames();
            assert!(whole);
            assert!(
                frames.is_sorted(),
                "an older frame came after a newer one: {frames:?}"
            );
            assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
            assert_balance(outbox.counts());
        });
    }

    #[test]
    fn loom_closing_under_a_writer_accounts_for_every_frame() {
        loom::model(|| {
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(Pipe::with_room(3), false);
            let the_loop = {
                let outbox = LoomArc::clone(&outbox);
                thread::spawn(move || outbox.close())
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            assert_eq!(outbox.counts().waiting, 0);
            assert_balance(outbox.counts());
        });
    }
}

#[cfg(all(test, not(loom)))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod tests {
    use std::sync::Arc;

    use super::{super::fixture::*, *};

    #[test]
    fn a_frame_is_written_where_it_is_put() {
        let (pipe, outbox) = (
            Pipe::with_room(usize::MAX),
            Writer::new(Slot::default(), 16),
        );
        assert_eq!(outbox.attach(pipe.clone(), false), LoopRequest::NONE);
        assert_eq!(
            outbox.put(frame(1)),
            (Ok(SendOutcome::Written), LoopRequest::NONE)
        );
        assert_eq!(pipe.frames(), (vec![vec![1, 1]], true));
    }

    #[test]
    fn without_a_link_the_newest_waits_and_the_loop_is_asked_once() {
        let outbox = Writer::new(Slot::default(), 16);
        assert_eq!(
            outbox.put(frame(1)),
            (Ok(SendOutcome::Queued), LoopRequest::LINK)
        );
        assert_eq!(
            outbox.put(frame(2)),
            (Ok(SendOutcome::Superseded), LoopRequest::NONE)
        );
        let pipe = Pipe::with_room(usize::MAX);
        outbox.attach(pipe.clone(), false);
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_frame_that_has_begun_is_finished_and_one_that_has_not_is_replaced() {
        let (pipe, outbox) = (Pipe::with_room(8), Writer::new(Slot::default(), 16));
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.put(frame(1)).0, Ok(SendOutcome::Written));
        assert_eq!(
            outbox.put(frame(2)).0,
            Ok(SendOutcome::Queued),
            "two of its bytes have left"
        );
        assert_eq!(outbox.put(frame(3)).0, Ok(SendOutcome::Queued));
        assert_eq!(outbox.put(frame(4)).0, Ok(SendOutcome::Superseded));
        pipe.make_room(100);
        outbox.resume();
        assert_eq!(
            pipe.frames(),
            (vec![vec![1, 1], vec![2, 2], vec![4, 4]], true)
        );
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_frame_of_which_nothing_has_left_can_be_replaced() {
        let (pipe, outbox) = (Pipe::with_room(6), Writer::new(Slot::default(), 16));
        outbox.attach(pipe.clone(), false);
        outbox.put(frame(1));
        assert_eq!(
            outbox.put(frame(2)).0,
            Ok(SendOutcome::Queued),
            "the socket is full"
        );
        assert_eq!(outbox.put(frame(3)).0, Ok(SendOutcome::Superseded));
        pipe.make_room(100);
        outbox.resume();
        assert_eq!(pipe.frames(), (vec![vec![1, 1], vec![3, 3]], true));
    }

    #[test]
    fn the_last_frame_goes_over_a_new_link_once_more() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.detach();
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![1, 1]], true));
        assert_eq!((outbox.counts().written, outbox.counts().resent), (1, 1));
    }

    #[test]
    fn a_waiting_frame_goes_over_a_new_link_in_place_of_the_last() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.detach();
        outbox.put(frame(2));
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_eq!(outbox.counts().resent, 0);
    }

    #[test]
    fn a_frame_cut_off_by_the_end_of_its_link_waits_again() {
        let (old, new, outbox) = (
            Pipe::with_room(9),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.put(frame(2));
        outbox.detach();
        assert_eq!(outbox.counts().waiting, 1);
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_last_frame_that_has_not_begun_gives_way_to_a_newer_one() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(0),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.attach(new.clone(), false);
        outbox.put(frame(2));
        new.make_room(100);
        outbox.resume();
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_broken_link_is_forgotten_when_a_new_one_is_attached() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.attach(Arc::new(Cut), false);
        assert_eq!(
            outbox.put(frame(1)),
            (Ok(SendOutcome::Queued), LoopRequest::BROKEN)
        );
        assert_eq!(
            outbox.put(frame(2)),
            (Ok(SendOutcome::Superseded), LoopRequest::NONE)
        );
        assert_eq!(outbox.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.broken(), None);
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_socket_that_takes_nothing_of_something_is_broken() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.attach(Arc::new(Stuck), false);
        assert_eq!(
            outbox.put(frame(1)),
            (Ok(SendOutcome::Queued), LoopRequest::BROKEN)
        );
        assert_eq!(outbox.broken(), Some(io::ErrorKind::WriteZero));
        assert_eq!(outbox.counts().waiting, 1);
    }

    #[test]
    fn a_frame_that_has_begun_over_a_link_that_is_replaced_begins_anew() {
        let (old, new, outbox) = (
            Pipe::with_room(3),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        assert_eq!(outbox.put(frame(1)).0, Ok(SendOutcome::Queued));
        // The older link is not detached before.
        assert_eq!(outbox.attach(new.clone(), false), LoopRequest::NONE);
        assert_eq!(new.frames(), (vec![vec![1, 1]], true));
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    }

    #[test]
    fn a_frame_put_while_the_last_one_goes_over_a_link_that_ends_asks_for_another() {
        let outbox = Arc::new(Writer::new(Slot::default(), 16));
        outbox.attach(Pipe::with_room(100), false);
        outbox.put(frame(1));
        let meanwhile = Arc::clone(&outbox);
        let request = outbox.attach(
            Arc::new(Meanwhile(move || {
                // The loop finds no frame that waits, so it does not ask for a link.
                meanwhile.detach();
                assert!(meanwhile.counts().waiting == 0);
                assert_eq!(
                    meanwhile.put(frame(2)),
                    (Ok(SendOutcome::Queued), LoopRequest::NONE)
                );
            })),
            false,
        );
        assert_eq!(request, LoopRequest::LINK);
        assert_eq!(
            outbox.put(frame(3)),
            (Ok(SendOutcome::Superseded), LoopRequest::NONE)
        );
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(pipe.frames(), (vec![vec![3, 3]], true));
        assert_balance(outbox.counts());
    }

    /// A full socket. While it is written to, the function is called.
    struct Meanwhile<F>(F);

    impl<F: Fn() + Send + Sync> Wire for Meanwhile<F> {
        fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            (self.0)();
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    impl<F> std::fmt::Debug for Meanwhile<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Meanwhile")
        }
    }

    #[test]
    fn a_closed_outbox_takes_nothing_and_discards_what_waits() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.put(frame(1));
        outbox.close();
        assert_eq!(
            outbox.put(frame(2)),
            (Err(Refusal::Closed), LoopRequest::NONE)
        );
        assert_eq!(outbox.counts().discarded, 1);
        assert_balance(outbox.counts());
    }
}
