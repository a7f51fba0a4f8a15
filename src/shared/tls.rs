//! Certificates that are to replace those of the loop.
//!
//! Nothing here verifies or reads them.

use std::{sync::Arc, time::SystemTime};

use crate::{
    sync::{Mutex, lock},
    tls::{Tls, TlsContext},
};

/// The TLS of the loop as other threads see it.
#[derive(Debug, Default)]
pub(crate) struct TlsState(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The newest that was loaded. `None` if TLS is not configured.
    newest: Option<Arc<TlsContext>>,
    /// True exactly when the loop has not taken it yet.
    is_new: bool,
    /// Why the last one could not be loaded, until the loop has taken it.
    failure: Option<String>,
}

/// What was loaded since the loop has asked for the last time.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) context: Option<Arc<TlsContext>>,
    pub(crate) failure: Option<String>,
}

impl TlsState {
    /// The loop starts with this.
    pub(crate) fn start(&self, context: Arc<TlsContext>) {
        lock(&self.0).newest = Some(context);
    }

    /// Returns `false` if the loop speaks no TLS.
    pub(super) fn reload(&self, tls: Tls) -> bool {
        let mut state = lock(&self.0);
        let Some(newest) = &state.newest else {
            return false;
        };
        state.newest = Some(Arc::new(newest.with(tls)));
        state.is_new = true;
        true
    }

    /// When the newest certificate of this server expires, if that is known.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        lock(&self.0).newest.as_ref()?.not_after()
    }

    pub(super) fn reload_failed(&self, why: String) {
        lock(&self.0).failure = Some(why);
    }

    pub(crate) fn take(&self) -> Reload {
        let mut state = lock(&self.0);
        let is_new = std::mem::take(&mut state.is_new);
        Reload {
            context: is_new.then(|| state.newest.clone()).flatten(),
            failure: state.failure.take(),
        }
    }
}
