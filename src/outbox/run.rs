//! Frames that a thread copies without the lock of the queue: one long one, or a run of short ones.
//!
//! Nothing here is shared. Their bytes are a part of the queue's from the time when room is reserved for them, so that there is room when
//! they are put into it.

use std::mem;

use super::{
    batch::Piece,
    buffer::Buffer,
    clock::Stamp,
    queue::HasQueue,
    state::Transition,
    types::{LoopRequest, Refusal, SendOutcome},
    writer::Writer,
};
use crate::limits::{PREFIX_BYTES, QUEUE_RUN_BYTES};

/// A run that is being collected.
#[derive(Debug, Default)]
pub(crate) struct Run {
    bytes: Buffer,
    frames: u64,
    /// Bytes of the queue that are kept for this run. Not less than `bytes` has.
    reserved: usize,
    /// When room was reserved for the first frame.
    since: Option<Stamp>,
}

impl Run {
    /// The longest payload for which there is room.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        (self.reserved - self.bytes.len()).saturating_sub(PREFIX_BYTES)
    }

    /// Adds a frame of so many bytes, for which there is room, and which `fill` writes.
    #[inline(always)]
    pub(crate) fn append_with(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) {
        self.bytes.append_with(payload_len, fill);
        self.frames += 1;
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }
}

impl<S: HasQueue> Writer<S> {
    /// Reserves room in the queue for this run, which is empty: for a full one, or for less if the queue has no more, but at least for
    /// `need` bytes.
    pub(super) fn reserve(&self, run: &mut Run, need: usize) -> Result<(), Refusal> {
        let since = self.stamps().now();
        run.reserved = self
            .transition()
            .backlog
            .queue()
            .reserve(need, QUEUE_RUN_BYTES)?;
        run.since = Some(since);
        Ok(())
    }

    /// Takes a long frame of so many bytes. `fill` writes it without the lock, into a buffer that an earlier frame has left.
    #[cold]
    pub(super) fn put_long(
        &self,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        let need = PREFIX_BYTES + payload_len;
        let since = self.stamps().now();
        let mut state = self.transition();
        if let Err(refusal) = state.backlog.queue().reserve(need, need) {
            return (Err(refusal), LoopRequest::NONE);
        }
        // At most half of it stays empty: see `Config::max_memory`.
        let mut bytes = state.backlog.queue().take_spare(need..=2 * need);
        drop(state);
        let reserved = GiveBackOnPanic {
            writer: self,
            bytes: need,
        };
        bytes.reserve_exact(need);
        bytes.append_with(payload_len, fill);
        let piece = Piece::Run {
            bytes,
            frames: 1,
            since,
        };
        let (put, request) = self.push(self.transition(), piece, reserved.into_bytes());
        (put.map(|()| SendOutcome::Queued), request)
    }

    /// Puts the frames of this run into the queue, and leaves the run empty. If the queue takes nothing more, the caller counts them.
    pub(super) fn put_run(&self, run: &mut Run) -> (Result<(), Refusal>, LoopRequest) {
        let Some(since) = run.since.take() else {
            return (Ok(()), LoopRequest::NONE);
        };
        let reserved = mem::take(&mut run.reserved);
        let frames = mem::take(&mut run.frames);
        let mut state = self.transition();
        if frames == 0 {
            // The application has panicked while it wrote the first one.
            state.backlog.queue().give_back(reserved);
            return (Ok(()), LoopRequest::NONE);
        }
        let spare = state
            .backlog
            .queue()
            .take_spare(QUEUE_RUN_BYTES..=2 * QUEUE_RUN_BYTES);
        let bytes = mem::replace(&mut run.bytes, spare);
        let piece = Piece::Run {
            bytes,
            frames,
            since,
        };
        let put = self.push(state, piece, reserved);
        run.bytes.reserve_exact(QUEUE_RUN_BYTES);
        put
    }

    /// Counts frames that were taken before the queue was sealed, and came too late to be put into it.
    pub(super) fn discard_late(&self, frames: u64) {
        self.transition().backlog.queue().discard_late(frames);
    }

    /// Adds frames for which so many bytes are reserved.
    fn push(
        &self,
        mut state: Transition<'_, S>,
        piece: Piece,
        reserved: usize,
    ) -> (Result<(), Refusal>, LoopRequest) {
        let frames = piece.frames();
        if let Err(piece) = state.backlog.queue().push_reserved(piece, reserved) {
            drop(state);
            drop(piece);
            return (Err(Refusal::Closed), LoopRequest::NONE);
        }
        let request = state.accepted(frames as usize);
        drop(state);
        (Ok(()), request.unwrap_or_else(|| self.write_here()))
    }
}

/// Room that is reserved while the application writes a frame.
struct GiveBackOnPanic<'a, S: HasQueue> {
    writer: &'a Writer<S>,
    bytes: usize,
}

impl<S: HasQueue> GiveBackOnPanic<'_, S> {
    fn into_bytes(mut self) -> usize {
        mem::take(&mut self.bytes)
    }
}

impl<S: HasQueue> Drop for GiveBackOnPanic<'_, S> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.writer
                .transition()
                .backlog
                .queue()
                .give_back(self.bytes);
        }
    }
}
