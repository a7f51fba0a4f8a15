//! An executor for tests, also for models of loom.
//!
//! Nothing here is in the library.

use std::{
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::primitives::{Condvar, Mutex, block_on, lock};

/// A waker that counts.
#[derive(Debug)]
pub(crate) struct Signal {
    wakes: Mutex<usize>,
    woken: Condvar,
}

impl Signal {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let signal = Arc::new(Self {
            wakes: Mutex::new(0),
            woken: Condvar::new(),
        });
        let waker = Waker::from(Arc::clone(&signal));
        (signal, waker)
    }

    /// The number of wakes since the last call.
    #[cfg(not(loom))]
    pub(crate) fn take(&self) -> usize {
        mem::take(&mut *lock(&self.wakes))
    }

    fn wait(&self) {
        let mut wakes = lock(&self.wakes);
        while mem::take(&mut *wakes) == 0 {
            wakes = block_on(&self.woken, wakes, None);
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *lock(&self.wakes) += 1;
        self.woken.notify_one();
    }
}

/// Polls a future on this thread until it is done. Blocks this thread meanwhile.
pub(crate) fn complete<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (signal, waker) = Signal::new();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => signal.wait(),
        }
    }
}
