//! Binds the addresses to listen on, and reports those that could not be bound.
//!
//! Nothing here waits, and nothing looks up a name.

use std::{io, mem, net::SocketAddr, time::Instant};

use super::{
    ListenerAction, Listeners,
    listener::{Listener, State, doubled, is_same_host},
    own::Stage,
};
use crate::{
    event::Event,
    limits::{LISTEN_LOOKUP_PAUSE, NAME_ADDRESSES_MAX},
    net::Net,
};

/// Why an own address, or one of the addresses of its name, has no listener.
#[derive(Debug)]
enum Failure {
    /// The name has no address.
    Nowhere,
    /// The name has had more addresses than it may have sockets.
    Crowded,
    Bind {
        listener: usize,
        error: io::Error,
    },
}

impl Listeners {
    /// Binds the addresses of an own address, and sets the time of the next try.
    pub(super) fn open<N: Net>(
        &mut self,
        net: &mut N,
        index: usize,
        now: Instant,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        let was_open = self.own[index].is_open;
        let (is_open, failures) = self.bind(net, index, listener_actions);
        let has_failed = !failures.is_empty();
        for failure in failures {
            self.report(index, failure, is_open, listener_actions);
        }
        let own = &mut self.own[index];
        self.changed |= was_open != is_open;
        own.is_open = is_open;
        if is_open {
            own.tries = match (was_open, has_failed) {
                (true, true) => own.tries.saturating_add(1),
                (_, false) | (false, _) => 0,
            };
            let pause = match has_failed {
                true => doubled(self.pause, own.tries).min(LISTEN_LOOKUP_PAUSE),
                false => LISTEN_LOOKUP_PAUSE,
            };
            own.stage = match own.address.ip() {
                Some(_) => Stage::Settled,
                None => Stage::Waiting { until: now + pause },
            };
            return;
        }
        own.tries = own.tries.saturating_add(1);
        if self.tries_max == 0 || own.tries < self.tries_max {
            own.stage = Stage::Waiting {
                until: now + self.pause,
            };
            return;
        }
        own.stage = Stage::Lost;
        own.known = Vec::new();
        let address = own.address.clone();
        self.changed = true;
        for listener in self
            .listeners
            .iter_mut()
            .filter(|listener| listener.own == index)
        {
            listener.state = State::Vacant;
        }
        listener_actions.push(ListenerAction::Emit(Event::ListenerLost { address }));
    }

    /// Binds each address of an own address that no listener takes yet. Returns whether one of them is open, and the failures.
    fn bind<N: Net>(
        &mut self,
        net: &mut N,
        index: usize,
        listener_actions: &mut Vec<ListenerAction>,
    ) -> (bool, Vec<Failure>) {
        let mut failures = Vec::new();
        let addresses = self.own[index].addresses();
        if addresses.is_empty() {
            failures.push(Failure::Nowhere);
        }
        // Addresses that the name does not have any more are not tried.
        for listener in self
            .listeners
            .iter_mut()
            .filter(|listener| listener.own == index)
        {
            let is_old = matches!(&listener.state, State::Trying { at, .. }
                if !addresses.iter().any(|there| is_same_host(there, at)));
            if is_old {
                listener.state = State::Vacant;
                self.changed = true;
            }
        }
        let mut is_taken = false;
        for mut at in addresses {
            at.set_port(self.own[index].port);
            self.take_over(index, at);
            // A socket of a replaced address does not count: it is about to be closed.
            let counts = |it: &&Listener| it.own == index || !self.own[it.own].is_retired;
            let mut others = self.listeners.iter().filter(counts);
            if at.port() != 0 && others.any(|listener| listener.takes(at)) {
                is_taken = true;
                self.changed |= self.vacate(index, at);
                continue;
            }
            let Some(listener) = self.listener_for(index, at) else {
                failures.push(Failure::Crowded);
                break;
            };
            match self.listen(net, listener, at) {
                Ok(at) => {
                    let own = &mut self.own[index];
                    // With port 0 the kernel has chosen one. The other addresses of the name are bound to the same.
                    own.port = at.port();
                    let listener = &mut self.listeners[listener];
                    listener.state = State::Open { at, resting: None };
                    // No reliable edge announces a connection that arrived while the socket was being opened.
                    listener.pending_since = Some(self.looked);
                    self.changed = true;
                    listener_actions.push(ListenerAction::Emit(Event::Listening { addr: at }));
                }
                Err(error) => failures.push(Failure::Bind { listener, error }),
            }
        }
        let is_open = |listener: &Listener| listener.own == index && listener.open_at().is_some();
        (is_taken || self.listeners.iter().any(is_open), failures)
    }

    /// The number of the listener for this address. `None` if there are too many.
    fn listener_for(&mut self, index: usize, at: SocketAddr) -> Option<usize> {
        let is_there = |listener: &Listener| matches!(&listener.state, State::Trying { at: there, .. } if is_same_host(there, &at));
        let is_vacant = |listener: &Listener| matches!(listener.state, State::Vacant);
        let of = |what: &dyn Fn(&Listener) -> bool| {
            let mut listeners = self.listeners.iter();
            listeners.position(|listener| listener.own == index && what(listener))
        };
        if let Some(listener) = of(&is_there) {
            return Some(listener);
        }
        let state = State::Trying { at, told: None };
        self.changed = true;
        if let Some(listener) = of(&is_vacant) {
            self.listeners[listener].state = state;
            return Some(listener);
        }
        let count = self
            .listeners
            .iter()
            .filter(|listener| listener.own == index)
            .count();
        (count < NAME_ADDRESSES_MAX).then(|| {
            self.listeners.push(Listener::new(index, state));
            self.listeners.len() - 1
        })
    }

    /// Another listener takes this address, so it is not tried any more. Returns whether it was being tried.
    fn vacate(&mut self, index: usize, at: SocketAddr) -> bool {
        let is_it = |listener: &&mut Listener| {
            listener.own == index
                && matches!(&listener.state, State::Trying { at: there, .. } if is_same_host(there, &at))
        };
        match self.listeners.iter_mut().find(is_it) {
            Some(listener) => {
                listener.state = State::Vacant;
                true
            }
            None => false,
        }
    }

    /// Reports a failure. While another address of the same own address is open, the same error is not reported again.
    fn report(
        &mut self,
        index: usize,
        failure: Failure,
        is_open: bool,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        let own = &self.own[index];
        let (address, error) = match failure {
            Failure::Nowhere => (
                own.address.clone(),
                format!("its name has no address: {}", own.said),
            ),
            Failure::Crowded => (
                own.address.clone(),
                format!(
                    "{NAME_ADDRESSES_MAX} addresses that its name has had are listened on, and no more until a restart"
                ),
            ),
            Failure::Bind { listener, error } => {
                let State::Trying { at, told } = &mut self.listeners[listener].state else {
                    return;
                };
                let kind = Some((error.kind(), error.raw_os_error()));
                // The server can be reached at another address. While it cannot, each try is reported.
                if mem::replace(told, kind) == kind && is_open {
                    return;
                }
                let error = match own.address.ip() {
                    Some(_) => error.to_string(),
                    None => format!("{error}; it is an address of {}", own.address.host()),
                };
                (own.spell(*at), error)
            }
        };
        listener_actions.push(ListenerAction::Emit(Event::ListenFailed { address, error }));
    }
}
