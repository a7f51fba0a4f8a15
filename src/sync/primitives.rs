//! The primitives of `std`, or loom's models of them, how payloads are dropped, and how tasks are woken.
//!
//! Nothing here knows what a lock guards.
//!
//! Rules for all that use them:
//!
//! - A critical section is short: no system call, no code of the application, no payload that is dropped, no waker that is cloned,
//!   woken or dropped. Debug builds check that: see [`Guard`].
//! - It leaves its state whole even if it panics, since the next thread enters it as if nothing had happened.
//! - Locks are taken in one order: the lock of [`Waiters`](super::Waiters) or of the registry of peers before that of an outbox or of
//!   the inbox, and never the other way round.

use std::{
    any::Any,
    mem,
    ops::{Deref, DerefMut},
    panic::{self, AssertUnwindSafe},
    task::Waker,
};

use super::held_locks::{HeldLock, assert_none_held};

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread::yield_now,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread::yield_now,
};

/// A lock that this thread holds. In debug builds each thread counts those, and whatever may run code of the application asserts that there
/// are none: a waker or a payload that calls the library would else wait for its own thread.
#[derive(Debug)]
pub(crate) struct Guard<G> {
    // First: the lock is released, and then it does not count any more.
    guard: G,
    _held: HeldLock,
}

impl<G> Guard<G> {
    #[inline(always)]
    pub(crate) fn new(guard: G) -> Self {
        Self {
            guard,
            _held: HeldLock::new(),
        }
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline(always)]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// Blocks until notified, for at most `left` (`None`: without limit). Also works after a thread has panicked with the lock held.
pub(crate) fn block_on<'a, T>(
    condvar: &Condvar,
    guard: Guard<MutexGuard<'a, T>>,
    left: Option<std::time::Duration>,
) -> Guard<MutexGuard<'a, T>> {
    use std::sync::PoisonError;
    // A thread may wake without a notification, and another thread may come first: each caller looks at its state again.
    let Guard { guard, _held } = guard;
    let guard = match left {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(left) => {
            condvar
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    };
    Guard { guard, _held }
}

/// Locks a mutex, also after a thread has panicked while it held the lock: every critical section here leaves its state whole.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Guard<MutexGuard<'_, T>> {
    Guard::new(
        mutex
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    )
}

/// Drops a payload that is no longer needed. The caller holds no lock.
///
/// Dropping the last owner of a payload may run code of the application, and that code may panic. The panic hook of the process
/// reports the panic, and the panic ends here. Neither this thread nor this peer has caused it, and it must not unwind past work
/// that is still to be done for the peer. Payloads are dropped one at a time, since a second panic during the first would abort
/// the process.
#[inline] // Without this, the compiler inlines it in some callers only, which costs 18 instructions a frame.
pub(crate) fn release<T>(payload: T) {
    assert_none_held();
    if let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        release_panicked(panicked);
    }
}

/// Wakes these tasks. The caller holds no lock.
///
/// A waker is code of an executor, and this thread may be that of the loop: a panic ends here, as in [`release`].
pub(crate) fn wake(tasks: Vec<Waker>) {
    assert_none_held();
    for waker in tasks {
        if let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            release_panicked(panicked);
        }
    }
}

/// Drops the value that a panic carries, which may run code of the application as well. If that panics too, the value is leaked.
/// Not inlined: the call is on the path of every frame, but is almost never made.
#[cold]
fn release_panicked(panicked: Box<dyn Any + Send>) {
    // Leaked and not dropped once more: the value of that panic could panic as well, and so on without end.
    panic::catch_unwind(AssertUnwindSafe(|| drop(panicked))).unwrap_or_else(mem::forget);
}

#[cfg(all(test, not(loom), debug_assertions))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "code of the application may run under a lock")]
    fn payload_that_is_dropped_under_a_lock_is_noticed() {
        let mutex = Mutex::new(());
        let _guard = lock(&mutex);
        release("a payload");
    }
}
