//! One wake per nap: how other threads get the loop's attention.
//!
//! Nothing here carries work; the work is put where the loop looks ([`Notes`], an outbox, an inbox) before the bell is rung.

use std::fmt;

use super::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
    lock,
};

/// A flag in front of the system call that wakes the loop. Only the first ringer of a nap pays for the call.
pub(crate) struct Doorbell {
    /// True exactly when the loop was woken and has not yet looked.
    rung: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            rung: AtomicBool::new(false),
            wake: Box::new(wake),
        }
    }

    /// Makes sure that the loop looks once more at all that was put before this call.
    pub(crate) fn ring(&self) {
        // AcqRel: releases the work put before to `lower`, which reads this or a later value.
        if !self.rung.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Called by the loop before it looks at the work, never after: a ring in between must wake it again. Returns
    /// whether somebody rang.
    pub(crate) fn lower(&self) -> bool {
        // A swap and not a store: as a read-modify-write it sees the ringer's swap and so acquires the ringer's work.
        self.rung.swap(false, Ordering::AcqRel)
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
            // The loop: sleeps while nobody wakes it, which is modelled by looking only when a wake was counted.
            let (mut read, mut room, mut seen) = (0, Vec::new(), 0);
            while read < 2 {
                let now = wakes.load(Ordering::Acquire);
                if now == seen {
                    thread::yield_now();
                    continue;
                }
                seen = now;
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
    fn many_rings_in_one_nap_wake_once() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let bell = Doorbell::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (0..1000).for_each(|_| bell.ring());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(bell.lower());
        assert!(!bell.lower());
        bell.ring();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }
}
