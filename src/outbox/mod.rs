//! The outbox of one peer, of any kind: the frames that wait for it.
//!
//! Nothing is decided here: a [`Slot`], a [`Queue`] or both as [`Lanes`] hold the frames, and a [`Writer`] writes them.

mod backlog;
mod batch;
mod buffer;
mod clock;
mod control;
#[cfg(test)]
mod fixture;
mod lanes;
mod queue;
mod run;
mod slot;
mod state;
mod types;
mod writer;

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    copy,
    limits::{WRITER_BATCHES_MAX, WRITER_FRAMES_MAX, WRITER_RUNS_MAX},
    proto::Controls,
};

use lanes::Lanes;
use queue::Queue;
use slot::Slot;
use writer::Writer;

pub use clock::Clock;
pub(crate) use run::Run;
pub(crate) use types::{LoopRequest, Refusal, SendCounts};
pub use types::{SendOutcome, Wire};

/// The outbox of one peer.
#[derive(Debug)]
pub(crate) struct PeerOutbox(Kind);

#[derive(Debug)]
enum Kind {
    Latest(Writer<Slot>),
    Queue(Writer<Queue>),
    Lanes(Writer<Lanes>),
}

/// Evaluates the same expression for each kind.
macro_rules! of_any {
    ($outbox:expr, $writer:ident => $call:expr) => {
        match &$outbox.0 {
            Kind::Latest($writer) => $call,
            Kind::Queue($writer) => $call,
            Kind::Lanes($writer) => $call,
        }
    };
}

impl PeerOutbox {
    /// Makes an outbox of one slot.
    pub(crate) fn latest(clock: Clock) -> Self {
        Self(Kind::Latest(Writer::new(
            Slot::default(),
            clock,
            WRITER_FRAMES_MAX,
        )))
    }

    /// Makes an outbox with a queue of at most `bytes_max` bytes.
    pub(crate) fn queue(bytes_max: usize, clock: Clock) -> Self {
        Self(Kind::Queue(Writer::new(
            Queue::new(bytes_max),
            clock,
            WRITER_BATCHES_MAX,
        )))
    }

    /// Makes an outbox with a slot, and with a queue of at most `bytes_max` bytes.
    pub(crate) fn lanes(bytes_max: usize, clock: Clock) -> Self {
        Self(Kind::Lanes(Writer::new(
            Lanes::new(bytes_max),
            clock,
            WRITER_RUNS_MAX,
        )))
    }

    /// Whether `put` adds to a queue.
    pub(crate) fn has_queue(&self) -> bool {
        !matches!(self.0, Kind::Latest(_))
    }

    pub(crate) fn has_lanes(&self) -> bool {
        matches!(self.0, Kind::Lanes(_))
    }

    /// Takes a frame, and writes it if the rules of the outbox say so. With lanes it enters the queue.
    #[inline]
    pub(crate) fn put(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Latest(latest) => latest.put_latest(frame),
            Kind::Queue(queue) => queue.put(frame),
            Kind::Lanes(lanes) => lanes.put(frame),
        }
    }

    /// Takes a frame of the slot of lanes, and writes it if no thread writes. Without lanes this is [`put`](Self::put).
    pub(crate) fn put_latest(&self, frame: Bytes) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Lanes(lanes) => lanes.put_latest(frame),
            Kind::Latest(_) | Kind::Queue(_) => self.put(frame),
        }
    }

    /// Takes a frame of so many bytes that `fill` writes: a long one for a queue, or any for a slot.
    pub(crate) fn put_long(
        &self,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Latest(latest) => {
                let mut frame = vec![0; payload_len];
                fill(&mut frame);
                latest.put_latest(frame.into())
            }
            Kind::Queue(queue) => queue.put_long(payload_len, fill),
            Kind::Lanes(lanes) => lanes.put_long(payload_len, fill),
        }
    }

    /// Takes the first of these frames, as many as there is room for and as are written together. Returns their number, or why no
    /// frame was taken.
    // Inlined always: for one frame, the compiler then removes the loops below, a quarter of all instructions of a call.
    #[inline(always)]
    pub(crate) fn put_all(&self, frames: &[&[u8]]) -> (Result<usize, Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Latest(latest) => put_one_by_one(latest, frames),
            Kind::Queue(queue) => queue.put_all(frames),
            Kind::Lanes(lanes) => lanes.put_all(frames),
        }
    }

    /// Does the same with a queue and no slot. `None` for the other outboxes.
    #[inline(always)]
    pub(crate) fn put_in_queue(
        &self,
        frames: &[&[u8]],
    ) -> Option<(Result<usize, Refusal>, LoopRequest)> {
        match &self.0 {
            Kind::Queue(queue) => Some(queue.put_all(frames)),
            Kind::Latest(_) | Kind::Lanes(_) => None,
        }
    }

    /// Reserves room for a run of frames, at least for `need` bytes. `None`: a slot takes no runs.
    pub(crate) fn reserve(&self, run: &mut Run, need: usize) -> Option<Result<(), Refusal>> {
        match &self.0 {
            Kind::Latest(_) => None,
            Kind::Queue(queue) => Some(queue.reserve(run, need)),
            Kind::Lanes(lanes) => Some(lanes.reserve(run, need)),
        }
    }

    /// Puts the frames of this run, and leaves it empty. For a slot it is always empty. If it is refused, [`discard_late`](Self::discard_late)
    /// counts its frames.
    pub(crate) fn put_run(&self, run: &mut Run) -> (Result<(), Refusal>, LoopRequest) {
        match &self.0 {
            Kind::Latest(_) => (Ok(()), LoopRequest::NONE),
            Kind::Queue(queue) => queue.put_run(run),
            Kind::Lanes(lanes) => lanes.put_run(run),
        }
    }

    /// Counts the frames of a run that was refused: they were taken, and are discarded.
    pub(crate) fn discard_late(&self, frames: u64) {
        match &self.0 {
            Kind::Latest(_) => {}
            Kind::Queue(queue) => queue.discard_late(frames),
            Kind::Lanes(lanes) => lanes.discard_late(frames),
        }
    }

    /// Continues to write, since the socket is writable again, the loop was asked to write, or a sender does so in its place.
    pub(crate) fn resume(&self) -> LoopRequest {
        of_any!(self, writer => writer.resume())
    }

    /// Frees buffers that were not used since the last call; see [`LoopRequest::RELEASE`].
    pub(crate) fn release_unused(&self) -> LoopRequest {
        match &self.0 {
            Kind::Latest(_) => LoopRequest::NONE,
            Kind::Queue(queue) => queue.release_unused(),
            Kind::Lanes(lanes) => lanes.release_unused(),
        }
    }

    /// Writes to this link from now on, perhaps in place of an older one. `on_probation`: nothing is written before
    /// [`end_probation`](Self::end_probation).
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>, on_probation: bool) -> LoopRequest {
        of_any!(self, writer => writer.attach(wire, on_probation))
    }

    /// Lets the link that was attached last be written to, if it was on probation.
    pub(crate) fn end_probation(&self) -> LoopRequest {
        of_any!(self, writer => writer.end_probation())
    }

    /// Writes these control frames before the next frames. Returns whether the link that was attached last takes them.
    pub(crate) fn put_controls(&self, controls: Controls) -> (bool, LoopRequest) {
        of_any!(self, writer => writer.put_controls(controls))
    }

    /// The link has ended. Returns an upper bound of the number of frames that were written to it.
    pub(crate) fn detach(&self) -> u64 {
        of_any!(self, writer => writer.detach())
    }

    /// Discards the frames that wait, except those that are being written. Returns their number.
    pub(crate) fn discard(&self) -> u64 {
        of_any!(self, writer => writer.discard())
    }

    /// No more frames are accepted. Those that wait are written.
    pub(crate) fn seal(&self) {
        of_any!(self, writer => writer.seal());
    }

    /// The peer is removed: frames that wait are discarded, and no more are accepted. Returns how many were discarded. A
    /// frame that a thread is still writing is counted when it returns.
    pub(crate) fn close(&self) -> u64 {
        of_any!(self, writer => writer.close())
    }

    /// Whether a frame waits for the peer. If so, the answer counts as a request for a link. If not, the next frame requests one.
    pub(crate) fn update_demand(&self) -> bool {
        of_any!(self, writer => writer.update_demand())
    }

    /// Why the link that was attached last cannot be written to. The loop calls this after [`LoopRequest::BROKEN`], before it ends
    /// a link: by then a new link may have replaced the broken one.
    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        of_any!(self, writer => writer.broken())
    }

    /// Whether every accepted frame has been written, replaced or discarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts().waiting == 0
    }

    /// Whether nothing is left to write to the link, not even the rest of a frame that no longer counts as waiting: the last frame, which is
    /// written once more, or a control frame.
    pub(crate) fn is_drained(&self) -> bool {
        of_any!(self, writer => writer.is_drained())
    }

    pub(crate) fn counts(&self) -> SendCounts {
        of_any!(self, writer => writer.counts())
    }

    /// The counts, and those of the slot alone, at one time.
    pub(crate) fn all_counts(&self) -> (SendCounts, SendCounts) {
        of_any!(self, writer => writer.all_counts())
    }

    /// Blocks until the slot is free, or at least half of the queue, or the deadline has passed (`None`: no deadline). Returns
    /// whether there is room. A closed outbox has room: the next [`put`](Self::put) returns the error.
    pub(crate) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        of_any!(self, writer => writer.wait_for_room(deadline))
    }

    /// Waits as a task for the same.
    pub(crate) async fn wait_for_room_async(&self) {
        of_any!(self, writer => writer.wait_for_room_async().await);
    }
}

/// Puts these frames into a slot, one after the other. If the slot is closed meanwhile, the frames before that were taken.
fn put_one_by_one(
    latest: &Writer<Slot>,
    frames: &[&[u8]],
) -> (Result<usize, Refusal>, LoopRequest) {
    let mut request = LoopRequest::NONE;
    for (taken, frame) in frames.iter().enumerate() {
        // The lock is taken for each frame: in between, other threads send, and the outbox may be closed.
        let (outcome, more) = latest.put_latest(copy::to_bytes(frame));
        request = request.union(more);
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
mod loom_tests;

#[cfg(all(test, not(loom)))]
#[allow(
    unused_must_use,
    reason = "what the loop is asked for has tests of its own"
)]
mod tests;
