//! Binds what the addresses to listen on mean, and says what could not be bound.
//!
//! Nothing here waits or looks a name up.

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

/// Why an own address is not listened on, or one of the addresses of its name.
#[derive(Debug)]
enum Failure {
    /// Its name has no address.
    Nowhere,
    /// Its name has had more addresses than there may be sockets.
    Crowded,
    Bind {
        listener: usize,
        error: io::Error,
    },
}

impl Listeners {
    /// Binds what can be bound of an own address, and says when that is tried again.
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

    /// Binds each address of an own one that no socket takes yet. Returns whether one is listened on, and what has failed.
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
        // What the name does not mean any more needs no try.
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
            if at.port() != 0 && self.listeners.iter().any(|listener| listener.takes(at)) {
                is_taken = true;
                self.changed |= self.vacate(index, at);
                continue;
            }
            let Some(listener) = self.listener_for(index, at) else {
                failures.push(Failure::Crowded);
                break;
            };
            match net.listen(listener, at) {
                Ok(at) => {
                    let own = &mut self.own[index];
                    own.port = at.port();
                    let listener = &mut self.listeners[listener];
                    listener.state = State::Open { at, resting: None };
                    // Whoever connected since the socket was opened is announced by no edge that we can rely on.
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

    /// The number of the socket for this address, if there can be one more.
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

    /// Another socket takes this address: it is not tried. Returns whether it was.
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

    /// Tells of a failure, unless it is an old one beside an address that is listened on.
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
