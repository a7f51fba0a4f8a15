//! The state of an outbox under its lock, and how it is changed.
//!
//! Nothing here makes a system call. The invariants of the protocol between the threads are listed in `writer`. Those of the state
//! itself, whenever the lock is free:
//!
//! - Each accepted frame is in one place: in the backlog, in `Blocked`, or with the thread that has set `Writing`. Else it is
//!   counted as written, superseded or discarded.
//! - `in_flight` of `Writing` counts the frames that the writing thread has. The thread itself has them, and the wire.
//! - A step that takes the state out puts `Writing` in its place, and puts the next state in before it releases the lock.

use std::{
    io, mem,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{
    backlog::{Backlog, InFlight, Progress},
    clock::{Stamp, Stamps},
    control::{Controlled, Job},
    types::{LoopRequest, SendCounts, Wire},
};
use crate::sync::{Guard, MutexGuard, Waiters};

#[derive(Debug)]
pub(super) struct State<S: Backlog> {
    pub(super) writer: WriterState<Job<S::InFlight>>,
    pub(super) backlog: Controlled<S>,
    /// True exactly when the loop was asked for a link, and has since neither attached one nor found that none is needed.
    pub(super) wanted: bool,
    /// Since when frames have waited without one being written to its end. `None` whenever none waits, or none but what was put while a
    /// thread wrote, which writes it next.
    pub(super) owed_since: Option<Stamp>,
    /// While a thread writes: when the oldest of its frames was put, if that is known.
    pub(super) oldest_in_flight: Option<Stamp>,
    /// Frames that had been written when the link was attached, including those that were written once more.
    pub(super) written_before: u64,
}

#[derive(Debug)]
pub(super) enum WriterState<F> {
    /// There is no link.
    Detached,
    /// No thread writes. If a frame waits, the loop was asked to write it, but another thread may do so before.
    Idle(Arc<dyn Wire>),
    /// Nothing is written: the loop is to end the probation of the link, or its end frame was written.
    Held(Arc<dyn Wire>),
    /// The link can no longer be written to, for this reason; the loop is to end it.
    Failed(io::ErrorKind),
    /// The socket is full. The loop resumes when it is writable, and a frame that was written in part is finished first.
    Blocked(Arc<dyn Wire>, Option<F>),
    /// A thread writes.
    Writing(Writing),
}

/// What other threads see of the thread that writes, and leave for it.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// True exactly when the socket became writable meanwhile. If this thread finds it full, it tries once more.
    pub(super) writable_again: bool,
    /// Accepted frames that this thread has.
    pub(super) in_flight: u64,
    /// What this thread must do for the loop when its write returns.
    pub(super) handover: Option<Handover>,
}

/// What the loop leaves for the thread that writes.
#[derive(Debug)]
pub(super) enum Handover {
    Detach,
    Attach {
        to: Arc<dyn Wire>,
        on_probation: bool,
    },
}

/// What the thread that has changed the state does next, without the lock.
pub(super) enum Next<F> {
    /// It has become the writer, and [writes](super::writer::Writer::write) this.
    Write(Arc<dyn Wire>, F),
    /// Nothing. This is left for the loop.
    Stop(LoopRequest),
}

/// What a thread has written, or tried to.
pub(super) struct Attempt<F> {
    pub(super) wire: Arc<dyn Wire>,
    pub(super) in_flight: F,
    pub(super) progress: Progress,
}

/// The state while it is changed. Dropping it does what every change must do: the lock is released, and then
/// threads that wait for room are notified if some was made. No change can forget that.
pub(super) struct Transition<'a, S: Backlog> {
    had_room: bool,
    state: Guard<MutexGuard<'a, State<S>>>,
    // After `state`, so that it is dropped when the lock is released.
    notice: RoomNotice<'a>,
}

struct RoomNotice<'a> {
    waiters: &'a Waiters,
    is_due: bool,
}

impl<'a, S: Backlog> Transition<'a, S> {
    /// The state is locked; `waiters` are those for its room.
    #[inline(always)]
    pub(super) fn new(state: Guard<MutexGuard<'a, State<S>>>, waiters: &'a Waiters) -> Self {
        Self {
            notice: RoomNotice {
                waiters,
                is_due: false,
            },
            had_room: state.backlog.has_room(),
            state,
        }
    }
}

impl<S: Backlog> Drop for Transition<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // If there was room before, no thread waits: a thread waits only after it has found no room.
        // The fields are dropped after this, in the order in which they are declared: first the guard, which releases the lock,
        // then the notice. A waiter takes this lock while it holds its own, so that it must not be notified under this one.
        self.notice.is_due = !self.had_room && self.state.backlog.has_room();
    }
}

impl Drop for RoomNotice<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_due {
            self.waiters.notify();
        }
    }
}

impl<S: Backlog> Deref for Transition<'_, S> {
    type Target = State<S>;

    #[inline(always)]
    fn deref(&self) -> &State<S> {
        &self.state
    }
}

impl<S: Backlog> DerefMut for Transition<'_, S> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State<S> {
        &mut self.state
    }
}

impl<F> WriterState<F> {
    /// Puts `Writing` in the place of this state, which is returned.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::Writing(Writing::default()))
    }
}

impl<S: Backlog> State<S> {
    /// Makes this thread the writer, if there is none. The caller then calls [`proceed`](Self::proceed) or
    /// [`mark_writing`](Self::mark_writing).
    #[inline(always)]
    pub(super) fn acquire(&mut self) -> Option<Arc<dyn Wire>> {
        // Only looked at first: a send that finds a full socket or no link moves no state out and in again. The match then
        // finds `Idle`, but needs no panic for the rest.
        if !self.is_idle() {
            return None;
        }
        match self.writer.take() {
            WriterState::Idle(wire) => Some(wire),
            other => {
                self.writer = other;
                None
            }
        }
    }

    /// Begins to write to a new link, unless it is on probation. This thread is the writer.
    pub(super) fn start(
        &mut self,
        wire: Arc<dyn Wire>,
        on_probation: bool,
    ) -> Next<Job<S::InFlight>> {
        if on_probation {
            // Nothing is left for the loop: it ends the probation by itself, when a byte has arrived or the probation is over.
            self.writer = WriterState::Held(wire);
            return Next::Stop(LoopRequest::NONE);
        }
        let in_flight = self.backlog.first();
        self.proceed(wire, in_flight)
    }

    /// Begins to write `in_flight`. If it is `None`, this thread, which is the writer, gives up the right to write.
    #[inline(always)]
    pub(super) fn proceed(
        &mut self,
        wire: Arc<dyn Wire>,
        in_flight: Option<Job<S::InFlight>>,
    ) -> Next<Job<S::InFlight>> {
        match in_flight {
            Some(in_flight) => {
                self.mark_writing(&in_flight);
                Next::Write(wire, in_flight)
            }
            None => {
                self.writer = WriterState::Idle(wire);
                Next::Stop(LoopRequest::NONE)
            }
        }
    }

    /// Decides what the writer, which is this thread, does after a write. `may_go_on`: it may write more now. `old_wire` gets a wire
    /// that is no longer written to; the caller drops it without the lock, since dropping the last owner closes its socket.
    #[inline(always)]
    pub(super) fn on_wrote(
        &mut self,
        attempt: Attempt<Job<S::InFlight>>,
        may_go_on: bool,
        stamps: &Stamps,
        deferred: &mut S::Deferred,
        old_wire: &mut Option<Arc<dyn Wire>>,
    ) -> Next<Job<S::InFlight>> {
        let Attempt {
            wire,
            in_flight,
            progress,
        } = attempt;
        let Writing {
            writable_again,
            handover,
            ..
        } = mem::take(self.writing());
        let mut is_end = false;
        let rest = if matches!(progress, Progress::Done) {
            match &in_flight {
                Job::Frames(_) => self.owed_since = None,
                Job::Control(frame) => is_end = frame.is_end,
            }
            // Counted before the handover is looked at: the kernel has the whole frame, whatever has become of the link.
            self.backlog.on_written(in_flight, deferred);
            None
        } else {
            Some(in_flight)
        };
        let next = match (handover, progress) {
            // The result of the write is of no interest any more: the loop has ended this link, and knows why.
            (Some(handover), _) => {
                self.requeue_rest(rest, deferred);
                *old_wire = Some(wire);
                let next = self.take_over(handover);
                self.start_waiting(stamps);
                return next;
            }
            (None, Progress::Done) if is_end => {
                self.writer = WriterState::Held(wire);
                self.start_waiting(stamps);
                return Next::Stop(LoopRequest::NONE);
            }
            // A sender that never pauses would keep this thread here for ever.
            (None, Progress::Done) if !may_go_on && self.backlog.has_waiting() => {
                self.writer = WriterState::Idle(wire);
                self.start_waiting(stamps);
                return Next::Stop(LoopRequest::RESUME);
            }
            (None, Progress::Done) => self.backlog.next(None, deferred),
            // The edge came after this write had begun, perhaps after it had found the socket full. The flag was taken, so that each
            // edge causes one more try.
            (None, Progress::Full) if writable_again => self.backlog.next(rest, deferred),
            (None, Progress::Full) => {
                let rest = rest.and_then(|rest| self.backlog.on_blocked(rest, deferred));
                self.writer = WriterState::Blocked(wire, rest);
                self.start_waiting(stamps);
                return Next::Stop(LoopRequest::NONE);
            }
            (None, Progress::Broken(kind)) => {
                // What was not written waits for the next link. Senders add to it, and none of them asks for a link: the loop
                // ends this one first, and then counts what waits as demand.
                self.requeue_rest(rest, deferred);
                *old_wire = Some(wire);
                self.writer = WriterState::Failed(kind);
                self.start_waiting(stamps);
                return Next::Stop(LoopRequest::BROKEN);
            }
        };
        self.proceed(wire, next)
    }

    /// Does what the loop has left for this thread, which is the writer.
    fn take_over(&mut self, handover: Handover) -> Next<Job<S::InFlight>> {
        match handover {
            Handover::Detach => {
                self.writer = WriterState::Detached;
                // A sender that has added a frame meanwhile did not ask for a link. The loop may have looked before that.
                Next::Stop(if self.backlog.has_waiting() {
                    self.ask_for_link()
                } else {
                    LoopRequest::NONE
                })
            }
            // An edge of the new socket that has come meanwhile is not lost: it is written to now, and if it is full, another edge
            // follows.
            Handover::Attach { to, on_probation } => self.start(to, on_probation),
        }
    }

    /// Records that this thread, which is the writer, writes these frames.
    #[inline(always)]
    pub(super) fn mark_writing(&mut self, in_flight: &Job<S::InFlight>) {
        self.writing().in_flight = in_flight.frames();
        self.oldest_in_flight = in_flight.oldest();
    }

    /// What the other threads have left for this one, which is the writer.
    #[inline(always)]
    fn writing(&mut self) -> &mut Writing {
        match &mut self.writer {
            WriterState::Writing(writing) => writing,
            _ => unreachable!("only the thread that writes, which is this one, ends this state"),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.writer, WriterState::Idle(_))
    }

    /// Whether frames may be written to the link that was attached last.
    pub(super) fn is_written_to(&self) -> bool {
        match &self.writer {
            WriterState::Idle(_) | WriterState::Blocked(..) => true,
            WriterState::Writing(writing) => match &writing.handover {
                None => true,
                Some(Handover::Attach { on_probation, .. }) => !on_probation,
                Some(Handover::Detach) => false,
            },
            WriterState::Detached | WriterState::Held(_) | WriterState::Failed(_) => false,
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        matches!(self.writer, WriterState::Writing(_))
    }

    /// Whether something is being written to the link, or may be as soon as its probation ends or a new link replaces it.
    pub(super) fn has_begun(&self) -> bool {
        match &self.writer {
            WriterState::Writing(_) | WriterState::Held(_) => true,
            WriterState::Blocked(_, rest) => rest.is_some(),
            WriterState::Detached | WriterState::Idle(_) | WriterState::Failed(_) => false,
        }
    }

    /// Requests a link if there is none, since a frame waits.
    pub(super) fn want_link(&mut self) -> LoopRequest {
        match self.writer {
            WriterState::Detached => self.ask_for_link(),
            _ => LoopRequest::NONE,
        }
    }

    pub(super) fn ask_for_link(&mut self) -> LoopRequest {
        if mem::replace(&mut self.wanted, true) {
            LoopRequest::NONE
        } else {
            LoopRequest::LINK
        }
    }

    /// Leaves this for the thread that writes.
    pub(super) fn hand_over(&mut self, writing: Writing, what: Handover) {
        let handover = Some(what);
        self.writer = WriterState::Writing(Writing {
            handover,
            ..writing
        });
    }

    /// A thread has put a frame, or has stopped writing. If frames wait now and no thread writes them, a frame is owed from now on, if
    /// none was before.
    // Not inlined: a frame that is written at once does not come here.
    #[cold]
    pub(super) fn start_waiting(&mut self, stamps: &Stamps) {
        let waits = match &self.writer {
            WriterState::Writing(_) => false,
            WriterState::Blocked(_, Some(rest)) => rest.frames() > 0 || self.backlog.has_waiting(),
            _ => self.backlog.has_waiting(),
        };
        if waits && self.owed_since.is_none() {
            self.owed_since = Some(stamps.now());
        }
    }

    pub(super) fn requeue_rest(
        &mut self,
        rest: Option<Job<S::InFlight>>,
        deferred: &mut S::Deferred,
    ) {
        if let Some(rest) = rest {
            self.backlog.requeue(rest, deferred);
        }
    }

    pub(super) fn detach(&mut self, deferred: &mut S::Deferred) {
        self.backlog.forget_controls();
        // If a wire is dropped here, under the lock, no socket is closed by that: the loop's table has another reference to it
        // until the end of the turn. The same is true where `Writer::attach` replaces a link.
        match mem::replace(&mut self.writer, WriterState::Detached) {
            // The other thread may be in its system call, and is not waited for. A handover that it has not seen is replaced: only
            // the last word of the loop counts.
            WriterState::Writing(writing) => self.hand_over(writing, Handover::Detach),
            WriterState::Blocked(_, Some(rest)) => self.backlog.requeue(rest, deferred),
            WriterState::Blocked(_, None)
            | WriterState::Detached
            | WriterState::Failed(_)
            | WriterState::Held(_)
            | WriterState::Idle(_) => {}
        }
    }

    /// When the oldest frame that waits was put, if the backlog knows that, else since when a frame is owed.
    pub(super) fn waiting_since(&self) -> Option<Stamp> {
        let in_flight = match &self.writer {
            WriterState::Blocked(_, Some(rest)) => rest.oldest(),
            WriterState::Writing(_) => self.oldest_in_flight,
            _ => None,
        };
        // What is being written is older than what waits in the backlog.
        in_flight.or_else(|| self.backlog.oldest(self.owed_since))
    }

    pub(super) fn counts(&self) -> SendCounts {
        let in_flight = match &self.writer {
            // A last frame that is written once more was counted the first time, and has no `frames` now.
            WriterState::Blocked(_, Some(rest)) => rest.frames(),
            WriterState::Writing(writing) => writing.in_flight,
            _ => 0,
        };
        let counts = self.backlog.counts();
        SendCounts {
            waiting: counts.waiting + in_flight,
            ..counts
        }
    }

    /// The counts of the slot alone.
    pub(super) fn slot_counts(&self) -> SendCounts {
        let counts = self.backlog.slot_counts();
        // With the frame that a writer has: it is not known here which lane that is of.
        let ended = counts.written + counts.superseded + counts.discarded;
        let waiting = counts.accepted - ended;
        SendCounts { waiting, ..counts }
    }
}
