//! The write side of one link: at most one thread writes to it at a time.
//!
//! A caller that finds no writer becomes the writer. A caller that finds one adds its frame to the backlog and returns, and the
//! current writer looks at the backlog again before it gives up the right to write.
//!
//! Invariants:
//!
//! - No system call is made under the lock, and no caller waits for the system call of another one.
//! - Only the thread that has set [`Writing`](WriterState::Writing) writes, and only that thread ends this state. The loop, which
//!   attaches and detaches links meanwhile, leaves a [`Handover`] for it.
//! - When the state is `Idle`, the backlog is empty, or the loop was asked to write it, or a sender is about to become the writer
//!   (`write_here` of a queue). So no frame is stranded: each change
//!   that adds a frame returns what the loop is to do, and the writer looks once more under the lock before it sets `Idle`.
//! - When the state is `Blocked`, the loop is registered for writability, and [`resume`](Writer::resume) follows. If the socket
//!   becomes writable while a thread writes, `writable_again` says so, and that thread tries once more: the edge is not lost.
//! - A payload is dropped only without the lock ([`Deferred`](super::backlog::Deferred)), since dropping the last owner of one may run code of the
//!   application, which may send.
//! - A thread or task that waits for room is notified by every change that makes some ([`Transition`]).

use std::{io, sync::Arc, time::Instant};

use super::{
    backlog::{Backlog, Deferred as _, InFlight as _, Progress},
    clock::{Clock, Stamps},
    control::{Controlled, Job},
    state::{Attempt, Handover, Next, State, Transition, WriterState},
    types::{LoopRequest, SendCounts, Wire},
};
use crate::{
    proto::Controls,
    sync::{Mutex, Waiters, lock},
};

/// A backlog and the right to write it.
///
/// ```text
///   Detached --attach--> Idle, or Writing if something is to be sent
///
///   Idle --write--> Writing --all written--> Idle
///                    |  ^
///         socket full|  |writable
///                    v  |
///                  Blocked
///
///   Writing --error--> Failed --attach--> as from Detached
///   Detached --attach, on probation--> Held --end_probation--> as from Detached
///   Writing --end frame written--> Held --attach--> as from Detached
///   each of them --detach--> Detached                                      (from Writing by a handover)
/// ```
///
/// The state is changed in a [`Transition`] and nowhere else, and looked at in [`look`](Self::look).
#[derive(Debug)]
pub(super) struct Writer<S: Backlog> {
    state: Mutex<State<S>>,
    waiters: Waiters,
    stamps: Stamps,
    batches_max: usize,
}

impl<S: Backlog> Writer<S> {
    /// `batches_max`: how much one call writes before it leaves the rest to the loop.
    pub(super) fn new(backlog: S, clock: Clock, batches_max: usize) -> Self {
        let state = State {
            writer: WriterState::Detached,
            backlog: Controlled::new(backlog),
            wanted: false,
            owed_since: None,
            oldest_in_flight: None,
            written_before: 0,
        };
        Self {
            state: Mutex::new(state),
            waiters: Waiters::new(),
            stamps: Stamps::new(clock),
            batches_max,
        }
    }

    pub(super) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Locks the state in order to change it.
    #[inline(always)]
    pub(super) fn transition(&self) -> Transition<'_, S> {
        Transition::new(lock(&self.state), &self.waiters)
    }

    /// Locks the state in order to read it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&lock(&self.state))
    }

    /// Continues to write, since the socket is writable again, the loop was asked to write, or a sender does so in its place.
    pub(super) fn resume(&self) -> LoopRequest {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        // Before the backlog is looked at, and under the same lock: a frame that is put after this asks the loop again.
        state.backlog.on_loop_resume();
        let next = match state.writer.take() {
            WriterState::Blocked(wire, rest) => {
                let in_flight = state.backlog.next(rest, &mut deferred);
                state.proceed(wire, in_flight)
            }
            WriterState::Idle(wire) => {
                let in_flight = state.backlog.next(None, &mut deferred);
                state.proceed(wire, in_flight)
            }
            mut other => {
                // If another thread writes, it has the wire. It tries once more if it finds the socket full, and looks at the backlog
                // again in any case.
                if let WriterState::Writing(writing) = &mut other {
                    writing.writable_again = true;
                }
                state.writer = other;
                Next::Stop(LoopRequest::NONE)
            }
        };
        self.leave(state, next, deferred)
    }

    /// Writes to this link from now on, perhaps in place of an older one. `on_probation`: nothing is written before
    /// [`end_probation`](Self::end_probation).
    pub(super) fn attach(&self, wire: Arc<dyn Wire>, on_probation: bool) -> LoopRequest {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        state.wanted = false;
        state.backlog.forget_controls();
        // A frame that a thread is still writing to the older link is counted for this one when it is done. So `detach` returns
        // an upper bound.
        state.written_before = state.backlog.counts().sent();
        let next = match state.writer.take() {
            WriterState::Writing(writing) => {
                let to = wire;
                state.hand_over(writing, Handover::Attach { to, on_probation });
                Next::Stop(LoopRequest::NONE)
            }
            older => {
                // The peer never gets the rest of a frame that was cut: it waits again, and is written from its start.
                if let WriterState::Blocked(_, Some(rest)) = older {
                    state.backlog.requeue(rest, &mut deferred);
                }
                state.start(wire, on_probation)
            }
        };
        self.leave(state, next, deferred)
    }

    /// Lets the link that was attached last be written to, if it was on probation.
    pub(super) fn end_probation(&self) -> LoopRequest {
        let mut state = self.transition();
        // A thread may still be writing to the older link. It finds the handover when its write returns.
        if let WriterState::Writing(writing) = &mut state.writer {
            if let Some(Handover::Attach { on_probation, .. }) = &mut writing.handover {
                *on_probation = false;
            }
        }
        let next = match state.writer.take() {
            WriterState::Held(wire) => state.start(wire, false),
            other => {
                state.writer = other;
                Next::Stop(LoopRequest::NONE)
            }
        };
        self.leave(state, next, S::Deferred::default())
    }

    /// Writes these control frames as soon as what is being written is finished. Returns whether they are written to the link that was
    /// attached last. If it is broken, on probation or has its end frame, they are not.
    pub(super) fn put_controls(&self, controls: Controls) -> (bool, LoopRequest) {
        let mut state = self.transition();
        if !state.is_written_to() {
            return (false, LoopRequest::NONE);
        }
        state.backlog.put_controls(controls);
        // A thread that writes looks at them when it is done, and the loop when the socket is writable again.
        let Some(wire) = state.acquire() else {
            return (true, LoopRequest::NONE);
        };
        let mut deferred = S::Deferred::default();
        let job = state.backlog.next(None, &mut deferred);
        let next = state.proceed(wire, job);
        (true, self.leave(state, next, deferred))
    }

    /// The link has ended. Returns an upper bound of the number of frames that were written to it: those that are being written
    /// count.
    pub(super) fn detach(&self) -> u64 {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        // A thread may be in its system call: whether the kernel takes the frames is not known yet, so they count.
        let being_written = match &state.writer {
            WriterState::Writing(writing) => writing.in_flight,
            _ => 0,
        };
        state.detach(&mut deferred);
        // After `detach`, which counts the whole frames in a batch that was cut off.
        let sent = state.backlog.counts().sent() + being_written;
        let written = sent.saturating_sub(state.written_before);
        // The frames that wait for the next link need no more buffers.
        state.backlog.release_buffers(&mut deferred);
        drop(state);
        deferred.release();
        written
    }

    /// Discards the frames that wait, except those that are being written. Returns their number.
    pub(super) fn discard(&self) -> u64 {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        let before = state.backlog.counts().discarded;
        state.backlog.discard(&mut deferred);
        if state.counts().waiting == 0 {
            state.owed_since = None;
        }
        let discarded = state.backlog.counts().discarded - before;
        drop(state);
        deferred.release();
        discarded
    }

    /// No more frames are accepted. Those that wait are written.
    pub(super) fn seal(&self) {
        self.transition().backlog.seal();
    }

    /// The peer is removed: frames that wait are discarded, and no more are accepted. Returns how many were discarded. A
    /// frame that a thread is still writing is counted when it returns.
    pub(super) fn close(&self) -> u64 {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        let before = state.backlog.counts().discarded;
        // Before `detach`, so that frames that `detach` puts back are discarded.
        state.backlog.close(&mut deferred);
        state.detach(&mut deferred);
        state.owed_since = None;
        let discarded = state.backlog.counts().discarded - before;
        drop(state);
        deferred.release();
        discarded
    }

    /// Whether a frame waits for the peer. If so, the answer counts as a request for a link. If not, the next frame requests one.
    pub(super) fn update_demand(&self) -> bool {
        let mut state = self.transition();
        // Under the lock under which senders put frames: a frame is counted here, or its sender finds `wanted` as it is set
        // here.
        state.wanted = state.counts().waiting > 0;
        state.wanted
    }

    pub(super) fn broken(&self) -> Option<io::ErrorKind> {
        self.look(|state| match state.writer {
            WriterState::Failed(kind) => Some(kind),
            _ => None,
        })
    }

    pub(super) fn is_drained(&self) -> bool {
        self.look(|state| state.counts().waiting == 0 && !state.has_begun())
    }

    pub(super) fn counts(&self) -> SendCounts {
        self.all_counts().0
    }

    /// The counts, and those of the slot alone.
    pub(super) fn all_counts(&self) -> (SendCounts, SendCounts) {
        self.look(|state| {
            let since = state.waiting_since();
            let all = SendCounts {
                waiting_since: since.map(|stamp| self.stamps.time_of(stamp)),
                ..state.counts()
            };
            (all, state.slot_counts())
        })
    }

    /// Whether a frame would be taken and replace none.
    pub(super) fn has_room(&self) -> bool {
        self.look(|state| state.backlog.has_room())
    }

    /// Blocks until there is room or the deadline has passed (`None`: no deadline). Returns whether there is room.
    pub(super) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        // `has_room` takes the lock under which every change makes room, as `Waiters` requires.
        self.waiters.wait(deadline, || self.has_room())
    }

    /// Waits as a task until there is room.
    pub(super) async fn wait_for_room_async(&self) {
        let has_room = || self.has_room().then_some(());
        self.waiters.wait_async(has_room).await;
    }

    /// Ends a change of the state: releases the lock, drops what is no longer needed, and writes if this thread has become the
    /// writer. Returns what is left for the loop.
    pub(super) fn leave(
        &self,
        state: Transition<'_, S>,
        next: Next<Job<S::InFlight>>,
        deferred: S::Deferred,
    ) -> LoopRequest {
        drop(state);
        deferred.release();
        match next {
            Next::Write(wire, in_flight) => self.write(wire, in_flight).1,
            Next::Stop(request) => request,
        }
    }

    /// Writes until nothing waits, the socket is full or broken, the loop has left a handover, or `batches_max` is reached. Returns whether `in_flight` was written to its end in the first round. (If the
    /// socket was full and became writable meanwhile, another round may have done it.)
    pub(super) fn write(
        &self,
        mut wire: Arc<dyn Wire>,
        mut in_flight: Job<S::InFlight>,
    ) -> (bool, LoopRequest) {
        let (mut first_done, mut release) = (false, LoopRequest::NONE);
        for count in 1.. {
            // No lock is held. Meanwhile senders add to the backlog, and the loop leaves an edge or a handover.
            let progress = in_flight.write_to(&*wire);
            first_done |= count == 1 && matches!(progress, Progress::Done);
            let (mut deferred, mut old_wire) = (S::Deferred::default(), None);
            let mut state = self.transition();
            // The state is still `Writing`, and the frames and the wire are still this thread's. The backlog, `writable_again`
            // and `handover` may have changed.
            let attempt = Attempt {
                wire,
                in_flight,
                progress,
            };
            let next = state.on_wrote(
                attempt,
                count < self.batches_max,
                &self.stamps,
                &mut deferred,
                &mut old_wire,
            );
            release = release.union(state.backlog.request_release());
            // The loop may have dropped its reference to the old wire. Then this one is the last, and dropping it closes the
            // socket: not under the lock.
            drop(state);
            deferred.release();
            drop(old_wire);
            match next {
                Next::Write(to, more) => (wire, in_flight) = (to, more),
                Next::Stop(request) => return (first_done, request.union(release)),
            }
        }
        (first_done, release)
    }

    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.waiters.count()
    }
}
