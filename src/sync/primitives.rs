//! The primitives of `std`, or loom's models of them, how payloads are dropped, and how tasks are woken.
//!
//! Nothing here knows what a lock guards.
//!
//! Rules for all that use them:
//!
//! - A critical section is short: no system call, no code of the application, no payload that is dropped, no waker that is cloned,
//!   woken or dropped.
//! - It leaves its state whole even if it panics, since the next thread enters it as if nothing had happened.
//! - Locks are taken in one order: the lock of [`Waiters`](super::Waiters) or of the registry of peers before that of an outbox or of
//!   the inbox, and never the other way round.

use std::{
    any::Any,
    mem,
    panic::{self, AssertUnwindSafe},
    task::Waker,
};

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

/// Blocks until notified, for at most `left` (`None`: without limit). Also works after a thread has panicked with the lock held.
pub(crate) fn block_on<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    left: Option<std::time::Duration>,
) -> MutexGuard<'a, T> {
    use std::sync::PoisonError;
    // A thread may wake without a notification, and another thread may come first: each caller looks at its state again.
    match left {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(left) => {
            condvar
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}

/// Locks a mutex, also after a thread has panicked while it held the lock: every critical section here leaves its state whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Drops a payload that is no longer needed. The caller holds no lock.
///
/// Dropping the last owner of a payload may run code of the application, and that code may panic. The panic hook of the process
/// reports the panic, and the panic ends here. Neither this thread nor this peer has caused it, and it must not unwind past work
/// that is still to be done for the peer. Payloads are dropped one at a time, since a second panic during the first would abort
/// the process.
#[inline] // Without this, the compiler inlines it in some callers only, which costs 18 instructions a frame.
pub(crate) fn release<T>(payload: T) {
    if let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        release_panicked(panicked);
    }
}

/// Wakes these tasks. The caller holds no lock.
///
/// A waker is code of an executor, and this thread may be that of the loop: a panic ends here, as in [`release`].
pub(crate) fn wake(tasks: Vec<Waker>) {
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
