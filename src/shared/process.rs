//! The process that the loop is in, for handles that `fork(2)` has copied into another one.
//!
//! Nothing here but a number and a flag.

use std::{cell::Cell, process};

/// The process in which the loop was made. One that was made by `fork(2)` without `execve(2)` has a copy of its memory and
/// shares its sockets, but has no loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u32);

thread_local! {
    /// True exactly when this thread has turned a loop.
    static TURNS_A_LOOP: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
thread_local! {
    /// As if this thread were in another process: a test cannot fork.
    pub(crate) static FORKED: Cell<bool> = const { Cell::new(false) };
}

impl Home {
    /// The process that this thread is in.
    pub(crate) fn here() -> Self {
        Self(process::id())
    }

    /// Whether this thread is in it. A system call, 40 to 150 ns: nothing to be asked with every frame.
    pub(crate) fn is_here(self) -> bool {
        #[cfg(test)]
        if FORKED.get() {
            return false;
        }
        self == Self::here()
    }

    /// The same, but not asked on a thread that turns a loop, where answers are in a hurry.
    pub(crate) fn is_here_or_turns(self) -> bool {
        TURNS_A_LOOP.get() || self.is_here()
    }
}

/// This thread turns a loop.
pub(crate) fn turns_a_loop() {
    TURNS_A_LOOP.set(true);
}
