//! Certificates, and names of peers, that are to replace those of the loop.
//!
//! Nothing here verifies or reads certificates.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use crate::{
    config::{Server, check_named},
    error::ConfigError,
    proto::Sid,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
    tls::{Identities, PeerName, Tls, TlsContext},
};

/// The TLS of the loop as other threads see it.
#[derive(Debug, Default)]
pub(crate) struct TlsState {
    /// True exactly when the loop has something to take. It saves a lock in each turn that was woken.
    has_news: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest that was loaded. `None` if TLS is not configured.
    newest: Option<Arc<TlsContext>>,
    /// True exactly when the loop has not taken it yet.
    is_new: bool,
    /// True exactly when certificates were loaded since the loop has taken the last one, and not only the names of the peers changed.
    is_reload: bool,
    /// Why the last one could not be loaded, until the loop has taken it.
    failure: Option<String>,
}

/// What was loaded since the loop has asked for the last time.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) context: Option<Arc<TlsContext>>,
    /// True exactly when certificates were loaded.
    pub(crate) is_reload: bool,
    pub(crate) failure: Option<String>,
}

impl TlsState {
    /// The loop starts with this.
    pub(crate) fn start(&self, context: Arc<TlsContext>) {
        lock(&self.state).newest = Some(context);
    }

    /// Returns `false` if the loop speaks no TLS.
    pub(super) fn reload(&self, tls: Tls) -> bool {
        let mut state = lock(&self.state);
        let Some(newest) = &state.newest else {
            return false;
        };
        let newest = Arc::new(newest.with(tls));
        let older = state.newest.replace(newest);
        (state.is_new, state.is_reload) = (true, true);
        drop(state);
        // Not under the lock: the configurations of rustls have parts of the application.
        drop(older);
        self.set_news();
        true
    }

    /// The names of the peers when these are all members, with what else was given for them. `None` if they are those now, or without TLS.
    pub(super) fn next_names(
        &self,
        own: Sid,
        members: &[Server],
        given: BTreeMap<Sid, Vec<PeerName>>,
        left: &[Sid],
    ) -> Result<Option<Identities>, ConfigError> {
        let is_member = |sid| members.iter().any(|server| server.sid == sid);
        let bad = |why| ConfigError::BadOption {
            option: "peer_names",
            why,
        };
        if let Some(sid) = given.keys().find(|sid| !is_member(**sid)) {
            return Err(bad(format!("server {sid} is no member")));
        }
        let Some(newest) = &lock(&self.state).newest else {
            return match given.is_empty() {
                true => Ok(None),
                false => Err(bad("certificates have names only with tls".to_owned())),
            };
        };
        let servers = members
            .iter()
            .map(|server| (server.sid, server.addresses.as_slice()));
        let identities = newest.identities.with_members(servers, given, left)?;
        check_named(own, members, &identities)?;
        Ok(Some(identities).filter(|identities| *newest.identities != *identities))
    }

    pub(super) fn set_names(&self, identities: Identities) {
        self.change_names(|_| Some(identities));
    }

    /// The loop has parted with this server, which is no member: no certificate is one of its any more. Returns whether one was.
    pub(super) fn forget(&self, sid: Sid) -> bool {
        self.change_names(|identities| identities.without(sid))
    }

    /// Returns whether `change` has changed the names.
    fn change_names(&self, change: impl FnOnce(&Identities) -> Option<Identities>) -> bool {
        let mut state = lock(&self.state);
        let Some(newest) = &state.newest else {
            return false;
        };
        let Some(identities) = change(&newest.identities) else {
            return false;
        };
        // The configurations of rustls are the same, so that nothing of the application is dropped with the older context.
        state.newest = Some(Arc::new(newest.with_identities(Arc::new(identities))));
        state.is_new = true;
        drop(state);
        self.set_news();
        true
    }

    /// When the newest certificate of this server expires, if that is known.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        lock(&self.state).newest.as_ref()?.not_after()
    }

    pub(super) fn reload_failed(&self, why: String) {
        lock(&self.state).failure = Some(why);
        self.set_news();
    }

    fn set_news(&self) {
        // Release: pairs with the swap in `take`.
        self.has_news.store(true, Ordering::Release);
    }

    /// What was loaded since the loop has called this for the last time.
    #[inline]
    pub(crate) fn take(&self) -> Option<Reload> {
        // Relaxed: the loop was woken after the store, and the swap reads the same or a later one.
        let has_news =
            self.has_news.load(Ordering::Relaxed) && self.has_news.swap(false, Ordering::Acquire);
        has_news.then(|| self.take_news())
    }

    fn take_news(&self) -> Reload {
        let mut state = lock(&self.state);
        let is_new = std::mem::take(&mut state.is_new);
        Reload {
            context: is_new.then(|| state.newest.clone()).flatten(),
            is_reload: std::mem::take(&mut state.is_reload),
            failure: state.failure.take(),
        }
    }
}
