//! A gate that blocks threads while it is closed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Open at first.
#[derive(Default)]
pub struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.lock() = true;
    }

    pub fn open(&self) {
        *self.lock() = false;
        self.opened.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        *self.lock()
    }

    /// Waits until it is open.
    pub fn pass(&self) {
        let passed = self.opened.wait_while(self.lock(), |is_closed| *is_closed);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
