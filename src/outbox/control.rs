//! Control frames beside the frames of the application: written between two writes of those, and never kept for another link.
//!
//! Nothing here locks. A [`Backlog`] of either kind is put into a [`Controlled`], which is one itself. At most one ping, one pong and one end frame wait,
//! for no longer than what is being written.

use std::{
    io::{self, IoSlice},
    ops::{Deref, DerefMut},
};

use super::{
    backlog::{Backlog, InFlight, Progress},
    clock::Stamp,
    types::{LoopRequest, SendCounts, Wire},
};
use crate::proto::{CONTROL_BYTES, Controls};

/// A backlog, and the control frames that go before its next frames.
#[derive(Debug)]
pub(super) struct Controlled<S> {
    backlog: S,
    controls: Controls,
}

/// What is written in one go: frames of the backlog, or a control frame.
#[derive(Debug)]
pub(super) enum Job<F> {
    Frames(F),
    Control(ControlFrame),
}

/// A control frame of which `done` bytes have been written.
#[derive(Debug)]
pub(super) struct ControlFrame {
    bytes: [u8; CONTROL_BYTES],
    done: usize,
    /// True exactly when nothing follows it on its link.
    pub(super) is_end: bool,
}

impl<S> Controlled<S> {
    pub(super) fn new(backlog: S) -> Self {
        let controls = Controls::default();
        Self { backlog, controls }
    }

    /// Writes these before the next frames. A newer one of a kind replaces the one that waits.
    pub(super) fn put_controls(&mut self, controls: Controls) {
        self.controls = self.controls.or(controls);
    }

    /// Those that wait belong to a link that has ended.
    pub(super) fn forget_controls(&mut self) {
        self.controls = Controls::default();
    }

    fn next_control<F>(&mut self) -> Option<Job<F>> {
        let (bytes, is_end) = self.controls.encode_next()?;
        let done = 0;
        Some(Job::Control(ControlFrame {
            bytes,
            done,
            is_end,
        }))
    }
}

impl<S> Deref for Controlled<S> {
    type Target = S;

    #[inline(always)]
    fn deref(&self) -> &S {
        &self.backlog
    }
}

impl<S> DerefMut for Controlled<S> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut S {
        &mut self.backlog
    }
}

impl<S: Backlog> Backlog for Controlled<S> {
    type InFlight = Job<S::InFlight>;
    type Deferred = S::Deferred;

    /// The first frames, else a control frame: one may wait if a thread was still writing to the older link.
    fn first(&mut self) -> Option<Self::InFlight> {
        let frames = self.backlog.first().map(Job::Frames);
        frames.or_else(|| self.next_control())
    }

    /// What was written in part, else a control frame, else frames.
    #[inline]
    fn next(
        &mut self,
        rest: Option<Self::InFlight>,
        deferred: &mut S::Deferred,
    ) -> Option<Self::InFlight> {
        let rest = match rest {
            Some(Job::Control(frame)) => return Some(Job::Control(frame)),
            Some(Job::Frames(rest)) => Some(rest),
            None if self.controls.is_empty() => None,
            None => return self.next_control(),
        };
        self.backlog.next(rest, deferred).map(Job::Frames)
    }

    #[inline]
    fn on_blocked(
        &mut self,
        rest: Self::InFlight,
        deferred: &mut S::Deferred,
    ) -> Option<Self::InFlight> {
        match rest {
            Job::Frames(rest) => self.backlog.on_blocked(rest, deferred).map(Job::Frames),
            control @ Job::Control(_) => Some(control),
        }
    }

    fn requeue(&mut self, rest: Self::InFlight, deferred: &mut S::Deferred) {
        if let Job::Frames(rest) = rest {
            self.backlog.requeue(rest, deferred);
        }
    }

    #[inline]
    fn on_written(&mut self, in_flight: Self::InFlight, deferred: &mut S::Deferred) {
        if let Job::Frames(frames) = in_flight {
            self.backlog.on_written(frames, deferred);
        }
    }

    fn on_loop_resume(&mut self) {
        self.backlog.on_loop_resume();
    }

    #[inline]
    fn has_waiting(&self) -> bool {
        self.backlog.has_waiting()
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    #[inline(always)]
    fn request_release(&mut self) -> LoopRequest {
        self.backlog.request_release()
    }

    fn release_buffers(&mut self, deferred: &mut S::Deferred) {
        self.backlog.release_buffers(deferred);
    }

    fn seal(&mut self) {
        self.backlog.seal();
    }

    fn close(&mut self, deferred: &mut S::Deferred) {
        self.backlog.close(deferred);
    }

    fn discard(&mut self, deferred: &mut S::Deferred) {
        self.backlog.discard(deferred);
    }

    fn oldest(&self, owed_since: Option<Stamp>) -> Option<Stamp> {
        self.backlog.oldest(owed_since)
    }

    fn counts(&self) -> SendCounts {
        self.backlog.counts()
    }

    fn slot_counts(&self) -> SendCounts {
        self.backlog.slot_counts()
    }
}

impl<F: InFlight> InFlight for Job<F> {
    #[inline]
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        match self {
            Self::Frames(frames) => frames.write_to(wire),
            Self::Control(frame) => frame.write_to(wire),
        }
    }

    #[inline]
    fn frames(&self) -> u64 {
        match self {
            Self::Frames(frames) => frames.frames(),
            Self::Control(_) => 0,
        }
    }

    #[inline]
    fn oldest(&self) -> Option<Stamp> {
        match self {
            Self::Frames(frames) => frames.oldest(),
            Self::Control(_) => None,
        }
    }
}

impl ControlFrame {
    #[cold]
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        while self.done < CONTROL_BYTES {
            match wire.write(&[IoSlice::new(&self.bytes[self.done..])]) {
                Ok(0) => return Progress::Broken(io::ErrorKind::WriteZero),
                Ok(n) => self.done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Progress::Broken(error.kind()),
            }
        }
        Progress::Done
    }
}
