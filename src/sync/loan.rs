//! Passes one value between a thread that owns it and threads that borrow it.
//!
//! Nothing here knows what the value is. No lock is held while a thread uses it.
//!
//! Invariants:
//!
//! - The value is in the state, or one thread has it in a [`Held`]: the owner in `Owned`, a borrower in `Lent`.
//! - A value that is `Free` is used by no thread. The owner is in [`take`](Loan::take), or about to call it. It takes the value
//!   [`LOAN_GRACE`] after the value was given back, or twice that at most, or at once after [`recall`](Loan::recall).
//! - A `Held` that is dropped drops the value, also during a panic, and the owner is told. So no thread waits for a value that is
//!   lost.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
};

use super::primitives::{Condvar, Mutex, block_on, lock};
use crate::limits::LOAN_GRACE;

/// ```text
///   Owned --give_back, after a borrower has asked--> Free --borrow--> Lent
///     ^                                               | ^              |
///     `---------recall, or take after a while---------' `--give_back---'
/// ```
pub(crate) struct Loan<T> {
    state: Mutex<State<T>>,
    /// Notified when the owner may take the value, or it is gone. Only the owner waits.
    changed: Condvar,
}

enum State<T> {
    /// The owner has the value (`None`), or takes it next.
    Owned {
        value: Option<Box<T>>,
        /// True exactly when a borrower has asked since the owner took the value.
        is_wanted: bool,
    },
    /// A borrower has the value.
    Lent,
    /// No thread has the value.
    Free {
        value: Box<T>,
        /// True exactly when the owner has seen it here before.
        is_seen: bool,
    },
    /// The value was dropped.
    Gone,
}

impl<T> Loan<T> {
    /// The owner is to bring the value with [`bring`](Self::bring).
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::owned(false)),
            changed: Condvar::new(),
        }
    }

    /// Brings the value, which the owner then has. Called once.
    pub(crate) fn bring(&self, value: T) -> Held<'_, T> {
        // The state says so already. A borrower may have asked meanwhile.
        Held {
            loan: self,
            value: Some(Box::new(value)),
        }
    }

    /// Takes the value as its owner. Blocks while borrowers have it or have just had it. Returns `None` if the value is gone.
    pub(crate) fn take(&self) -> Option<Held<'_, T>> {
        let mut state = lock(&self.state);
        loop {
            *state = match mem::replace(&mut *state, State::Gone) {
                State::Gone => return None,
                State::Owned {
                    value: Some(value),
                    is_wanted,
                } => {
                    // A borrower may have asked meanwhile. It asks once, so that this must not be forgotten.
                    return Some(self.hold(&mut state, State::owned(is_wanted), value));
                }
                State::Free {
                    value,
                    is_seen: true,
                } => return Some(self.hold(&mut state, State::owned(false), value)),
                State::Free { value, .. } => State::Free {
                    value,
                    is_seen: true,
                },
                other => other,
            };
            // Notifying the owner for each borrower that leaves would be a system call for each message. So the owner looks from
            // time to time.
            state = block_on(&self.changed, state, Some(LOAN_GRACE));
        }
    }

    /// Whether a borrower has asked for the value since the owner took it.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(
            *lock(&self.state),
            State::Owned {
                is_wanted: true,
                ..
            }
        )
    }

    /// Borrows the value if no thread has it. If the owner has it and no borrower has asked yet, calls `ask`, which must bring the
    /// owner to look at [`is_wanted`](Self::is_wanted).
    pub(crate) fn borrow(&self, ask: impl FnOnce()) -> Option<Held<'_, T>> {
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Lent) {
            State::Free { value, .. } => return Some(self.hold(&mut state, State::Lent, value)),
            State::Owned {
                value,
                is_wanted: false,
            } => {
                *state = State::Owned {
                    value,
                    is_wanted: true,
                };
                drop(state);
                ask();
            }
            other => *state = other,
        }
        None
    }

    /// Has the owner take the value at once if no thread has it. Returns whether that is so.
    pub(crate) fn recall(&self) -> bool {
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Gone) {
            State::Free { value, .. } => {
                *state = State::Owned {
                    value: Some(value),
                    is_wanted: false,
                };
                self.changed.notify_one();
                true
            }
            other => {
                *state = other;
                false
            }
        }
    }

    fn hold(&self, state: &mut State<T>, holder: State<T>, value: Box<T>) -> Held<'_, T> {
        *state = holder;
        Held {
            loan: self,
            value: Some(value),
        }
    }
}

impl<T> State<T> {
    /// The owner has the value.
    fn owned(is_wanted: bool) -> Self {
        Self::Owned {
            value: None,
            is_wanted,
        }
    }
}

impl<T> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}

/// The value, as long as this thread has it. Dropping it drops the value, and [`Loan::take`] then returns `None`.
pub(crate) struct Held<'a, T> {
    loan: &'a Loan<T>,
    /// `None` only once it was given back.
    value: Option<Box<T>>,
}

impl<T> Held<'_, T> {
    /// Gives the value back. A borrower may have it next. If none comes, the owner takes it after a while.
    pub(crate) fn give_back(mut self) {
        if let Some(value) = self.value.take() {
            *lock(&self.loan.state) = State::Free {
                value,
                is_seen: false,
            };
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().expect(HELD)
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect(HELD)
    }
}

/// Why a `Held` has a value.
const HELD: &str = "both calls that take the value take `self` as well";

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // First, and without the lock: the owner returns from `take` when all of it is dropped.
            drop(value);
            *lock(&self.loan.state) = State::Gone;
            self.loan.changed.notify_one();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::sync::{Pending, WakeFlag};

    #[test]
    fn loom_two_borrowers_and_the_owner_use_the_value_in_turn() {
        loom::model(|| {
            let loan = Arc::new(Loan::new());
            loan.bring(0).give_back();
            let borrowers: Vec<_> = (0..2)
                .map(|_| {
                    let loan = Arc::clone(&loan);
                    thread::spawn(move || use_once(loan.borrow(|| {})))
                })
                .collect();
            // Not recalled while a borrower has it: `take` would wait for the time to pass, which loom does not model.
            let mut uses = match loan.recall() {
                true => use_once(loan.take()),
                false => 0,
            };
            for borrower in borrowers {
                uses += borrower.join().unwrap();
            }
            // A borrower that came while the owner was about to take the value has only asked.
            assert!(uses >= 1 && loan.recall());
            assert_eq!(*loan.take().unwrap(), uses);
            assert!(loan.take().is_none(), "it was dropped");
        });
    }

    fn use_once(held: Option<Held<'_, u32>>) -> u32 {
        let Some(mut held) = held else {
            return 0;
        };
        *held += 1;
        held.give_back();
        1
    }

    #[test]
    fn loom_notification_reaches_the_thread_that_turns_or_recalls_the_value() {
        loom::model(|| {
            let loan = Arc::new(Loan::new());
            let (requests, recalled) = (Arc::new(Pending::new()), Arc::clone(&loan));
            let flag = Arc::new(WakeFlag::new(move || {
                recalled.recall();
            }));
            // Not through `borrow`, so that the model is small.
            loan.bring(0).give_back();
            flag.mark_running();
            flag.rearm();
            let notifier = {
                let (flag, requests) = (Arc::clone(&flag), Arc::clone(&requests));
                thread::spawn(move || {
                    requests.push(());
                    flag.notify();
                })
            };
            // A receiver that runs one turn and leaves.
            let mut done = Vec::new();
            if let Some(held) = loan.borrow(|| {}) {
                flag.mark_running();
                if flag.take_notified() {
                    requests.take_all(&mut done);
                }
                held.give_back();
                flag.rearm();
            }
            notifier.join().unwrap();
            if done.is_empty() {
                // Does not block: else loom reports a deadlock.
                assert!(loan.take().is_some() && flag.take_notified());
                requests.take_all(&mut done);
            }
            assert_eq!(done.len(), 1);
        });
    }

    #[test]
    fn loom_owner_learns_that_a_borrower_has_dropped_the_value() {
        loom::model(|| {
            let loan = Arc::new(Loan::new());
            loan.bring(0).give_back();
            let held = loan.borrow(|| {});
            let owner = {
                let loan = Arc::clone(&loan);
                thread::spawn(move || loan.take().is_none())
            };
            drop(held);
            assert!(owner.join().unwrap());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        panic::{self, AssertUnwindSafe},
        sync::Arc,
        thread,
    };

    use super::*;

    #[test]
    fn owner_takes_a_value_that_no_borrower_comes_for() {
        let loan = Loan::new();
        loan.bring(1).give_back();
        let held = loan.borrow(|| panic!("no thread has it")).unwrap();
        assert!(loan.borrow(|| panic!("no owner has it")).is_none());
        held.give_back();
        assert_eq!(*loan.take().unwrap(), 1);
    }

    #[test]
    fn owner_is_asked_once() {
        let loan = Loan::new();
        let held = loan.bring(1);
        let mut asked = 0;
        for _ in 0..2 {
            assert!(loan.borrow(|| asked += 1).is_none());
        }
        assert!(asked == 1 && loan.is_wanted() && !loan.recall());
        held.give_back();
        assert!(loan.recall() && !loan.recall());
        assert!(loan.borrow(|| asked += 1).is_none());
        // Not forgotten when the owner takes it.
        let held = loan.take().unwrap();
        assert!(asked == 2 && loan.is_wanted());
        held.give_back();
        assert!(loan.borrow(|| ()).is_some());
    }

    #[test]
    fn value_is_dropped_by_a_panic_and_the_owner_told() {
        let (loan, value) = (Arc::new(Loan::new()), Arc::new(()));
        loan.bring(Arc::clone(&value)).give_back();
        let owner = {
            let loan = Arc::clone(&loan);
            let held = loan.borrow(|| ()).unwrap();
            let owner = {
                let loan = Arc::clone(&loan);
                thread::spawn(move || loan.take().is_none())
            };
            let panicked = panic::catch_unwind(AssertUnwindSafe(move || {
                let _held = held;
                panic!("as in a logger");
            }));
            assert!(panicked.is_err());
            owner
        };
        assert!(owner.join().unwrap());
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
