//! Connections whose keys are nearly used up.
//!
//! Nothing here replaces them: the loop does.

use std::fmt;

use crate::{
    net::{Ready, traits::Waker},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
};

/// The tokens of worn connections, which any thread that writes adds to.
pub(super) struct Worn {
    /// True exactly when `tokens` may hold some. It saves the loop a lock in each turn.
    any: AtomicBool,
    /// At most one for each link in each `TLS_RENEWED_EVERY_RECORDS`.
    tokens: Mutex<Vec<usize>>,
    waker: Waker,
}

impl Worn {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            any: AtomicBool::new(false),
            tokens: Mutex::new(Vec::new()),
            waker,
        }
    }

    pub(super) fn add(&self, token: usize) {
        lock(&self.tokens).push(token);
        // Release: the loop that sees it finds the token.
        self.any.store(true, Ordering::Release);
        (self.waker)();
    }

    /// Reports the tokens that were added.
    pub(super) fn report(&self, ready: &mut Vec<Ready>) {
        if self.any.load(Ordering::Relaxed) && self.any.swap(false, Ordering::Acquire) {
            ready.extend(lock(&self.tokens).drain(..).map(Ready::Worn));
        }
    }
}

impl fmt::Debug for Worn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worn").finish_non_exhaustive()
    }
}
