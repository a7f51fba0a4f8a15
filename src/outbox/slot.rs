//! One slot: a newer frame replaces one that is not being written, and the last frame written is kept for the next link.
//!
//! Nothing here makes a system call: [`Writer`] does. A sender that finds no writer writes its frame itself.
//!
//! Invariants:
//!
//! - A frame in the slot is newer than the one that is being written, and that one is `last` itself or newer. So no frame is
//!   written after a newer one, and a frame that returns to the slot gives way to one that is there.
//! - A frame of which a byte was written is finished over the same link before another one. If the link ends before, it is begun anew
//!   over the next link, or superseded by a newer one that waits.
//! - `last` is not counted as waiting: it was counted as written before.
//! - A closed slot holds no frame, and gets none back from a writer.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::{
    backlog::{self, Backlog, InFlight, Progress},
    clock::Stamp,
    control::Job,
    types::{LoopRequest, Refusal, SendCounts, SendOutcome, Wire},
    writer::Writer,
};
use crate::sync::{release, yield_now};

#[derive(Debug, Default)]
pub(super) struct Slot {
    next: Option<Bytes>,
    /// The last frame that was written to its end, for the next link.
    last: Option<Bytes>,
    /// True exactly when nothing is accepted any more.
    sealed: bool,
    /// True exactly when nothing waits any more either.
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

impl backlog::Deferred for Deferred {
    // Inlined always: else a frame is passed through memory once more.
    #[inline(always)]
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

/// A backlog that has a slot.
pub(super) trait HasSlot: Backlog<InFlight: From<PartialFrame>> {
    fn slot(&mut self) -> &mut Slot;
}

impl HasSlot for Slot {
    #[inline(always)]
    fn slot(&mut self) -> &mut Slot {
        self
    }
}

impl<S: HasSlot> Writer<S> {
    /// Takes a frame for the slot, and writes it at once if no thread writes and the socket is not full.
    pub(super) fn put_latest(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        let mut state = self.transition();
        if state.backlog.slot().sealed {
            // `frame` is a parameter, so it is dropped last, after the lock is released.
            return (Err(Refusal::Closed), LoopRequest::NONE);
        }
        state.backlog.slot().counts.accepted += 1;
        let wire = state.acquire();
        // If there is an older frame although no thread writes, the loop was asked to write it and has not done so yet.
        let older = state.backlog.slot().next.take();
        state.backlog.slot().counts.superseded += u64::from(older.is_some());
        if let Some(wire) = wire {
            let partial = Job::Frames(PartialFrame::fresh(frame).into());
            // The lock is released for the system call. Only this thread ends `Writing`. Meanwhile other threads put frames, and the
            // loop leaves an edge or a handover.
            state.mark_writing(&partial);
            drop(state);
            // Code of the application may run here, and may send to this peer. It finds a writer, and its frame, which is
            // newer, is written after this one.
            if let Some(older) = older {
                release(older);
            }
            return match self.write(wire, partial) {
                (true, request) => (Ok(SendOutcome::Written), request),
                (false, request) => (Ok(SendOutcome::Queued), request),
            };
        }
        // Frame and request under one lock. An `attach` or `detach` that comes later finds the frame; one that came before has
        // decided whether there is a link.
        state.backlog.slot().next = Some(frame);
        let Some(older) = older else {
            state.start_waiting(self.stamps());
            let request = state.want_link();
            drop(state);
            return (Ok(SendOutcome::Queued), request);
        };
        // No request: the older frame has made it, or the loop has just detached a link, and is about to look what waits.
        let another_writes = state.is_writing();
        drop(state);
        release(older);
        if another_writes {
            // Several threads send faster than one of them can write. Where there are more of them than processors, the writer may be
            // waiting for one while all others only replace each other's frames.
            yield_now();
        }
        (Ok(SendOutcome::Superseded), LoopRequest::NONE)
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
            // Not the last frame, when it is written once more: it is kept as `last` already, and must not count as waiting.
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
        // The last frame stays in `last` as well: this link may end before the frame is written again.
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
            // A partial frame that has begun, or a last frame that nothing newer waits to replace.
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
            // Closed while a thread was writing: `close` has found the slot without this frame, so it is counted here.
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
        // A closed slot gets no link any more for which the frame would be kept.
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
        self.next.is_none() || self.sealed
    }

    #[inline(always)]
    fn request_release(&mut self) -> LoopRequest {
        LoopRequest::NONE
    }

    fn release_buffers(&mut self, _: &mut Deferred) {}

    fn seal(&mut self) {
        self.sealed = true;
    }

    fn close(&mut self, deferred: &mut Deferred) {
        self.seal();
        self.closed = true;
        self.discard(deferred);
        deferred.last = self.last.take();
    }

    fn discard(&mut self, deferred: &mut Deferred) {
        deferred.slot = self.next.take();
        self.counts.discarded += u64::from(deferred.slot.is_some());
    }

    // A newer frame that replaces the one in the slot is owed for as long.
    fn oldest(&self, owed_since: Option<Stamp>) -> Option<Stamp> {
        owed_since
    }

    fn counts(&self) -> SendCounts {
        SendCounts {
            waiting: u64::from(self.next.is_some()),
            ..self.counts
        }
    }

    fn slot_counts(&self) -> SendCounts {
        self.counts()
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
    // Inlined always: the writer of a slot has it in its loop, which saves the registers once.
    #[inline(always)]
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        // The public calls refuse longer frames.
        let len = u32::try_from(self.frame.len()).expect("a frame is at most 512 KiB long");
        let prefix = len.to_be_bytes();
        loop {
            // Prefix and payload with one call. With two there would be two packets, since `TCP_NODELAY` is set. The prefix is
            // made anew for the rest of a frame: 4 bytes that need no place in the state.
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

    fn oldest(&self) -> Option<Stamp> {
        None
    }
}

#[cfg(all(test, loom))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod loom_tests;

#[cfg(all(test, not(loom)))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod tests;
