//! Who writes to one link: the pen, handed from thread to thread, and what is in its holder's hands.
//!
//! No system call happens under the lock, and callers never wait for each other's system calls: whoever finds the pen
//! resting takes it out of the state, writes, and puts it back. Whoever finds it away leaves what he has in the store and
//! goes; the holder looks at the store before it lays the pen down.

use std::{fmt, io, mem, sync::Arc};

use super::{
    outbox::{Ask, Tally, Wire},
    sync::{Mutex, MutexGuard, lock},
};

/// What waits for a peer, and the rules of what goes next. It is used under the lock.
pub(super) trait Store: fmt::Debug {
    /// What is written in one go.
    type Load: Load;

    /// What is done with. It is freed once the lock is released, never under it: freeing the last of a payload runs the code
    /// of whoever made it, which may come back here.
    type Spent: Default;

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

    /// The loop has found nothing left to write.
    fn tidy(&mut self, spent: &mut Self::Spent);

    /// Takes nothing more, and discards what waits.
    fn close(&mut self, spent: &mut Self::Spent);

    /// The account, without what is in hand.
    fn tally(&self) -> Tally;
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
/// ```
#[derive(Debug)]
pub(super) struct Writer<S: Store> {
    state: Mutex<State<S>>,
    loads_max: usize,
}

#[derive(Debug)]
pub(super) struct State<S: Store> {
    pen: Pen<S::Load>,
    pub(super) store: S,
    /// True exactly when the loop was asked for a link and has not yet given one up or brought one.
    wanted: bool,
}

#[derive(Debug)]
enum Pen<L> {
    /// There is no link.
    Nowhere,
    /// Nobody writes. If something waits, the loop was asked to write it; whoever comes first takes the pen.
    Resting(Arc<dyn Wire>),
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
    Move(Arc<dyn Wire>),
}

impl<S: Store> Writer<S> {
    /// `loads_max`: how much one call writes before it leaves the rest to the loop.
    pub(super) fn new(store: S, loads_max: usize) -> Self {
        let state = State {
            pen: Pen::Nowhere,
            store,
            wanted: false,
        };
        Self {
            state: Mutex::new(state),
            loads_max,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }

    /// The socket is writable again, or somebody asked the loop to go on.
    pub(super) fn resume(&self) -> Ask {
        let mut spent = S::Spent::default();
        let mut state = self.lock();
        state.store.loop_came();
        match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Waiting(wire, rest) => {
                let load = state.store.choose(rest, &mut spent);
                self.go(state, wire, load, spent)
            }
            Pen::Resting(wire) => {
                let load = state.store.choose(None, &mut spent);
                self.go(state, wire, load, spent)
            }
            Pen::Away { carries, order, .. } => {
                state.pen = Pen::Away {
                    edge: true,
                    carries,
                    order,
                };
                Ask::Nothing
            }
            pen => {
                state.pen = pen;
                Ask::Nothing
            }
        }
    }

    /// A link has come up, perhaps in place of an older one.
    pub(super) fn attach(&self, wire: Arc<dyn Wire>) -> Ask {
        let mut spent = S::Spent::default();
        let mut state = self.lock();
        state.wanted = false;
        match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Away { edge, carries, .. } => {
                state.pen = Pen::Away {
                    edge,
                    carries,
                    order: Some(Order::Move(wire)),
                };
                return Ask::Nothing;
            }
            Pen::Waiting(_, Some(rest)) => state.store.take_back(rest, &mut spent),
            Pen::Waiting(_, None) | Pen::Nowhere | Pen::Broken(_) | Pen::Resting(_) => {}
        }
        let load = state.store.begin();
        self.go(state, wire, load, spent)
    }

    /// The link has ended.
    pub(super) fn detach(&self) {
        let mut spent = S::Spent::default();
        self.lock().detach(&mut spent);
    }

    /// The peer is gone for good: what waits is discarded, nothing more is accepted.
    pub(super) fn close(&self) {
        let mut spent = S::Spent::default();
        let mut state = self.lock();
        // First, so that what is taken back is discarded.
        state.store.close(&mut spent);
        state.detach(&mut spent);
    }

    pub(super) fn broken(&self) -> Option<io::ErrorKind> {
        match self.lock().pen {
            Pen::Broken(kind) => Some(kind),
            _ => None,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let state = self.lock();
        let with_pen = match &state.pen {
            Pen::Waiting(_, Some(rest)) => rest.frames(),
            Pen::Away { carries, .. } => *carries,
            _ => 0,
        };
        let tally = state.store.tally();
        Tally {
            waiting: tally.waiting + with_pen,
            ..tally
        }
    }

    /// Starts to write `load`, or lets the pen rest if there is nothing. The pen is `Away`.
    fn go(
        &self,
        mut state: MutexGuard<'_, State<S>>,
        wire: Arc<dyn Wire>,
        load: Option<S::Load>,
        mut spent: S::Spent,
    ) -> Ask {
        let Some(load) = load else {
            state.pen = Pen::Resting(wire);
            state.store.tidy(&mut spent);
            drop(state);
            drop(spent);
            return Ask::Nothing;
        };
        state.carry(&load);
        drop(state);
        drop(spent);
        self.write(wire, load).1
    }

    /// Writes with the pen in hand until nothing waits or the socket is full. Returns whether `load` was written to its end.
    pub(super) fn write(&self, mut wire: Arc<dyn Wire>, mut load: S::Load) -> (bool, Ask) {
        let mut first_done = false;
        let mut loads = 0;
        loop {
            let progress = load.write_to(&*wire);
            // Declared before the lock, so that they go after it, on every way out.
            let (mut spent, mut old_wire) = (S::Spent::default(), None);
            let mut state = self.lock();
            let Pen::Away { edge, order, .. } = mem::replace(&mut state.pen, Pen::AWAY) else {
                unreachable!("only the holder of the pen puts it back");
            };
            let done = matches!(progress, Progress::Done);
            let rest = if done {
                state.store.finished(load, &mut spent);
                None
            } else {
                Some(load)
            };
            first_done |= done && loads == 0;
            loads += 1;
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
                    return (first_done, ask);
                }
                (Some(Order::Move(to)), _) => {
                    state.give_back(rest, &mut spent);
                    old_wire = Some(mem::replace(&mut wire, to));
                    state.store.begin()
                }
                (None, Progress::Done) if loads >= self.loads_max && state.store.is_waiting() => {
                    state.pen = Pen::Resting(wire);
                    return (first_done, Ask::Resume);
                }
                (None, Progress::Done) => state.store.choose(None, &mut spent),
                (None, Progress::Full) if edge => state.store.choose(rest, &mut spent),
                (None, Progress::Full) => {
                    let rest = rest.and_then(|rest| state.store.set_aside(rest, &mut spent));
                    state.pen = Pen::Waiting(wire, rest);
                    return (first_done, Ask::Nothing);
                }
                (None, Progress::Broken(kind)) => {
                    state.give_back(rest, &mut spent);
                    state.pen = Pen::Broken(kind);
                    return (first_done, Ask::Broken);
                }
            };
            let Some(next) = next else {
                state.pen = Pen::Resting(wire);
                return (first_done, Ask::Nothing);
            };
            state.carry(&next);
            drop(state);
            drop((spent, old_wire));
            load = next;
        }
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
    /// Takes the pen, if it rests. Whoever takes it [writes](Writer::write) what he then [carries](Self::carry).
    pub(super) fn take_pen(&mut self) -> Option<Arc<dyn Wire>> {
        match mem::replace(&mut self.pen, Pen::AWAY) {
            Pen::Resting(wire) => Some(wire),
            pen => {
                self.pen = pen;
                None
            }
        }
    }

    /// The pen is away with this.
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
            Pen::Waiting(_, None) | Pen::Nowhere | Pen::Broken(_) | Pen::Resting(_) => {}
        }
    }
}
