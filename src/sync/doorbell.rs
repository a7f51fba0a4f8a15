//! One wake per nap, and none while the loop is awake: how other threads get its attention.
//!
//! Nothing here carries work; the work is put where the loop looks ([`Notes`], an outbox, an inbox) before the bell is rung.

use std::fmt;

use super::primitives::{
    Mutex,
    atomic::{AtomicU8, Ordering},
    lock,
};

/// A state in front of the system call that wakes the loop: who rings while it is awake pays nothing.
///
/// ```text
///   Asleep <--doze-- Awake --ring--> Rung --lower--> Awake
///     |  `---rise---->^               ^
///     `-----ring, which wakes --------'
/// ```
pub(crate) struct Doorbell {
    state: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The loop is about to sleep, or does.
const ASLEEP: u8 = 0;
/// The loop will look before it sleeps.
const AWAKE: u8 = 1;
/// The same, and there is something to find.
const RUNG: u8 = 2;

impl Doorbell {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            state: AtomicU8::new(ASLEEP),
            wake: Box::new(wake),
        }
    }

    /// Makes sure that the loop looks once more at all that was put before this call.
    pub(crate) fn ring(&self) {
        // AcqRel: releases the work put before to `lower`, which reads this or a later value.
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            (self.wake)();
        }
    }

    /// Whether somebody has rung, at the price of a load: for a loop that spins.
    pub(crate) fn is_rung(&self) -> bool {
        // Relaxed: `lower` orders the rest.
        self.state.load(Ordering::Relaxed) == RUNG
    }

    /// The loop is awake from here on.
    pub(crate) fn rise(&self) {
        // Relaxed: nothing is looked at before `lower`. What was rung stays rung.
        let _ = self
            .state
            .compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Called by the loop before it looks at the work, never after: a ring in between must bring it back. Returns
    /// whether somebody rang.
    pub(crate) fn lower(&self) -> bool {
        // A swap and not a store: as a read-modify-write it sees the ringer's swap and so acquires the ringer's work.
        self.state.swap(AWAKE, Ordering::AcqRel) == RUNG
    }

    /// Whether the loop may sleep: nobody has rung since it looked. Who rings from now on wakes it.
    pub(crate) fn doze(&self) -> bool {
        // Relaxed: the answer is in the state alone.
        self.state
            .compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed)
            != Err(RUNG)
    }

    /// The loop stops turning for now, and is to be woken at once for what it has not looked at.
    pub(crate) fn hand_over(&self) {
        if !self.doze() {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}

/// Notes for the loop, in the order in which they were left. Who leaves them bounds their number.
#[derive(Debug)]
pub(crate) struct Notes<T>(Mutex<Vec<T>>);

impl<T> Notes<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn leave(&self, note: T) {
        lock(&self.0).push(note);
    }

    /// Moves all notes into `into`, which gives its room in exchange.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        into.clear();
        std::mem::swap(&mut *lock(&self.0), into);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    #[test]
    fn loom_every_note_is_read_after_the_wake_that_follows_it() {
        loom::model(|| {
            let wakes = Arc::new(AtomicUsize::new(0));
            let notes = Arc::new(Notes::new());
            let counted = Arc::clone(&wakes);
            let bell = Arc::new(Doorbell::new(move || {
                counted.fetch_add(1, Ordering::AcqRel);
            }));
            let ringers: Vec<_> = (0..2)
                .map(|n| {
                    let (bell, notes) = (Arc::clone(&bell), Arc::clone(&notes));
                    thread::spawn(move || {
                        notes.leave(n);
                        bell.ring();
                    })
                })
                .collect();
            // The loop: when it may sleep, it looks again only once a wake was counted.
            let (mut read, mut room, mut seen) = (0, Vec::new(), 0);
            while read < 2 {
                if bell.doze() {
                    while wakes.load(Ordering::Acquire) == seen {
                        thread::yield_now();
                    }
                    seen = wakes.load(Ordering::Acquire);
                }
                bell.rise();
                bell.lower();
                notes.take(&mut room);
                read += room.len();
            }
            for ringer in ringers {
                ringer.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use super::*;

    #[test]
    fn who_rings_wakes_only_a_loop_that_sleeps() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let bell = Doorbell::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (0..1000).for_each(|_| bell.ring());
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "once in one nap");
        bell.rise();
        assert!(bell.lower());
        assert!(!bell.lower());
        bell.ring();
        assert!(bell.is_rung() && !bell.doze(), "it looks once more");
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "it is awake");
        bell.hand_over();
        assert_eq!(wakes.load(Ordering::Relaxed), 2, "nobody turns it now");
        assert!(bell.lower() && bell.doze());
        bell.ring();
        assert_eq!(wakes.load(Ordering::Relaxed), 3);
    }
}
