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
//! - A payload is dropped only without the lock ([`Deferred`]), since dropping the last owner of one may run code of the
//!   application, which may send.
//! - A thread that waits for room is notified by every change that makes some ([`Transition`]).

use std::{
    fmt, io, mem,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Instant,
};

use super::types::{LoopRequest, SendCounts, Wire};
use crate::sync::{Mutex, MutexGuard, Waiters, lock};

/// The frames that wait for a peer, and the rules of what is written next. It is used under the lock.
pub(super) trait Backlog: fmt::Debug {
    /// What is written in one go.
    type InFlight: InFlight;

    /// What is to be dropped after the lock is released.
    type Deferred: Deferred;

    /// What is written first over a new link.
    fn first(&mut self) -> Option<Self::InFlight>;

    /// What is written next over the same link. `rest` was not written to its end.
    fn next(
        &mut self,
        rest: Option<Self::InFlight>,
        deferred: &mut Self::Deferred,
    ) -> Option<Self::InFlight>;

    /// The socket is full. Returns what must be finished first once there is room.
    fn on_blocked(
        &mut self,
        rest: Self::InFlight,
        deferred: &mut Self::Deferred,
    ) -> Option<Self::InFlight>;

    /// Takes back what cannot be finished on its link, so that it waits again.
    fn requeue(&mut self, rest: Self::InFlight, deferred: &mut Self::Deferred);

    /// Counts what was written to its end.
    fn on_written(&mut self, in_flight: Self::InFlight, deferred: &mut Self::Deferred);

    /// The loop is about to write, perhaps because it was asked to.
    fn on_loop_resume(&mut self);

    /// Whether a frame waits, apart from those that a writer has.
    fn has_waiting(&self) -> bool;

    /// Whether a frame would be taken and replace none; see [`Waiters`]. A closed backlog has room: the next send returns the
    /// error.
    fn has_room(&self) -> bool;

    /// Frees buffers, since the loop has found nothing left to write.
    fn release_buffers(&mut self, deferred: &mut Self::Deferred);

    /// Takes nothing more, and discards what waits.
    fn close(&mut self, deferred: &mut Self::Deferred);

    /// Discards the frames that wait, except those that a writer has.
    fn discard(&mut self, deferred: &mut Self::Deferred);

    /// The counts, without the frames that a writer has.
    fn counts(&self) -> SendCounts;
}

/// Payloads and buffers to be dropped after the lock is released.
pub(super) trait Deferred: Default {
    /// Drops them, each payload by [`release`](crate::sync::release).
    fn release(self);
}

/// Frames that are being written.
pub(super) trait InFlight: fmt::Debug {
    /// Writes as much as the socket takes.
    fn write_to(&mut self, wire: &dyn Wire) -> Progress;

    /// The number of these frames that were accepted and are not counted yet.
    fn frames(&self) -> u64;
}

pub(super) enum Progress {
    Done,
    Full,
    Broken(io::ErrorKind),
}

/// A backlog and the right to write it.
///
/// ```text
///   Detached --attach--> Idle, or Writing if something waits
///
///   Idle --write--> Writing --all written--> Idle
///                    |  ^
///         socket full|  |writable
///                    v  |
///                  Blocked
///
///   Writing --error--> Failed --attach--> as from Detached
///   Detached --attach, held--> Unconfirmed --confirm--> as from Detached   (a link on probation)
///   each of them --detach--> Detached                                      (from Writing by a handover)
/// ```
///
/// The state is changed in a [`Transition`] and nowhere else, and looked at in [`look`](Self::look).
#[derive(Debug)]
pub(super) struct Writer<S: Backlog> {
    state: Mutex<State<S>>,
    waiters: Waiters,
    batches_max: usize,
}

#[derive(Debug)]
pub(super) struct State<S: Backlog> {
    writer: WriterState<S::InFlight>,
    pub(super) backlog: S,
    /// True exactly when the loop was asked for a link, and has since neither attached one nor found that none is needed.
    wanted: bool,
    /// Frames that had been written when the link was attached, including those that were written once more.
    written_before: u64,
}

#[derive(Debug)]
enum WriterState<F> {
    /// There is no link.
    Detached,
    /// No thread writes. If a frame waits, the loop was asked to write it, but another thread may do so before.
    Idle(Arc<dyn Wire>),
    /// Nothing is written before the loop confirms the link.
    Unconfirmed(Arc<dyn Wire>),
    /// The link can no longer be written to, for this reason; the loop is to end it.
    Failed(io::ErrorKind),
    /// The socket is full. The loop resumes when it is writable, and a frame that was written in part is finished first.
    Blocked(Arc<dyn Wire>, Option<F>),
    /// A thread writes.
    Writing {
        /// True exactly when the socket became writable meanwhile. If this thread finds it full, it tries once more.
        writable_again: bool,
        /// Accepted frames that this thread has.
        in_flight: u64,
        /// What this thread must do for the loop when its write returns.
        handover: Option<Handover>,
    },
}

/// What the loop leaves for the thread that writes.
#[derive(Debug)]
enum Handover {
    Detach,
    Attach { to: Arc<dyn Wire>, held: bool },
}

/// What the thread that has changed the state does next, without the lock.
pub(super) enum Next<F> {
    /// It has become the writer, and [writes](Writer::write) this.
    Write(Arc<dyn Wire>, F),
    /// Nothing. This is left for the loop.
    Stop(LoopRequest),
}

impl<S: Backlog> Writer<S> {
    /// `batches_max`: how much one call writes before it leaves the rest to the loop.
    pub(super) fn new(backlog: S, batches_max: usize) -> Self {
        let state = State {
            writer: WriterState::Detached,
            backlog,
            wanted: false,
            written_before: 0,
        };
        Self {
            state: Mutex::new(state),
            waiters: Waiters::new(),
            batches_max,
        }
    }

    /// Locks the state in order to change it.
    #[inline(always)]
    pub(super) fn transition(&self) -> Transition<'_, S> {
        let state = lock(&self.state);
        Transition {
            notice: RoomNotice {
                waiters: &self.waiters,
                is_due: false,
            },
            had_room: state.backlog.has_room(),
            state,
        }
    }

    /// Locks the state in order to read it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&lock(&self.state))
    }

    /// Continues to write, since the socket is writable again or the loop was asked to write.
    pub(super) fn resume(&self) -> LoopRequest {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        state.backlog.on_loop_resume();
        let next = match mem::replace(&mut state.writer, WriterState::WRITING) {
            WriterState::Blocked(wire, rest) => {
                let in_flight = state.backlog.next(rest, &mut deferred);
                state.proceed(wire, in_flight, &mut deferred)
            }
            WriterState::Idle(wire) => {
                let in_flight = state.backlog.next(None, &mut deferred);
                state.proceed(wire, in_flight, &mut deferred)
            }
            WriterState::Writing {
                in_flight,
                handover,
                ..
            } => {
                state.writer = WriterState::Writing {
                    writable_again: true,
                    in_flight,
                    handover,
                };
                Next::Stop(LoopRequest::NONE)
            }
            other => {
                state.writer = other;
                Next::Stop(LoopRequest::NONE)
            }
        };
        drop(state);
        deferred.release();
        self.follow(next).1
    }

    /// Writes to this link from now on, perhaps in place of an older one. `held`: nothing is written before the link is
    /// [confirmed](Self::confirm).
    pub(super) fn attach(&self, wire: Arc<dyn Wire>, held: bool) -> LoopRequest {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        state.wanted = false;
        state.written_before = state.backlog.counts().sent();
        let next = match mem::replace(&mut state.writer, WriterState::WRITING) {
            WriterState::Writing {
                writable_again,
                in_flight,
                ..
            } => {
                state.writer = WriterState::Writing {
                    writable_again,
                    in_flight,
                    handover: Some(Handover::Attach { to: wire, held }),
                };
                Next::Stop(LoopRequest::NONE)
            }
            older => {
                if let WriterState::Blocked(_, Some(rest)) = older {
                    state.backlog.requeue(rest, &mut deferred);
                }
                state.start(wire, held, &mut deferred)
            }
        };
        drop(state);
        deferred.release();
        self.follow(next).1
    }

    /// Lets the link that was attached last be written to, if it was held.
    pub(super) fn confirm(&self) -> LoopRequest {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        if let WriterState::Writing {
            handover: Some(Handover::Attach { held, .. }),
            ..
        } = &mut state.writer
        {
            *held = false;
        }
        let next = match mem::replace(&mut state.writer, WriterState::WRITING) {
            WriterState::Unconfirmed(wire) => state.start(wire, false, &mut deferred),
            other => {
                state.writer = other;
                Next::Stop(LoopRequest::NONE)
            }
        };
        drop(state);
        deferred.release();
        self.follow(next).1
    }

    /// The link has ended. Returns an upper bound of the number of frames that were written to it: those that are being written
    /// count.
    pub(super) fn detach(&self) -> u64 {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        let being_written = match state.writer {
            WriterState::Writing { in_flight, .. } => in_flight,
            _ => 0,
        };
        state.detach(&mut deferred);
        // After `detach`, which counts the whole frames in a batch that was cut off.
        let sent = state.backlog.counts().sent() + being_written;
        let written = sent.saturating_sub(state.written_before);
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
        let discarded = state.backlog.counts().discarded - before;
        drop(state);
        deferred.release();
        discarded
    }

    /// The peer is removed: frames that wait are discarded, and no more are accepted.
    pub(super) fn close(&self) {
        let mut deferred = S::Deferred::default();
        let mut state = self.transition();
        // Before `detach`, so that frames that `detach` puts back are discarded.
        state.backlog.close(&mut deferred);
        state.detach(&mut deferred);
        drop(state);
        deferred.release();
    }

    /// Whether a frame waits for the peer. If so, the answer counts as a request for a link. If not, the next frame requests one.
    pub(super) fn update_demand(&self) -> bool {
        let mut state = self.transition();
        state.wanted = state.counts().waiting > 0;
        state.wanted
    }

    pub(super) fn broken(&self) -> Option<io::ErrorKind> {
        self.look(|state| match state.writer {
            WriterState::Failed(kind) => Some(kind),
            _ => None,
        })
    }

    pub(super) fn counts(&self) -> SendCounts {
        self.look(State::counts)
    }

    /// Whether a frame would be taken and replace none.
    pub(super) fn has_room(&self) -> bool {
        self.look(|state| state.backlog.has_room())
    }

    /// Blocks until there is room or the deadline has passed (`None`: no deadline). Returns whether there is room.
    pub(super) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        self.waiters.wait(deadline, || self.has_room())
    }

    /// Writes, if this thread has become the writer. Returns whether that was written to its end, and what is left for the loop.
    #[inline(always)]
    pub(super) fn follow(&self, next: Next<S::InFlight>) -> (bool, LoopRequest) {
        match next {
            Next::Write(wire, in_flight) => self.write(wire, in_flight),
            Next::Stop(request) => (false, request),
        }
    }

    /// Writes until nothing waits or the socket is full. Returns whether `in_flight` was written to its end in the first round. (If the
    /// socket was full and became writable meanwhile, another round may have done it.)
    pub(super) fn write(
        &self,
        mut wire: Arc<dyn Wire>,
        mut in_flight: S::InFlight,
    ) -> (bool, LoopRequest) {
        let mut first_done = false;
        for count in 1.. {
            let progress = in_flight.write_to(&*wire);
            let is_done = matches!(progress, Progress::Done);
            first_done |= count == 1 && is_done;
            // Dropped after the lock is released: dropping the last owner of a wire closes its socket.
            let (mut deferred, mut old_wire) = (S::Deferred::default(), None);
            let mut state = self.transition();
            let WriterState::Writing {
                writable_again,
                handover,
                ..
            } = mem::replace(&mut state.writer, WriterState::WRITING)
            else {
                unreachable!("only the thread that writes, which is this one, ends this state");
            };
            let rest = if is_done {
                state.backlog.on_written(in_flight, &mut deferred);
                None
            } else {
                Some(in_flight)
            };
            let stop = |state: Transition<'_, S>, deferred: S::Deferred, request| {
                drop(state);
                deferred.release();
                (first_done, request)
            };
            let next = match (handover, progress) {
                (Some(Handover::Detach), _) => {
                    state.requeue_rest(rest, &mut deferred);
                    state.writer = WriterState::Detached;
                    // A sender that has added a frame meanwhile did not ask for a link. The loop may have looked before that.
                    let request = if state.backlog.has_waiting() {
                        state.ask_for_link()
                    } else {
                        LoopRequest::NONE
                    };
                    return stop(state, deferred, request);
                }
                (Some(Handover::Attach { to, held }), _) => {
                    state.requeue_rest(rest, &mut deferred);
                    old_wire = Some(mem::replace(&mut wire, to));
                    if held {
                        state.writer = WriterState::Unconfirmed(wire);
                        return stop(state, deferred, LoopRequest::NONE);
                    }
                    state.backlog.first()
                }
                (None, Progress::Done)
                    if count >= self.batches_max && state.backlog.has_waiting() =>
                {
                    state.writer = WriterState::Idle(wire);
                    return stop(state, deferred, LoopRequest::RESUME);
                }
                (None, Progress::Done) => state.backlog.next(None, &mut deferred),
                (None, Progress::Full) if writable_again => state.backlog.next(rest, &mut deferred),
                (None, Progress::Full) => {
                    let rest = rest.and_then(|rest| state.backlog.on_blocked(rest, &mut deferred));
                    state.writer = WriterState::Blocked(wire, rest);
                    return stop(state, deferred, LoopRequest::NONE);
                }
                (None, Progress::Broken(kind)) => {
                    state.requeue_rest(rest, &mut deferred);
                    state.writer = WriterState::Failed(kind);
                    return stop(state, deferred, LoopRequest::BROKEN);
                }
            };
            let Some(next) = next else {
                state.writer = WriterState::Idle(wire);
                return stop(state, deferred, LoopRequest::NONE);
            };
            state.mark_writing(&next);
            drop(state);
            drop(old_wire);
            deferred.release();
            in_flight = next;
        }
        (first_done, LoopRequest::NONE)
    }

    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.waiters.count()
    }
}

/// The state while it is changed. Dropping it does what every change must do: the lock is released, and then
/// threads that wait for room are notified if some was made. No change can forget that.
pub(super) struct Transition<'a, S: Backlog> {
    had_room: bool,
    state: MutexGuard<'a, State<S>>,
    // After `state`, so that it is dropped when the lock is released.
    notice: RoomNotice<'a>,
}

struct RoomNotice<'a> {
    waiters: &'a Waiters,
    is_due: bool,
}

impl<S: Backlog> Drop for Transition<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // If there was room before, no thread waits: a thread waits only after it has found no room.
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

impl<L> WriterState<L> {
    const WRITING: Self = Self::Writing {
        writable_again: false,
        in_flight: 0,
        handover: None,
    };
}

impl<S: Backlog> State<S> {
    /// Makes this thread the writer, if there is none. The caller then calls [`proceed`](Self::proceed) or
    /// [`mark_writing`](Self::mark_writing).
    #[inline(always)]
    pub(super) fn acquire(&mut self) -> Option<Arc<dyn Wire>> {
        if !self.is_idle() {
            return None;
        }
        match mem::replace(&mut self.writer, WriterState::WRITING) {
            WriterState::Idle(wire) => Some(wire),
            other => {
                self.writer = other;
                None
            }
        }
    }

    /// Begins to write to a new link, unless it is held back. This thread is the writer.
    fn start(
        &mut self,
        wire: Arc<dyn Wire>,
        held: bool,
        deferred: &mut S::Deferred,
    ) -> Next<S::InFlight> {
        if held {
            self.writer = WriterState::Unconfirmed(wire);
            return Next::Stop(LoopRequest::NONE);
        }
        let in_flight = self.backlog.first();
        self.proceed(wire, in_flight, deferred)
    }

    /// Begins to write `in_flight`. If it is `None`, this thread, which is the writer, gives up the right to write.
    pub(super) fn proceed(
        &mut self,
        wire: Arc<dyn Wire>,
        in_flight: Option<S::InFlight>,
        deferred: &mut S::Deferred,
    ) -> Next<S::InFlight> {
        match in_flight {
            Some(in_flight) => {
                self.mark_writing(&in_flight);
                Next::Write(wire, in_flight)
            }
            None => {
                self.writer = WriterState::Idle(wire);
                self.backlog.release_buffers(deferred);
                Next::Stop(LoopRequest::NONE)
            }
        }
    }

    /// Records that this thread writes these frames.
    #[inline(always)]
    pub(super) fn mark_writing(&mut self, in_flight: &S::InFlight) {
        self.writer = WriterState::Writing {
            writable_again: false,
            in_flight: in_flight.frames(),
            handover: None,
        };
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.writer, WriterState::Idle(_))
    }

    /// Requests a link if there is none, since a frame waits.
    pub(super) fn want_link(&mut self) -> LoopRequest {
        match self.writer {
            WriterState::Detached => self.ask_for_link(),
            _ => LoopRequest::NONE,
        }
    }

    fn ask_for_link(&mut self) -> LoopRequest {
        if mem::replace(&mut self.wanted, true) {
            LoopRequest::NONE
        } else {
            LoopRequest::LINK
        }
    }

    fn requeue_rest(&mut self, rest: Option<S::InFlight>, deferred: &mut S::Deferred) {
        if let Some(rest) = rest {
            self.backlog.requeue(rest, deferred);
        }
    }

    fn detach(&mut self, deferred: &mut S::Deferred) {
        match mem::replace(&mut self.writer, WriterState::Detached) {
            WriterState::Writing {
                writable_again,
                in_flight,
                ..
            } => {
                self.writer = WriterState::Writing {
                    writable_again,
                    in_flight,
                    handover: Some(Handover::Detach),
                };
            }
            WriterState::Blocked(_, Some(rest)) => self.backlog.requeue(rest, deferred),
            WriterState::Blocked(_, None)
            | WriterState::Detached
            | WriterState::Failed(_)
            | WriterState::Unconfirmed(_)
            | WriterState::Idle(_) => {}
        }
    }

    fn counts(&self) -> SendCounts {
        let in_flight = match &self.writer {
            WriterState::Blocked(_, Some(rest)) => rest.frames(),
            WriterState::Writing { in_flight, .. } => *in_flight,
            _ => 0,
        };
        let counts = self.backlog.counts();
        SendCounts {
            waiting: counts.waiting + in_flight,
            ..counts
        }
    }
}
