//! Who writes to one link: the pen, handed from thread to thread, and what is in its holder's hands.
//!
//! No system call happens under the lock, and callers never wait for each other's system calls: whoever finds the pen
//! resting takes it out of the state, writes, and puts it back. Whoever finds it away leaves what he has in the store and
//! goes; the holder looks at the store before it lays the pen down.

use std::{
    fmt, io, mem,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Instant,
};

use super::types::{Ask, Tally, Wire};
use crate::sync::{Mutex, MutexGuard, Waiters, lock};

/// What waits for a peer, and the rules of what goes next. It is used under the lock.
pub(super) trait Store: fmt::Debug {
    /// What is written in one go.
    type Load: Load;

    /// What is done with. It is freed once the lock is released, never under it: freeing the last of a payload runs the code
    /// of whoever made it, which may come back here.
    type Spent: Spent;

    /// What goes first over a new link.
    fn begin(&mut self) -> Option<Self::Load>;

    /// What goes next over the same link, of which `rest` has perhaps begun to leave.
    fn choose(&mut self, rest: Option<Self::Load>, spent: &mut Self::Spent) -> Option<Self::Load>;

    /// The socket is full. Returns what must be finished first once there is room.
    fn set_aside(&mut self, rest: Self::Load, spent: &mut Self::Spent) -> Option<Self::Load>;

    /// Takes back what cannot be finished on its link.
    fn take_back(&mut self, rest: Self::Load, spent: &mut Self::Spent);

    /// Accounts for what was written to its end.
    fn finished(&mut self, load: Self::Load, spent: &mut Self::Spent);

    /// The loop has come to write, perhaps because it was asked to.
    fn loop_came(&mut self);

    /// Whether something waits that nobody has in hand.
    fn is_waiting(&self) -> bool;

    /// Whether a frame would be taken and replace none; see [`Waiters`]. A closed store has room: the next frame put into it
    /// learns more.
    fn has_room(&self) -> bool;

    /// The loop has found nothing left to write.
    fn tidy(&mut self, spent: &mut Self::Spent);

    /// Takes nothing more, and discards what waits.
    fn close(&mut self, spent: &mut Self::Spent);

    /// Discards what waits and is in nobody's hand.
    fn discard(&mut self, spent: &mut Self::Spent);

    /// The account, without what is in hand.
    fn tally(&self) -> Tally;
}

pub(super) trait Spent: Default {
    /// Frees it, each payload by [`release`](crate::sync::release).
    fn release(self);
}

pub(super) trait Load: fmt::Debug {
    /// Writes as much of it as the socket takes.
    fn write_to(&mut self, wire: &dyn Wire) -> Progress;

    /// How many accepted frames it has that are not yet accounted for.
    fn frames(&self) -> u64;
}

pub(super) enum Progress {
    Done,
    Full,
    Broken(io::ErrorKind),
}

/// A store and its pen.
///
/// ```text
///   Nowhere --attach--> Resting --write--> Away --all written--> Resting
///                          ^                |
///                          |             socket full
///                          |                v
///                        Away <---edge--- Waiting          (detach: from anywhere to Nowhere)
///
///   Away --error--> Broken --attach--> Away                 (the loop ends the link)
///   Nowhere --attach, held--> Held --confirm--> Away
/// ```
///
/// The state is changed in a [`Step`] and nowhere else, and looked at in [`look`](Self::look).
#[derive(Debug)]
pub(super) struct Writer<S: Store> {
    state: Mutex<State<S>>,
    waiters: Waiters,
    loads_max: usize,
}

#[derive(Debug)]
pub(super) struct State<S: Store> {
    pen: Pen<S::Load>,
    pub(super) store: S,
    /// True exactly when the loop was asked for a link and has not yet given one up or brought one.
    wanted: bool,
    /// Frames that had been written, again or for the first time, when the link was attached.
    written_before: u64,
}

#[derive(Debug)]
enum Pen<L> {
    /// There is no link.
    Nowhere,
    /// Nobody writes. If something waits, the loop was asked to write it; whoever comes first takes the pen.
    Resting(Arc<dyn Wire>),
    /// Nothing is written before the loop confirms the link.
    Held(Arc<dyn Wire>),
    /// The link can no longer be written to, for this reason; the loop is to end it.
    Broken(io::ErrorKind),
    /// The socket is full; the loop resumes. What had begun to leave is finished first.
    Waiting(Arc<dyn Wire>, Option<L>),
    /// Somebody writes.
    Away {
        /// The socket became writable again meanwhile: a full socket is to be tried once more.
        edge: bool,
        /// Accepted frames that are with the pen.
        carries: u64,
        /// What the loop wants done with the pen when it comes back.
        order: Option<Order>,
    },
}

#[derive(Debug)]
enum Order {
    Drop,
    Move { to: Arc<dyn Wire>, held: bool },
}

/// What whoever has changed the state does next, without the lock.
pub(super) enum Next<L> {
    /// The pen is away with this: it is [written](Writer::write).
    Write(Arc<dyn Wire>, L),
    /// Nothing. This is left for the loop.
    Stop(Ask),
}

impl<S: Store> Writer<S> {
    /// `loads_max`: how much one call writes before it leaves the rest to the loop.
    pub(super) fn new(store: S, loads_max: usize) -> Self {
        let state = State {
            pen: Pen::Nowhere,
            store,
            wanted: false,
            written_before: 0,
        };
        Self {
            state: Mutex::new(state),
            waiters: Waiters::new(),
            loads_max,
        }
    }

    /// The state, to be changed.
    #[inline(always)]
    pub(super) fn step(&self) -> Step<'_, S> {
        let state = lock(&self.state);
        Step {
            told: Told {
                waiters: &self.waiters,
                is_due: false,
            },
            had_room: state.store.has_room(),
            state,
        }
    }

    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&lock(&self.state))
    }

    /// The socket is writable again, or somebody asked the loop to go on.
    pub(super) fn resume(&self) -> Ask {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        state.store.loop_came();
        let next = match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Waiting(wire, rest) => {
                let load = state.store.choose(rest, &mut spent);
                state.go(wire, load, &mut spent)
            }
            Pen::Resting(wire) => {
                let load = state.store.choose(None, &mut spent);
                state.go(wire, load, &mut spent)
            }
            Pen::Away { carries, order, .. } => {
                state.pen = Pen::Away {
                    edge: true,
                    carries,
                    order,
                };
                Next::Stop(Ask::Nothing)
            }
            pen => {
                state.pen = pen;
                Next::Stop(Ask::Nothing)
            }
        };
        drop(state);
        spent.release();
        self.follow(next).1
    }

    /// A link has come up, perhaps in place of an older one. `held`: nothing is written to it before it is
    /// [confirmed](Self::confirm).
    pub(super) fn attach(&self, wire: Arc<dyn Wire>, held: bool) -> Ask {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        state.wanted = false;
        state.written_before = state.store.tally().sent();
        let next = match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Away { edge, carries, .. } => {
                state.pen = Pen::Away {
                    edge,
                    carries,
                    order: Some(Order::Move { to: wire, held }),
                };
                Next::Stop(Ask::Nothing)
            }
            older => {
                if let Pen::Waiting(_, Some(rest)) = older {
                    state.store.take_back(rest, &mut spent);
                }
                state.start(wire, held, &mut spent)
            }
        };
        drop(state);
        spent.release();
        self.follow(next).1
    }

    /// The link that was attached last is written to from now on, if it was held.
    pub(super) fn confirm(&self) -> Ask {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        if let Pen::Away {
            order: Some(Order::Move { held, .. }),
            ..
        } = &mut state.pen
        {
            *held = false;
        }
        let next = match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Held(wire) => state.start(wire, false, &mut spent),
            pen => {
                state.pen = pen;
                Next::Stop(Ask::Nothing)
            }
        };
        drop(state);
        spent.release();
        self.follow(next).1
    }

    /// The link has ended. Returns how many frames were written to it, at most: one that is just being written counts.
    pub(super) fn detach(&self) -> u64 {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        let being_written = match state.pen {
            Pen::Away { carries, .. } => carries,
            _ => 0,
        };
        state.detach(&mut spent);
        // Behind `detach`, which counts what has left whole of what was cut off.
        let sent = state.store.tally().sent() + being_written;
        let written = sent.saturating_sub(state.written_before);
        drop(state);
        spent.release();
        written
    }

    /// Discards what waits and is in nobody's hand. Returns how many frames.
    pub(super) fn discard(&self) -> u64 {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        let before = state.store.tally().discarded;
        state.store.discard(&mut spent);
        let discarded = state.store.tally().discarded - before;
        drop(state);
        spent.release();
        discarded
    }

    /// The peer is gone for good: what waits is discarded, nothing more is accepted.
    pub(super) fn close(&self) {
        let mut spent = S::Spent::default();
        let mut state = self.step();
        // First, so that what is taken back is discarded.
        state.store.close(&mut spent);
        state.detach(&mut spent);
        drop(state);
        spent.release();
    }

    /// Whether something waits for the peer. The loop takes the answer for a request for a link, or for none.
    pub(super) fn demand(&self) -> bool {
        let mut state = self.step();
        state.wanted = state.tally().waiting > 0;
        state.wanted
    }

    pub(super) fn broken(&self) -> Option<io::ErrorKind> {
        self.look(|state| match state.pen {
            Pen::Broken(kind) => Some(kind),
            _ => None,
        })
    }

    pub(super) fn tally(&self) -> Tally {
        self.look(State::tally)
    }

    /// Whether a frame would be taken and replace none.
    pub(super) fn has_room(&self) -> bool {
        self.look(|state| state.store.has_room())
    }

    /// Blocks until there is room or the deadline has passed (`None`: no deadline). Returns whether there is.
    pub(super) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        self.waiters.wait(deadline, || self.has_room())
    }

    /// Writes if there is something to write. Returns whether it was written to its end, and what is left for the loop.
    #[inline(always)]
    pub(super) fn follow(&self, next: Next<S::Load>) -> (bool, Ask) {
        match next {
            Next::Write(wire, load) => self.write(wire, load),
            Next::Stop(ask) => (false, ask),
        }
    }

    /// Writes with the pen in hand until nothing waits or the socket is full. Returns whether `load` was written to its end.
    pub(super) fn write(&self, mut wire: Arc<dyn Wire>, mut load: S::Load) -> (bool, Ask) {
        let mut first_done = false;
        for loads in 1.. {
            let progress = load.write_to(&*wire);
            let is_done = matches!(progress, Progress::Done);
            first_done |= loads == 1 && is_done;
            // Dropped after the lock: the last owner of a wire closes its socket.
            let (mut spent, mut old_wire) = (S::Spent::default(), None);
            let mut state = self.step();
            let Pen::Away { edge, order, .. } = mem::replace(&mut state.pen, Pen::AWAY) else {
                unreachable!("only its holder, which this is, puts a pen back that is away");
            };
            let rest = if is_done {
                state.store.finished(load, &mut spent);
                None
            } else {
                Some(load)
            };
            let stop = |state: Step<'_, S>, spent: S::Spent, ask| {
                drop(state);
                spent.release();
                (first_done, ask)
            };
            let next = match (order, progress) {
                (Some(Order::Drop), _) => {
                    state.give_back(rest, &mut spent);
                    state.pen = Pen::Nowhere;
                    // Whoever put it while the pen was away asked for nothing, and the loop may have looked before.
                    let ask = if state.store.is_waiting() {
                        state.ask_for_link()
                    } else {
                        Ask::Nothing
                    };
                    return stop(state, spent, ask);
                }
                (Some(Order::Move { to, held }), _) => {
                    state.give_back(rest, &mut spent);
                    old_wire = Some(mem::replace(&mut wire, to));
                    if held {
                        state.pen = Pen::Held(wire);
                        return stop(state, spent, Ask::Nothing);
                    }
                    state.store.begin()
                }
                (None, Progress::Done) if loads >= self.loads_max && state.store.is_waiting() => {
                    state.pen = Pen::Resting(wire);
                    return stop(state, spent, Ask::Resume);
                }
                (None, Progress::Done) => state.store.choose(None, &mut spent),
                (None, Progress::Full) if edge => state.store.choose(rest, &mut spent),
                (None, Progress::Full) => {
                    let rest = rest.and_then(|rest| state.store.set_aside(rest, &mut spent));
                    state.pen = Pen::Waiting(wire, rest);
                    return stop(state, spent, Ask::Nothing);
                }
                (None, Progress::Broken(kind)) => {
                    state.give_back(rest, &mut spent);
                    state.pen = Pen::Broken(kind);
                    return stop(state, spent, Ask::Broken);
                }
            };
            let Some(next) = next else {
                state.pen = Pen::Resting(wire);
                return stop(state, spent, Ask::Nothing);
            };
            state.carry(&next);
            drop(state);
            drop(old_wire);
            spent.release();
            load = next;
        }
        (first_done, Ask::Nothing)
    }

    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.waiters.count()
    }
}

/// The state while it is changed. It does what follows from every change when it is dropped: the lock is released, and then
/// threads that wait for room are told if some was made. No change can forget that.
pub(super) struct Step<'a, S: Store> {
    had_room: bool,
    state: MutexGuard<'a, State<S>>,
    // Behind the lock, so that it is dropped after it.
    told: Told<'a>,
}

struct Told<'a> {
    waiters: &'a Waiters,
    is_due: bool,
}

impl<S: Store> Drop for Step<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // Nobody waits while there is room: who has looked for it in vain did so before this change.
        self.told.is_due = !self.had_room && self.state.store.has_room();
    }
}

impl Drop for Told<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_due {
            self.waiters.notify();
        }
    }
}

impl<S: Store> Deref for Step<'_, S> {
    type Target = State<S>;

    #[inline(always)]
    fn deref(&self) -> &State<S> {
        &self.state
    }
}

impl<S: Store> DerefMut for Step<'_, S> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State<S> {
        &mut self.state
    }
}

impl<L> Pen<L> {
    const AWAY: Self = Self::Away {
        edge: false,
        carries: 0,
        order: None,
    };
}

impl<S: Store> State<S> {
    /// Takes the pen, if it rests. Whoever takes it [goes](Self::go) on with it.
    #[inline(always)]
    pub(super) fn take_pen(&mut self) -> Option<Arc<dyn Wire>> {
        if !self.is_resting() {
            return None;
        }
        match mem::replace(&mut self.pen, Pen::AWAY) {
            Pen::Resting(wire) => Some(wire),
            pen => {
                self.pen = pen;
                None
            }
        }
    }

    /// Begins to write to a new link, unless it is held. The pen was taken.
    fn start(&mut self, wire: Arc<dyn Wire>, held: bool, spent: &mut S::Spent) -> Next<S::Load> {
        if held {
            self.pen = Pen::Held(wire);
            return Next::Stop(Ask::Nothing);
        }
        let load = self.store.begin();
        self.go(wire, load, spent)
    }

    /// Starts to write `load`, or lets the pen rest if there is nothing. The pen was taken.
    pub(super) fn go(
        &mut self,
        wire: Arc<dyn Wire>,
        load: Option<S::Load>,
        spent: &mut S::Spent,
    ) -> Next<S::Load> {
        match load {
            Some(load) => {
                self.carry(&load);
                Next::Write(wire, load)
            }
            None => {
                self.pen = Pen::Resting(wire);
                self.store.tidy(spent);
                Next::Stop(Ask::Nothing)
            }
        }
    }

    /// The pen is away with this.
    #[inline(always)]
    pub(super) fn carry(&mut self, load: &S::Load) {
        self.pen = Pen::Away {
            edge: false,
            carries: load.frames(),
            order: None,
        };
    }

    pub(super) fn is_resting(&self) -> bool {
        matches!(self.pen, Pen::Resting(_))
    }

    /// Something waits: is there a link for it?
    pub(super) fn want_link(&mut self) -> Ask {
        match self.pen {
            Pen::Nowhere => self.ask_for_link(),
            _ => Ask::Nothing,
        }
    }

    fn ask_for_link(&mut self) -> Ask {
        if mem::replace(&mut self.wanted, true) {
            Ask::Nothing
        } else {
            Ask::Link
        }
    }

    fn give_back(&mut self, rest: Option<S::Load>, spent: &mut S::Spent) {
        if let Some(rest) = rest {
            self.store.take_back(rest, spent);
        }
    }

    fn detach(&mut self, spent: &mut S::Spent) {
        match mem::replace(&mut self.pen, Pen::Nowhere) {
            Pen::Away { edge, carries, .. } => {
                self.pen = Pen::Away {
                    edge,
                    carries,
                    order: Some(Order::Drop),
                };
            }
            Pen::Waiting(_, Some(rest)) => self.store.take_back(rest, spent),
            Pen::Waiting(_, None)
            | Pen::Nowhere
            | Pen::Broken(_)
            | Pen::Held(_)
            | Pen::Resting(_) => {}
        }
    }

    fn tally(&self) -> Tally {
        let with_pen = match &self.pen {
            Pen::Waiting(_, Some(rest)) => rest.frames(),
            Pen::Away { carries, .. } => *carries,
            _ => 0,
        };
        let tally = self.store.tally();
        Tally {
            waiting: tally.waiting + with_pen,
            ..tally
        }
    }
}
