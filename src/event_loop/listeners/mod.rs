//! The listeners: one for each address of this server. One that cannot be opened is tried again; one that cannot accept pauses.
//!
//! No error of an accepted connection closes its listener, and the loss of a listener does not end the process.
//!
//! The loop listens on all addresses of a name, and each address fails alone. While none of them is open, the name is looked up and
//! tried again after the configured pause, at most as often as configured. Once one is open, the name is looked up again every
//! minute, without end, and sooner at first if another address could not be bound. Addresses
//! that the name has got since are opened too. Addresses that it has lost stay open. If the configured port is 0, the first socket
//! that is bound decides the port for the other addresses of its name.

mod change;
mod listener;
mod opening;
mod own;

use std::{
    collections::BTreeMap,
    io, mem,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

pub(super) use listener::Arrival;
use listener::{Listener, State};
use own::{Own, Stage, literal, rank};

use crate::{
    event::Event,
    limits::{LOOKUP_TIMEOUT, NAME_ADDRESSES_MAX},
    net::{NO_ADDRESS, Net, words_of},
    proto::{Address, PeerId},
    shared::Listening,
};

#[derive(Debug)]
pub(super) struct Listeners {
    own: Vec<Own>,
    /// The listeners, by number. At first each entry of `own` has one, with the same number. A name may need more.
    listeners: Vec<Listener>,
    /// The listener with which the next turn starts to accept.
    next: usize,
    /// The earliest deadline. It is stored, since the loop reads it twice a turn.
    due: Option<Instant>,
    /// True exactly when a state has changed since the last call of `changed`.
    changed: bool,
    /// The last time at which all listeners with pending connections were known.
    looked: Instant,
    /// The arrival of the last link of each peer that dials this server.
    kept: BTreeMap<PeerId, Arrival>,
    tries_max: u32,
    pause: Duration,
}

/// What the listeners ask of the loop.
#[derive(Debug)]
pub(super) enum ListenerAction {
    Emit(Event),
    Lookup(usize, String),
    /// The answer of the lookup for this own address is not wanted any more.
    ForgetLookup(usize),
}

impl Listeners {
    pub(super) fn new(
        addresses: Vec<Address>,
        tries_max: u32,
        pause: Duration,
        now: Instant,
    ) -> Self {
        let mut listeners = Self {
            own: Vec::new(),
            listeners: Vec::new(),
            next: 0,
            due: None,
            changed: true,
            looked: now,
            kept: BTreeMap::new(),
            tries_max,
            pause,
        };
        for address in addresses {
            let state = match address.ip() {
                Some(ip) => State::Trying {
                    at: SocketAddr::new(ip, address.port()),
                    told: None,
                },
                None => State::Vacant,
            };
            listeners.add(address, Stage::Waiting { until: now }, state);
        }
        listeners.reschedule();
        listeners
    }

    /// Takes listening sockets that are already bound.
    pub(super) fn adopt<N: Net>(
        &mut self,
        net: &mut N,
        bound: Vec<TcpListener>,
    ) -> io::Result<Vec<ListenerAction>> {
        let mut listener_actions = Vec::new();
        for socket in bound {
            let at = net.adopt(self.listeners.len(), socket)?;
            let state = State::Open { at, resting: None };
            self.add(literal(at), Stage::Settled, state);
            listener_actions.push(ListenerAction::Emit(Event::Listening { addr: at }));
        }
        Ok(listener_actions)
    }

    fn add(&mut self, address: Address, stage: Stage, state: State) {
        let mut listener = Listener::new(self.own.len(), state);
        let is_open = listener.open_at().is_some();
        listener.pending_since = is_open.then_some(self.looked);
        self.listeners.push(listener);
        self.own.push(Own {
            is_open,
            ..Own::new(address, stage)
        });
    }

    /// Whether the state of a listener has changed since the last call.
    #[inline]
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }

    /// The state of each listener, in the order of the configuration.
    pub(super) fn listening(&self) -> Vec<Listening> {
        let mut all: Vec<Vec<Listening>> = self.own.iter().map(|_| Vec::new()).collect();
        for listener in &self.listeners {
            let own = &self.own[listener.own];
            match listener.state {
                State::Vacant => {}
                State::Trying { at, .. } => {
                    all[listener.own].push(Listening::Trying(own.spell(at)))
                }
                State::Open { at, .. } => all[listener.own].push(Listening::Open(at)),
            }
        }
        for (own, states) in self.own.iter().zip(&mut all) {
            match own.stage {
                Stage::Lost => states.push(Listening::Lost(own.address.clone())),
                Stage::Closed => {}
                _ if states.is_empty() && !own.is_open => {
                    states.push(Listening::Trying(own.address.clone()));
                }
                _ => {}
            }
        }
        all.concat()
    }

    /// The own addresses that other servers can dial. An address with port 0 gets the port of the listener that takes it; without
    /// such a listener it is left out. Wildcards are left out.
    pub(super) fn advertised(&self, addresses: &[Address]) -> Vec<Address> {
        let mut used = vec![false; self.own.len()];
        let mut advertised = Vec::new();
        for address in addresses.iter().filter(|address| !address.is_wildcard()) {
            if address.port() != 0 {
                advertised.push(address.clone());
                continue;
            }
            // If an address is configured several times, each of its sockets is used once.
            let is_its_own = |index: &usize| {
                let own = &self.own[*index];
                !used[*index] && !own.is_retired && own.address == *address
            };
            let its_own = (0..self.own.len()).find(is_its_own);
            let port = match its_own {
                Some(index) => {
                    used[index] = true;
                    self.own[index].port
                }
                None => self.port_for(address),
            };
            // No server can dial port 0, and some releases would dial themselves (ZOOKEEPER-2164).
            if port != 0 {
                advertised.push(Address::new(address.host(), port));
            }
        }
        advertised
    }

    /// The port of an open listener that takes this host, or 0. A listener whose port the kernel chose is preferred.
    fn port_for(&self, address: &Address) -> u16 {
        let takes = |listener: &&Listener| {
            let open = listener.open_at();
            let open = open.filter(|_| !self.own[listener.own].is_retired);
            open.is_some_and(|at| match address.ip() {
                Some(ip) => listener.takes(SocketAddr::new(ip, at.port())),
                None => at.ip().is_unspecified(),
            })
        };
        let is_chosen = |listener: &&Listener| self.own[listener.own].address.port() == 0;
        let listeners = || self.listeners.iter().filter(takes);
        let listener = listeners().find(is_chosen).or_else(|| listeners().next());
        listener
            .and_then(Listener::open_at)
            .map_or(0, |at| at.port())
    }

    /// Connections are pending at this listener. They have arrived since `looked`.
    pub(super) fn on_acceptable(&mut self, listener: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.pending_since.get_or_insert(self.looked);
        }
    }

    /// All listeners with pending connections are known now.
    pub(super) fn on_looked(&mut self, now: Instant) {
        self.looked = now;
    }

    /// A connection was accepted.
    pub(super) fn on_accepted(&mut self, listener: usize, now: Instant) -> Arrival {
        self.listeners[listener].on_accepted(listener, self.looked, now)
    }

    /// Whether a connection has certainly arrived later than the one that was last kept for this peer.
    pub(super) fn is_latest(&self, peer: PeerId, arrival: &Arrival) -> bool {
        let kept = self.kept.get(&peer);
        kept.is_none_or(|kept| arrival.is_later_than(kept))
    }

    pub(super) fn keep(&mut self, peer: PeerId, arrival: Arrival) {
        self.kept.insert(peer, arrival);
    }

    /// The peer is removed.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.kept.remove(&peer);
    }

    /// Whether connections may wait at a listener that is ready to accept them.
    pub(super) fn has_pending(&self) -> bool {
        self.listeners.iter().any(Listener::is_ready)
    }

    /// The listeners at which connections may wait, and how many of `connections` each may accept in this turn. If there are more
    /// listeners than `connections`, the next turn starts with the others.
    pub(super) fn shares(&mut self, connections: usize) -> Vec<(usize, usize)> {
        let ready = |listener: &usize| self.listeners[*listener].is_ready();
        let mut ready: Vec<usize> = (0..self.listeners.len()).filter(ready).collect();
        let first = ready.partition_point(|listener| *listener < self.next);
        ready.rotate_left(first);
        ready.truncate(connections);
        // The next turn starts behind the last listener of this one, so that none is left out for ever.
        self.next = ready.last().map_or(0, |last| last + 1);
        let share = connections.checked_div(ready.len()).unwrap_or(0);
        ready
            .into_iter()
            .map(|listener| (listener, share))
            .collect()
    }

    /// All connections that were pending at this listener were accepted.
    pub(super) fn on_empty(&mut self, listener: usize) {
        self.listeners[listener].on_empty();
    }

    /// A connection could not be accepted, perhaps for lack of descriptors or memory. Returns whether the listener pauses, and the
    /// event to emit.
    pub(super) fn on_accept_failed(
        &mut self,
        listener: usize,
        error: &io::Error,
        is_exhausted: bool,
        now: Instant,
    ) -> (bool, Option<Event>) {
        let listener = &mut self.listeners[listener];
        let rests = listener.on_failed(error, is_exhausted, now);
        let event = listener.report(now, &self.own[listener.own].address);
        self.reschedule();
        (rests, event)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Updates the deadline. Called after every change that may move it.
    fn reschedule(&mut self) {
        let listeners = self.listeners.iter().filter_map(Listener::due);
        self.due = self.own.iter().filter_map(Own::due).chain(listeners).min();
    }

    /// Opens the listeners that are due, and ends pauses.
    pub(super) fn tick<N: Net>(
        &mut self,
        net: &mut N,
        now: Instant,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        self.open_due(net, now, listener_actions);
        self.reschedule();
    }

    fn open_due<N: Net>(
        &mut self,
        net: &mut N,
        now: Instant,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        for listener in &mut self.listeners {
            listener.wake(now);
            listener_actions.extend(
                listener
                    .report(now, &self.own[listener.own].address)
                    .map(ListenerAction::Emit),
            );
        }
        let is_due = |index: &usize| self.own[*index].due().is_some_and(|at| at <= now);
        let mut due: Vec<usize> = (0..self.own.len()).filter(is_due).collect();
        // Wildcards first: an address that a wildcard takes needs no socket, and a wildcard cannot be bound after it.
        due.sort_by_key(|index| self.own[*index].address.ip().map_or(2, rank));
        for index in due {
            let own = &mut self.own[index];
            match own.stage {
                Stage::Waiting { .. } if own.address.ip().is_none() => {
                    own.stage = Stage::Looking {
                        until: now + LOOKUP_TIMEOUT,
                    };
                    if !mem::replace(&mut own.asking, true) {
                        listener_actions
                            .push(ListenerAction::Lookup(index, own.address.host().to_owned()));
                    }
                }
                Stage::Looking { .. } => {
                    own.said = format!("no answer within {LOOKUP_TIMEOUT:?}");
                    self.open(net, index, now, listener_actions);
                }
                Stage::Waiting { .. } => self.open(net, index, now, listener_actions),
                Stage::Settled | Stage::Lost | Stage::Closed => {}
            }
        }
        self.end_change(net, listener_actions);
    }

    /// The lookup of this own address was answered.
    pub(super) fn on_found<N: Net>(
        &mut self,
        net: &mut N,
        index: usize,
        answer: io::Result<Vec<SocketAddr>>,
        now: Instant,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        let Some(own) = self.own.get_mut(index) else {
            return;
        };
        // Also if the stage no longer waits for it: the answer counts for the next try.
        own.asking = false;
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                // A name can have thousands of addresses.
                own.known = addresses.into_iter().take(NAME_ADDRESSES_MAX).collect();
            }
            Ok(_) => own.said = NO_ADDRESS.to_owned(),
            Err(error) => own.said = words_of(&error),
        }
        if matches!(own.stage, Stage::Looking { .. }) {
            self.open(net, index, now, listener_actions);
        }
        self.end_change(net, listener_actions);
        self.reschedule();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Config, Sid, net::MioNet};

    #[test]
    fn unanswered_lookup_of_a_listener_fails_in_time() {
        let builder = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0");
        let mut net = MioNet::new(&builder.build().unwrap().options).unwrap();
        let (start, mut listener_actions) = (Instant::now(), Vec::new());
        let pause = Duration::from_millis(300);
        let address = "silent.example:1".parse().unwrap();
        let mut listeners = Listeners::new(vec![address], 0, pause, start);
        listeners.tick(&mut net, start, &mut listener_actions);
        assert!(
            matches!(listener_actions[..], [ListenerAction::Lookup(0, _)]),
            "{listener_actions:?}"
        );
        let late = start + LOOKUP_TIMEOUT;
        assert_eq!(listeners.deadline(), Some(late));
        listener_actions.clear();
        listeners.tick(&mut net, late, &mut listener_actions);
        assert!(
            matches!(
                listener_actions[0],
                ListenerAction::Emit(Event::ListenFailed { .. })
            ),
            "{listener_actions:?}"
        );
        assert_eq!(listeners.deadline(), Some(late + pause));
    }

    #[test]
    fn connection_that_waited_longer_is_not_the_latest() {
        let at = |millis| {
            static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
            *START + Duration::from_millis(millis)
        };
        let peer = PeerId(0);
        let addresses = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        let mut listeners = Listeners::new(addresses.to_vec(), 0, Duration::ZERO, at(0));
        // A connection arrives at the first listener, which pauses, and later one at the second.
        listeners.on_acceptable(0);
        listeners.on_looked(at(10));
        listeners.on_acceptable(1);
        listeners.on_looked(at(20));
        let kept = listeners.on_accepted(1, at(20));
        assert!(listeners.is_latest(peer, &kept));
        listeners.keep(peer, kept);
        let waited = listeners.on_accepted(0, at(30));
        assert!(!listeners.is_latest(peer, &waited));
        // A connection that arrives at the first listener after its backlog was empty is later. So is the next one of that backlog.
        listeners.on_empty(0);
        listeners.on_looked(at(40));
        listeners.on_acceptable(0);
        let later = listeners.on_accepted(0, at(50));
        let behind = listeners.on_accepted(0, at(50));
        assert!(listeners.is_latest(peer, &later));
        listeners.keep(peer, behind);
        assert!(!listeners.is_latest(peer, &later));
        listeners.forget(peer);
        assert!(listeners.is_latest(peer, &waited));
    }
}
