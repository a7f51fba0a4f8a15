//! Two lanes over one link: a slot, whose frame goes first, and a queue.
//!
//! Nothing here makes a system call: [`Writer`](super::writer::Writer) does. Each lane keeps the invariants of its own file, and these hold
//! for both:
//!
//! - The queue is written in runs of at most [`LANES_RUN_BYTES`]. What was begun is finished first, a run or a frame of the slot. So at
//!   most one run is written before a frame that is put into the slot.
//! - After a frame of the slot, a run is written if one waits. So a thread that puts frames into the slot without a pause does not keep
//!   the queue from being written.

use super::{
    backlog::{self, Backlog, InFlight, Progress},
    batch::{self, Batch},
    clock::Stamp,
    queue::{HasQueue, Queue},
    slot::{self, HasSlot, PartialFrame, Slot},
    types::{LoopRequest, SendCounts, Wire},
};
use crate::limits::LANES_RUN_BYTES;

#[derive(Debug)]
pub(super) struct Lanes {
    slot: Slot,
    queue: Queue,
    /// True exactly when a frame of the slot was written after the last run was begun.
    run_is_next: bool,
}

/// What is written in one go.
#[derive(Debug)]
pub(super) enum LaneInFlight {
    Latest(PartialFrame),
    Run(Batch),
}

/// Frames and buffers that are no longer needed.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    slot: slot::Deferred,
    queue: batch::Deferred,
}

impl backlog::Deferred for Deferred {
    fn release(self) {
        self.slot.release();
        self.queue.release();
    }
}

impl Lanes {
    /// Makes a slot and a queue of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            slot: Slot::default(),
            queue: Queue::new(bytes_max),
            run_is_next: false,
        }
    }

    fn take_run(&mut self) -> Option<LaneInFlight> {
        let run = self.queue.take(LANES_RUN_BYTES)?;
        self.run_is_next = false;
        Some(LaneInFlight::Run(run))
    }
}

impl HasSlot for Lanes {
    fn slot(&mut self) -> &mut Slot {
        &mut self.slot
    }
}

impl HasQueue for Lanes {
    fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

impl Backlog for Lanes {
    type InFlight = LaneInFlight;
    type Deferred = Deferred;

    /// The frame in the slot, else the last one once more, else a run.
    fn first(&mut self) -> Option<LaneInFlight> {
        let latest = self.slot.first().map(LaneInFlight::Latest);
        latest.or_else(|| self.take_run())
    }

    /// What was begun, else the frame in the slot or a run.
    fn next(
        &mut self,
        rest: Option<LaneInFlight>,
        deferred: &mut Deferred,
    ) -> Option<LaneInFlight> {
        let latest = match rest {
            Some(LaneInFlight::Run(run)) => return Some(LaneInFlight::Run(run)),
            Some(LaneInFlight::Latest(latest)) => Some(latest),
            None if self.run_is_next && self.queue.has_waiting() => return self.take_run(),
            None => None,
        };
        let latest = self.slot.next(latest, &mut deferred.slot);
        latest.map(LaneInFlight::Latest).or_else(|| self.take_run())
    }

    fn on_blocked(&mut self, rest: LaneInFlight, deferred: &mut Deferred) -> Option<LaneInFlight> {
        match rest {
            LaneInFlight::Latest(latest) => self
                .slot
                .on_blocked(latest, &mut deferred.slot)
                .map(LaneInFlight::Latest),
            run @ LaneInFlight::Run(_) => Some(run),
        }
    }

    fn requeue(&mut self, rest: LaneInFlight, deferred: &mut Deferred) {
        match rest {
            LaneInFlight::Latest(latest) => self.slot.requeue(latest, &mut deferred.slot),
            LaneInFlight::Run(run) => self.queue.requeue(run, &mut deferred.queue),
        }
    }

    fn on_written(&mut self, in_flight: LaneInFlight, deferred: &mut Deferred) {
        match in_flight {
            LaneInFlight::Latest(latest) => {
                self.slot.on_written(latest, &mut deferred.slot);
                self.run_is_next = true;
            }
            LaneInFlight::Run(run) => self.queue.on_written(run, &mut deferred.queue),
        }
    }

    fn on_loop_resume(&mut self) {
        self.queue.on_loop_resume();
    }

    fn has_waiting(&self) -> bool {
        self.slot.has_waiting() || self.queue.has_waiting()
    }

    /// Whether the queue has room. The slot always takes a frame.
    fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    fn request_release(&mut self) -> LoopRequest {
        self.queue.request_release()
    }

    fn release_buffers(&mut self, deferred: &mut Deferred) {
        self.queue.release_buffers(&mut deferred.queue);
    }

    fn seal(&mut self) {
        self.slot.seal();
        self.queue.seal();
    }

    fn close(&mut self, deferred: &mut Deferred) {
        self.slot.close(&mut deferred.slot);
        self.queue.close(&mut deferred.queue);
    }

    fn discard(&mut self, deferred: &mut Deferred) {
        self.slot.discard(&mut deferred.slot);
        self.queue.discard(&mut deferred.queue);
    }

    // The frame of the slot has waited since `owed_since` or later, and the oldest one of the queue may be older than that.
    fn oldest(&self, owed_since: Option<Stamp>) -> Option<Stamp> {
        let queued = self.queue.oldest(None);
        queued.into_iter().chain(owed_since).min()
    }

    /// The sums over both lanes.
    fn counts(&self) -> SendCounts {
        let (slot, queue) = (self.slot.counts(), self.queue.counts());
        SendCounts {
            accepted: slot.accepted + queue.accepted,
            written: slot.written + queue.written,
            superseded: slot.superseded,
            discarded: slot.discarded + queue.discarded,
            waiting: slot.waiting + queue.waiting,
            resent: slot.resent,
            bytes: slot.bytes + queue.bytes,
            waiting_since: None,
        }
    }

    fn slot_counts(&self) -> SendCounts {
        self.slot.counts()
    }
}

impl From<PartialFrame> for LaneInFlight {
    fn from(latest: PartialFrame) -> Self {
        Self::Latest(latest)
    }
}

impl InFlight for LaneInFlight {
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        match self {
            Self::Latest(latest) => latest.write_to(wire),
            Self::Run(run) => run.write_to(wire),
        }
    }

    fn frames(&self) -> u64 {
        match self {
            Self::Latest(latest) => latest.frames(),
            Self::Run(run) => run.frames(),
        }
    }

    fn oldest(&self) -> Option<Stamp> {
        match self {
            Self::Latest(latest) => latest.oldest(),
            Self::Run(run) => run.oldest(),
        }
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
