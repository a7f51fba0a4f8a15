//! Connections whose keys are nearly used up.
//!
//! Nothing here replaces them: the loop does.

use std::{fmt, sync::Arc};

use crate::{
    net::{Ready, traits::Waker},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
};

/// The tokens of worn connections, which any thread that writes adds to.
#[derive(Clone)]
pub(super) struct Worn(Arc<State>);

struct State {
    /// True exactly when `tokens` may hold some. It saves the loop a lock in each turn.
    any: AtomicBool,
    /// At most one for each link in each `TLS_RENEWED_EVERY_RECORDS`.
    tokens: Mutex<Vec<usize>>,
    waker: Waker,
}

impl Worn {
    pub(super) fn new(waker: Waker) -> Self {
        Self(Arc::new(State {
            any: AtomicBool::new(false),
            tokens: Mutex::new(Vec::new()),
            waker,
        }))
    }

    pub(super) fn add(&self, token: usize) {
        lock(&self.0.tokens).push(token);
        // Release: the loop that sees it finds the token.
        self.0.any.store(true, Ordering::Release);
        (self.0.waker)();
    }

    /// Reports the tokens that were added.
    pub(super) fn report(&self, ready: &mut Vec<Ready>) {
        if self.0.any.load(Ordering::Relaxed) && self.0.any.swap(false, Ordering::Acquire) {
            ready.extend(lock(&self.0.tokens).drain(..).map(Ready::Worn));
        }
    }
}

impl fmt::Debug for Worn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worn").finish_non_exhaustive()
    }
}
