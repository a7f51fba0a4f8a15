//! Puts frames into a queue, and says what is left for the loop.
//!
//! Nothing here makes a system call: [`Writer`] does.

use std::mem;

use bytes::Bytes;

use super::{
    super::{
        backlog::Backlog,
        batch::{Deferred, Piece},
        buffer::prefix_of,
        clock::Stamps,
        state::State,
        types::{LoopRequest, Refusal, SendOutcome},
        writer::Writer,
    },
    HasQueue,
};
use crate::limits::{PREFIX_BYTES, WHOLE_FRAME_BYTES};

impl<S: HasQueue> Writer<S> {
    /// Takes a frame.
    // Not inlined: the callers of a slot would save registers for it. What many callers do, `put_all` of one short frame, has no need of it.
    #[inline(never)]
    pub(in crate::outbox) fn put(
        &self,
        frame: Bytes,
    ) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        if frame.len() < WHOLE_FRAME_BYTES {
            let (taken, request) = self.put_all(&[&frame]);
            return (taken.map(|_| SendOutcome::Queued), request);
        }
        self.put_whole(frame)
    }

    /// Takes a large frame, which is not copied.
    // Not inlined, so that a small frame saves fewer registers.
    #[inline(never)]
    fn put_whole(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        let need = PREFIX_BYTES + frame.len();
        // Outside of the lock: the time is read for each long frame, and for each run of short ones.
        let since = self.stamps().now();
        let mut state = self.transition();
        if let Err(refusal) = state.backlog.queue().reserve(need, need) {
            // `frame` is a parameter, so it is dropped last, after the lock is released.
            return (Err(refusal), LoopRequest::NONE);
        }
        state.backlog.queue().pieces.push_back(Piece::Whole {
            prefix: prefix_of(frame.len()),
            frame,
            since,
        });
        let request = state.accepted(1);
        drop(state);
        (
            Ok(SendOutcome::Queued),
            request.unwrap_or_else(|| self.write_here()),
        )
    }

    /// Takes the first of these frames, as many as there is room for and as are written together. Returns their number, or why no
    /// frame was taken.
    #[inline(always)]
    pub(in crate::outbox) fn put_all(
        &self,
        frames: &[&[u8]],
    ) -> (Result<usize, Refusal>, LoopRequest) {
        let need = frames.iter().map(|frame| PREFIX_BYTES + frame.len()).sum();
        let (taken, request) = self.transition().put_all(frames, need, self.stamps());
        (taken, request.unwrap_or_else(|| self.write_here()))
    }

    /// Frees the spare buffers, if none was used since the last call. Else the loop is asked to call this again.
    pub(in crate::outbox) fn release_unused(&self) -> LoopRequest {
        let mut deferred = Deferred::default();
        let mut state = self.transition();
        let queue = state.backlog.queue();
        queue.release_requested = false;
        if !mem::take(&mut queue.spare_used) {
            queue.release_buffers(&mut deferred);
        }
        let request = queue.request_release();
        // The buffers are freed after this, without the lock.
        drop(state);
        request
    }

    /// Writes the frames that wait, unless another thread writes.
    #[cold]
    pub(in crate::outbox) fn write_here(&self) -> LoopRequest {
        let mut state = self.transition();
        // The lock was released after the frames were put, and the link was idle then. If it no longer is, the loop need not be
        // asked: another writer looks at the backlog again, a full socket is followed by an edge, the probation of a link ends in another call, and when
        // a link ends, the loop counts the frames that wait as demand.
        let Some(wire) = state.acquire() else {
            return LoopRequest::NONE;
        };
        let mut deferred = S::Deferred::default();
        let batch = state.backlog.next(None, &mut deferred);
        let next = state.proceed(wire, batch);
        self.leave(state, next, deferred)
    }
}

/// What is left for the loop. `None` if so many bytes wait that the sender writes them itself.
pub(in crate::outbox) type LeftToLoop = Option<LoopRequest>;

impl<S: HasQueue> State<S> {
    #[inline(always)]
    fn put_all(
        &mut self,
        frames: &[&[u8]],
        need: usize,
        stamps: &Stamps,
    ) -> (Result<usize, Refusal>, LeftToLoop) {
        if self.backlog.queue().encode_all(frames, need) {
            return (Ok(frames.len()), self.accepted(frames.len()));
        }
        match self.backlog.queue().encode_one_by_one(frames, stamps) {
            Ok(taken) => (Ok(taken), self.accepted(taken)),
            Err(refusal) => (Err(refusal), Some(LoopRequest::NONE)),
        }
    }

    /// Counts frames that were taken.
    #[inline(always)]
    pub(in crate::outbox) fn accepted(&mut self, frames: usize) -> LeftToLoop {
        let queue = self.backlog.queue();
        queue.counts.accepted += frames as u64;
        queue.frames += frames as u64;
        // A thread that writes looks at the backlog again, and a full socket is followed by an edge. Only without a link the
        // loop must be asked.
        if !self.is_idle() {
            return Some(self.want_link());
        }
        // Not written under this lock, which other senders need: see `write_here`.
        let queue = self.backlog.queue();
        if queue.bytes >= queue.write_at {
            return None;
        }
        Some(if mem::replace(&mut queue.resume_requested, true) {
            LoopRequest::NONE
        } else {
            LoopRequest::RESUME
        })
    }
}
