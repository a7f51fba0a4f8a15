//! A queue: all frames in order, encoded when they are sent, written in large batches.
//!
//! Nothing here makes a system call: [`Writer`](super::writer::Writer) does. A sender normally asks the loop to write, or does what it
//! would ask the loop for (`Shared::writes_here`). Once [`QUEUE_WRITE_BYTES`] wait, or half of what the queue may hold, the sender writes
//! them itself, while they are still in the cache of its processor.
//!
//! Invariants:
//!
//! - `frames` and the bytes of `pieces` are those that wait. `bytes` also has those of the batch that is being written, since they
//!   hold memory: a queue is full with both.
//! - Frames are written in the order in which they were put. A batch that returns stands in front of all others again.
//! - Each frame is written at most once: what a link has taken whole is counted as written when it ends, and never sent again.
//! - While `resume_requested` is true, the loop or the sender that has set it has yet to call `resume`. So of many frames, only the first
//!   asks for it.
//! - A closed queue holds no piece and no spare buffer.
//! - If there are spare buffers, the loop was asked to free them, or the thread that writes is about to ask it.
//! - `bytes` also has what is reserved for a [`Run`](super::run::Run) that a thread collects.

mod puts;

use std::{collections::VecDeque, mem, ops::RangeInclusive};

use super::{
    backlog::Backlog,
    batch::{Batch, Deferred, Piece},
    buffer::Buffer,
    clock::{Stamp, Stamps},
    types::{LoopRequest, Refusal, SendCounts},
};
use crate::limits::{BATCH_BYTES, PREFIX_BYTES, QUEUE_RUN_BYTES, QUEUE_WRITE_BYTES};

#[derive(Debug)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    /// Frames in `pieces`.
    frames: u64,
    /// Bytes of all frames that wait or are being written, prefixes included.
    bytes: usize,
    bytes_max: usize,
    /// Half of it.
    half: usize,
    /// The sender writes as soon as so many bytes wait.
    write_at: usize,
    /// Bytes of the longest frame that was refused for want of room since the queue was empty. Until there is room for such a frame,
    /// there is none for a thread that waits: it would be refused again at once.
    refused: usize,
    /// Buffers of runs that were written, for the next runs.
    spare: Vec<Buffer>,
    /// True exactly when a spare buffer was added or taken since the loop last called `release_unused`.
    spare_used: bool,
    /// True exactly when the loop was asked to call `release_unused`, and has not yet done so.
    release_requested: bool,
    /// True exactly when a sender was told to have the queue written, and nobody has begun to.
    resume_requested: bool,
    /// True exactly when nothing is accepted any more.
    sealed: bool,
    /// True exactly when nothing waits any more either.
    closed: bool,
    counts: SendCounts,
}

/// A backlog that has a queue.
pub(super) trait HasQueue: Backlog {
    fn queue(&mut self) -> &mut Queue;
}

impl HasQueue for Queue {
    #[inline(always)]
    fn queue(&mut self) -> &mut Queue {
        self
    }
}

impl Queue {
    /// Makes a queue of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            frames: 0,
            bytes: 0,
            bytes_max,
            half: bytes_max / 2,
            write_at: QUEUE_WRITE_BYTES.min(bytes_max / 2),
            refused: 0,
            spare: Vec::new(),
            spare_used: false,
            release_requested: false,
            resume_requested: false,
            sealed: false,
            closed: false,
            counts: SendCounts::default(),
        }
    }

    /// Why a frame of `len` bytes, prefix included, cannot be taken.
    fn refusal(&mut self, len: usize) -> Option<Refusal> {
        if self.sealed {
            Some(Refusal::Closed)
        } else if self.bytes + len > self.bytes_max {
            self.refused = self.refused.max(len);
            Some(Refusal::Full)
        } else {
            None
        }
    }

    /// Keeps room for frames that are not there yet: `wanted` bytes, or what there is, but at least `need`.
    pub(super) fn reserve(&mut self, need: usize, wanted: usize) -> Result<usize, Refusal> {
        if let Some(refusal) = self.refusal(need) {
            return Err(refusal);
        }
        if need >= self.refused {
            // Perhaps the one that was refused.
            self.refused = 0;
        }
        let reserved = wanted.min(self.bytes_max - self.bytes);
        self.bytes += reserved;
        Ok(reserved)
    }

    /// Adds frames for which so many bytes were reserved, and gives the rest of them back. If the queue takes nothing more, the frames are
    /// returned.
    pub(super) fn push_reserved(&mut self, piece: Piece, reserved: usize) -> Result<(), Piece> {
        self.bytes -= reserved;
        if self.sealed {
            return Err(piece);
        }
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        Ok(())
    }

    /// Gives back what was reserved for frames that do not come.
    pub(super) fn give_back(&mut self, reserved: usize) {
        self.bytes -= reserved;
        self.forget_refused_if_empty();
    }

    /// Counts frames that were taken before the queue was sealed, and came too late to be put into it.
    pub(super) fn discard_late(&mut self, frames: u64) {
        self.counts.accepted += frames;
        self.counts.discarded += frames;
    }

    /// Appends all frames to the last run, which is the usual case. Returns `false`, and takes none, if there is no room in it.
    #[inline(always)]
    fn encode_all(&mut self, frames: &[&[u8]], need: usize) -> bool {
        let Some(Piece::Run {
            bytes,
            frames: count,
            ..
        }) = self.pieces.back_mut()
        else {
            return false;
        };
        // There is no room in a sealed queue.
        if bytes.len() + need > QUEUE_RUN_BYTES || self.bytes + need > self.bytes_max {
            return false;
        }
        // Copied under the lock, which decides the order. Only short frames come here: a long one is copied by its sender
        // before.
        bytes.reserve(need);
        for frame in frames {
            bytes.append(frame);
        }
        *count += frames.len() as u64;
        self.bytes += need;
        true
    }

    /// Takes the first of these frames, as many as there is room for and as may be written together. Returns their number, or why
    /// no frame was taken.
    #[cold]
    fn encode_one_by_one(&mut self, frames: &[&[u8]], stamps: &Stamps) -> Result<usize, Refusal> {
        let mut bytes = 0;
        for (taken, frame) in frames.iter().enumerate() {
            let need = PREFIX_BYTES + frame.len();
            match self.refusal(need) {
                // Enough for one call: it is written while it is in the cache, and the loop does not wait longer for the lock.
                None if bytes >= QUEUE_RUN_BYTES => return Ok(taken),
                None => self.encode(frame, stamps),
                Some(refusal) if taken == 0 => return Err(refusal),
                Some(_) => return Ok(taken),
            }
            bytes += need;
        }
        Ok(frames.len())
    }

    fn encode(&mut self, frame: &[u8], stamps: &Stamps) {
        let need = PREFIX_BYTES + frame.len();
        self.bytes += need;
        let mut buffer = match self.pieces.back_mut() {
            Some(Piece::Run { bytes, frames, .. }) if bytes.len() + need <= QUEUE_RUN_BYTES => {
                bytes.append(frame);
                *frames += 1;
                return;
            }
            // If another large frame follows, a buffer for many small ones would stay almost empty.
            Some(Piece::Whole { .. }) => Buffer::default(),
            _ => self.take_spare(0..=2 * QUEUE_RUN_BYTES),
        };
        buffer.append(frame);
        self.pieces.push_back(Piece::Run {
            bytes: buffer,
            frames: 1,
            since: stamps.now(),
        });
    }

    /// Takes the pieces that are written together: of at most `bytes_max` bytes, or one longer piece.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Batch> {
        if self.pieces.is_empty() {
            return None;
        }
        let (mut count, mut bytes, mut frames) = (0, 0, 0);
        for piece in &self.pieces {
            // At least one piece, however long it is.
            if count > 0 && bytes + piece.len() > bytes_max {
                break;
            }
            count += 1;
            bytes += piece.len();
            frames += piece.frames();
        }
        self.frames -= frames;
        let later = self.pieces.split_off(count);
        Some(Batch {
            pieces: mem::replace(&mut self.pieces, later),
            frames,
            done: 0,
            gone: 0,
        })
    }

    /// Forgets which frames were refused: now all of them would fit.
    fn forget_refused_if_empty(&mut self) {
        if self.bytes == 0 {
            self.refused = 0;
        }
    }

    /// A buffer that was written, of a size in this range, or else a new one.
    pub(super) fn take_spare(&mut self, range: RangeInclusive<usize>) -> Buffer {
        let fits = |spare: &Buffer| range.contains(&spare.capacity());
        // From the end: the buffer that was written last is most likely in the cache.
        let spare = self.spare.iter().rposition(fits);
        spare.map_or_else(Buffer::default, |at| {
            self.spare_used = true;
            self.spare.remove(at)
        })
    }

    /// Keeps the buffer of a run for the next run.
    fn recycle(&mut self, piece: &mut Piece) {
        let Piece::Run { bytes, .. } = piece else {
            return;
        };
        let held: usize = self.spare.iter().map(Buffer::capacity).sum();
        if !self.closed && held + bytes.capacity() <= self.bytes_max {
            bytes.clear();
            self.spare.push(mem::take(bytes));
            self.spare_used = true;
        }
    }
}

impl Backlog for Queue {
    type InFlight = Batch;
    type Deferred = Deferred;

    fn first(&mut self) -> Option<Batch> {
        self.next(None, &mut Deferred::default())
    }

    /// The batch that was written in part, else as many pieces as are written together.
    fn next(&mut self, rest: Option<Batch>, _: &mut Deferred) -> Option<Batch> {
        rest.or_else(|| self.take(BATCH_BYTES))
    }

    fn on_blocked(&mut self, rest: Batch, _: &mut Deferred) -> Option<Batch> {
        Some(rest)
    }

    /// Puts back what the link has not taken, in front of the other pieces. A frame that was written in part is sent again from
    /// its start, since the peer never gets the rest of it over the old link.
    fn requeue(&mut self, mut rest: Batch, deferred: &mut Deferred) {
        // These have left whole. Whether the peer has read them is not known, and a queue sends no frame twice.
        for mut piece in rest.pieces.drain(..rest.gone) {
            self.counts.written += piece.frames();
            self.counts.bytes += piece.len() as u64;
            self.bytes -= piece.len();
            rest.frames -= piece.frames();
            self.recycle(&mut piece);
            deferred.pieces.get_or_insert_default().push_back(piece);
        }
        if let Some(piece) = rest.pieces.front_mut() {
            let (frames, bytes) = piece.cut(rest.done);
            self.counts.written += frames;
            self.counts.bytes += bytes as u64;
            self.bytes -= bytes;
            rest.frames -= frames;
        }
        if self.closed {
            self.counts.discarded += rest.frames;
            deferred
                .pieces
                .get_or_insert_default()
                .append(&mut rest.pieces);
            return;
        }
        self.frames += rest.frames;
        // The first piece may be a run that was cut: it keeps the frames that have not left whole, its first one from the
        // start.
        while let Some(piece) = rest.pieces.pop_back() {
            self.pieces.push_front(piece);
        }
    }

    fn on_written(&mut self, mut batch: Batch, deferred: &mut Deferred) {
        self.counts.written += batch.frames;
        for piece in &mut batch.pieces {
            self.counts.bytes += piece.len() as u64;
            self.bytes -= piece.len();
            self.recycle(piece);
        }
        self.forget_refused_if_empty();
        deferred
            .pieces
            .get_or_insert_default()
            .append(&mut batch.pieces);
    }

    fn on_loop_resume(&mut self) {
        self.resume_requested = false;
    }

    fn has_waiting(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Whether at least half of the bytes are free, and as many as the longest refused frame needs.
    fn has_room(&self) -> bool {
        (self.bytes <= self.half && self.bytes + self.refused <= self.bytes_max) || self.sealed
    }

    fn request_release(&mut self) -> LoopRequest {
        if self.spare.is_empty() || mem::replace(&mut self.release_requested, true) {
            LoopRequest::NONE
        } else {
            LoopRequest::RELEASE
        }
    }

    fn release_buffers(&mut self, deferred: &mut Deferred) {
        if !self.spare.is_empty() {
            // To free a large buffer may be a system call, so that it is done after the lock is released.
            deferred.spare = Some(mem::take(&mut self.spare));
        }
    }

    fn seal(&mut self) {
        self.sealed = true;
        // So that a frame need not look at `sealed`: `encode_all` finds no room for it.
        self.bytes_max = 0;
    }

    fn close(&mut self, deferred: &mut Deferred) {
        self.seal();
        self.closed = true;
        self.discard(deferred);
        self.release_buffers(deferred);
    }

    fn discard(&mut self, deferred: &mut Deferred) {
        // The bytes of a batch that is being written stay in `bytes`: its writer takes them off.
        self.counts.discarded += mem::take(&mut self.frames);
        self.bytes -= self.pieces.iter().map(Piece::len).sum::<usize>();
        self.forget_refused_if_empty();
        deferred
            .pieces
            .get_or_insert_default()
            .append(&mut self.pieces);
    }

    fn oldest(&self, owed_since: Option<Stamp>) -> Option<Stamp> {
        self.pieces.front().map(Piece::since).or(owed_since)
    }

    fn counts(&self) -> SendCounts {
        SendCounts {
            waiting: self.frames,
            ..self.counts
        }
    }

    fn slot_counts(&self) -> SendCounts {
        SendCounts::default()
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
