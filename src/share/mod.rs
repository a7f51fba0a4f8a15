//! What more than one thread touches: the outbox of each peer, the doorbell of the loop, the inbox, spare buffers.
//!
//! Nothing here knows sids, rules or the operating system. Each type hides one mutex or one flag, is used through `&self`,
//! and is model-checked with loom: `RUSTFLAGS="--cfg loom" cargo test --release --lib loom_`.

use std::{
    any::Any,
    mem,
    panic::{self, AssertUnwindSafe},
};

mod doorbell;
#[cfg(test)]
mod fixture;
mod inbox;
mod outbox;
mod pen;
mod queue;
mod slot;
mod spares;
mod waiters;

pub(crate) use doorbell::{Doorbell, Notes};
pub use inbox::InboxFull;
pub(crate) use inbox::{Inbox, Nothing, Parcel, Popped, Refused, Room, Wait};
pub use outbox::Wire;
pub(crate) use outbox::{Ask, Outbox, Put, Tally};
pub(crate) use spares::Spares;

/// Drops a payload that is done with, without a lock. The last owner of a payload runs the code of the application that made
/// it, and that code may panic. The panic is reported where every panic is (the hook of the process) and ends here: it is the
/// fault of neither this thread nor this peer, and must not unwind past work that is still to be done for the peer. One at a
/// time: a second panic during the first would abort the process.
#[inline] // Left to itself the compiler inlines it in some callers and not in others: 18 instructions a frame.
fn release<T>(payload: T) {
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

/// The primitives of `std`, or loom's models of them.
mod sync {
    #[cfg(not(loom))]
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

    #[cfg(loom)]
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

    /// Sleeps until notified, for at most `left`; also when a thread has panicked meanwhile.
    pub(super) fn sleep<'a, T>(
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
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
