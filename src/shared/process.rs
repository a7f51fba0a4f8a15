//! Recognizes handles that `fork(2)` has copied into a process without a loop.
//!
//! Nothing here is shared between threads: the process id is copied, and each thread has a flag of its own.

use std::{cell::Cell, process};

/// The process in which the loop was made. A process that was made by `fork(2)` without `execve(2)` has a copy of the memory and
/// shares the sockets, but has no loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u32);

thread_local! {
    /// True exactly when this thread has turned a loop.
    static TURNS_A_LOOP: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
thread_local! {
    /// Makes this thread act as if it were in a forked process, since a test cannot fork.
    pub(crate) static FORKED: Cell<bool> = const { Cell::new(false) };
}

impl Home {
    /// The process that this thread is in.
    pub(crate) fn here() -> Self {
        Self(process::id())
    }

    /// Whether this thread is in that process. This makes a system call (40 to 150 ns), so it is not called for a frame that waits.
    pub(crate) fn is_here(self) -> bool {
        #[cfg(test)]
        if FORKED.get() {
            return false;
        }
        self == Self::here()
    }

    /// Like [`is_here`](Self::is_here), but `true` without a system call on a thread that turns a loop, where latency matters most.
    pub(crate) fn is_here_or_turns(self) -> bool {
        TURNS_A_LOOP.get() || self.is_here()
    }
}

/// Whether this thread has turned a loop.
pub(crate) fn this_thread_turns_a_loop() -> bool {
    TURNS_A_LOOP.get()
}

/// Records whether this thread turns a loop. Returns what was recorded before.
pub(crate) fn set_turns_a_loop(turns: bool) -> bool {
    // Reset only by a `StandIn`. If another thread turns no loop any more, a check is left out, in processes that it forks. The
    // crate page says so.
    TURNS_A_LOOP.replace(turns)
}
