//! The primitives of `std`, or loom's models of them, and how payloads are dropped.
//!
//! Nothing here knows what is locked.

use std::{
    any::Any,
    mem,
    panic::{self, AssertUnwindSafe},
};

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

/// Sleeps until notified, for at most `left`; also when a thread has panicked meanwhile.
pub(crate) fn sleep<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    left: Option<std::time::Duration>,
) -> MutexGuard<'a, T> {
    use std::sync::PoisonError;
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

/// Locks, also when a thread has panicked with the lock held: every critical section here leaves its state whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Drops a payload that is done with, without a lock. The last owner of a payload runs the code of the application that made
/// it, and that code may panic. The panic is reported where every panic is (the hook of the process) and ends here: it is the
/// fault of neither this thread nor this peer, and must not unwind past work that is still to be done for the peer. One at a
/// time: a second panic during the first would abort the process.
#[inline] // Left to itself the compiler inlines it in some callers and not in others: 18 instructions a frame.
pub(crate) fn release<T>(payload: T) {
    if let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        release_panicked(panicked);
    }
}

/// Frees what a panic carries, which is somebody's as well. Where freeing that panics too, it leaks. Not inlined: it is
/// called from the path of every frame, as good as never.
#[cold]
fn release_panicked(panicked: Box<dyn Any + Send>) {
    panic::catch_unwind(AssertUnwindSafe(|| drop(panicked))).unwrap_or_else(mem::forget);
}
