//! What all connections of one network share.
//!
//! Nothing here reads or writes.

use std::{fmt, mem, sync::Arc, time::Instant};

use super::worn::Worn;
use crate::{
    limits::TLS_SCRATCH_BYTES,
    net::traits::Waker,
    outbox::Clock,
    sync::{Guard, Mutex, MutexGuard, lock},
    tls::TlsContext,
};

pub(super) struct Common {
    /// The identity of this server and those of its peers, as they are now. A reload replaces it.
    context: Mutex<Arc<TlsContext>>,
    clock: Clock,
    /// Ciphertext that was just read. Only the loop uses it.
    scratch: Mutex<Box<[u8]>>,
    pub(super) worn: Worn,
}

impl Common {
    pub(super) fn new(context: Arc<TlsContext>, clock: Clock, waker: Waker) -> Self {
        Self {
            context: Mutex::new(context),
            clock,
            scratch: Mutex::new(vec![0; TLS_SCRATCH_BYTES].into_boxed_slice()),
            worn: Worn::new(waker),
        }
    }

    pub(super) fn context(&self) -> Arc<TlsContext> {
        Arc::clone(&lock(&self.context))
    }

    pub(super) fn set_context(&self, context: Arc<TlsContext>) {
        let older = mem::replace(&mut *lock(&self.context), context);
        // Not under the lock: the configurations of rustls have parts of the application.
        drop(older);
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(super) fn scratch(&self) -> Guard<MutexGuard<'_, Box<[u8]>>> {
        lock(&self.scratch)
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").finish_non_exhaustive()
    }
}
