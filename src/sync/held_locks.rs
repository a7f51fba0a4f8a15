//! How many locks this thread holds, in debug builds. In others nothing is counted.
//!
//! Nothing here locks.

#[cfg(all(debug_assertions, not(loom)))]
use std::cell::Cell;

// Not with loom, which runs all threads of a model on one thread.
#[cfg(all(debug_assertions, not(loom)))]
thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// One lock of this thread, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldLock(());

impl HeldLock {
    #[inline(always)]
    pub(super) fn new() -> Self {
        #[cfg(all(debug_assertions, not(loom)))]
        HELD.with(|held| held.set(held.get() + 1));
        Self(())
    }
}

#[cfg(all(debug_assertions, not(loom)))]
impl Drop for HeldLock {
    fn drop(&mut self) {
        HELD.with(|held| held.set(held.get() - 1));
    }
}

/// Checks that this thread may run code of the application.
#[inline(always)]
pub(crate) fn assert_none_held() {
    #[cfg(all(debug_assertions, not(loom)))]
    HELD.with(|held| {
        assert_eq!(
            held.get(),
            0,
            "code of the application may run under a lock"
        );
    });
}
