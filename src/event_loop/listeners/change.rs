//! Listens on other addresses, when those of this server change.
//!
//! Nothing here opens a socket: the new addresses are opened like all others. An old socket is closed when all new ones are open, or when
//! it is in their way. While none of the new ones is open, it stays, whatever changes follow.

use std::{io, mem, net::SocketAddr, time::Instant};

use super::{
    ListenerAction, Listeners,
    listener::State,
    own::{Own, Stage},
};
use crate::{net::Net, proto::Address};

impl Listeners {
    /// Listens on these addresses from now on. Those that were replaced by an earlier change are closed now if one of those after them is
    /// open. So no more than two sets of addresses are listened on, and always on one, if there was one.
    pub(in crate::event_loop) fn change<N: Net>(
        &mut self,
        net: &mut N,
        addresses: &[Address],
        now: Instant,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        if self.is_any_open() {
            self.close_retired(net, listener_actions);
        }
        let mut missing = addresses.to_vec();
        for own in &mut self.own {
            if matches!(own.stage, Stage::Closed) {
                continue;
            }
            match missing.iter().position(|address| *address == own.address) {
                Some(at) => {
                    missing.swap_remove(at);
                    let is_lost = matches!(own.stage, Stage::Lost);
                    // Not all of its sockets need be open. Its tries are those since the last change.
                    if mem::take(&mut own.is_retired) || is_lost {
                        (own.stage, own.tries) = (Stage::Waiting { until: now }, 0);
                    }
                }
                None => own.is_retired = true,
            }
        }
        for address in missing {
            let own = Own::new(address, Stage::Waiting { until: now });
            let is_free = |own: &Own| matches!(own.stage, Stage::Closed);
            match self.own.iter().position(is_free) {
                Some(index) => self.own[index] = own,
                None => self.own.push(own),
            }
        }
        for index in 0..self.own.len() {
            // It is listened on nowhere, and need not be any more.
            if self.own[index].is_retired && !self.own[index].is_open {
                self.close_own(net, index, listener_actions);
            }
        }
        // If nothing is to be opened, nothing else would end the change.
        self.end_change(net, listener_actions);
        self.changed = true;
        self.reschedule();
    }

    /// Closes the addresses that were replaced, once all others are open. Those of which all tries have failed are not waited for, if another
    /// one is open.
    pub(super) fn end_change<N: Net>(
        &mut self,
        net: &mut N,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        let is_awaited = |own: &Own| !own.is_retired && own.is_awaited();
        if !self.own.iter().any(is_awaited) && self.is_any_open() {
            self.close_retired(net, listener_actions);
        }
    }

    /// Whether one of the addresses is open that were not replaced.
    fn is_any_open(&self) -> bool {
        self.own.iter().any(|own| own.is_open && !own.is_retired)
    }

    fn close_retired<N: Net>(&mut self, net: &mut N, listener_actions: &mut Vec<ListenerAction>) {
        for index in 0..self.own.len() {
            if self.own[index].is_retired {
                self.close_own(net, index, listener_actions);
            }
        }
    }

    fn close_own<N: Net>(
        &mut self,
        net: &mut N,
        index: usize,
        listener_actions: &mut Vec<ListenerAction>,
    ) {
        for listener in 0..self.listeners.len() {
            if self.listeners[listener].own == index {
                self.close_listener(net, listener);
            }
        }
        let address = self.own[index].address.clone();
        self.own[index] = Own::new(address, Stage::Closed);
        listener_actions.push(ListenerAction::ForgetLookup(index));
    }

    fn close_listener<N: Net>(&mut self, net: &mut N, listener: usize) {
        if self.listeners[listener].open_at().is_some() {
            net.close_listener(listener);
        }
        self.listeners[listener].state = State::Vacant;
        self.listeners[listener].pending_since = None;
        self.changed = true;
    }

    /// Before `at` is bound for an own address: takes over a socket of a replaced address that is bound to it already.
    pub(super) fn take_over(&mut self, index: usize, at: SocketAddr) {
        for listener in 0..self.listeners.len() {
            let is_retired = self.own[self.listeners[listener].own].is_retired;
            if is_retired && self.listeners[listener].open_at() == Some(at) {
                self.listeners[listener].own = index;
                self.changed = true;
            }
        }
    }

    /// Opens a socket. Those of replaced addresses that share its port and are in its way are closed, and opened again if that did not help.
    pub(super) fn listen<N: Net>(
        &mut self,
        net: &mut N,
        listener: usize,
        at: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let opened = net.listen(listener, at);
        if !matches!(&opened, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            return opened;
        }
        let in_the_way = self.in_the_way(at);
        if in_the_way.is_empty() {
            return opened;
        }
        for (other, _) in &in_the_way {
            self.close_listener(net, *other);
        }
        let opened = net.listen(listener, at);
        if opened.is_err() {
            for (other, open) in in_the_way {
                if let Ok(at) = net.listen(other, open) {
                    let other = &mut self.listeners[other];
                    other.state = State::Open { at, resting: None };
                    // As when it was opened first.
                    other.pending_since = Some(self.looked);
                }
            }
        }
        opened
    }

    /// The sockets of replaced addresses because of which `at` cannot be bound, and where they are.
    fn in_the_way(&self, at: SocketAddr) -> Vec<(usize, SocketAddr)> {
        let all = self.listeners.iter().enumerate();
        let retired = all.filter(|(_, listener)| self.own[listener.own].is_retired);
        let open = retired.filter_map(|(number, listener)| Some((number, listener.open_at()?)));
        let is_any = |at: SocketAddr| at.ip().is_unspecified();
        open.filter(|(_, open)| open.port() == at.port() && (is_any(*open) || is_any(at)))
            .collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Config, Event, Sid, net::MioNet};

    fn listening(listeners: &Listeners) -> Vec<SocketAddr> {
        let open = listeners.listeners.iter();
        open.filter_map(super::super::Listener::open_at).collect()
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    /// Addresses of this machine with free ports.
    fn free<const N: usize>() -> [String; N] {
        let sockets = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        sockets.map(|socket| socket.local_addr().unwrap().to_string())
    }

    fn start(addresses: &[&str]) -> (MioNet, Listeners, Instant) {
        let builder = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0");
        let mut net = MioNet::new(&builder.build().unwrap().options).unwrap();
        let now = Instant::now();
        let addresses = addresses.iter().map(|text| address(text)).collect();
        let mut listeners = Listeners::new(addresses, 0, Duration::from_secs(1), now);
        listeners.tick(&mut net, now, &mut Vec::new());
        (net, listeners, now)
    }

    #[test]
    fn old_socket_is_closed_when_the_new_one_is_open() {
        let [old, stays, new] = free();
        let (mut net, mut listeners, now) = start(&[&old, &stays]);
        let (stays_at, new_at) = (stays.parse().unwrap(), new.parse().unwrap());
        let mut actions = Vec::new();
        // Somebody else has it for now.
        let taken = std::net::TcpListener::bind(&new).unwrap();
        let wanted = [address(&stays), address(&new)];
        listeners.change(&mut net, &wanted, now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), [old.parse().unwrap(), stays_at]);
        drop(taken);
        let later = listeners.deadline().unwrap();
        listeners.tick(&mut net, later, &mut actions);
        assert_eq!(listening(&listeners), [stays_at, new_at]);
        assert!(std::net::TcpListener::bind(&old).is_ok(), "it is free");
        assert!(matches!(
            actions.last(),
            Some(ListenerAction::ForgetLookup(0))
        ));
        assert_eq!(listeners.deadline(), None);
    }

    #[test]
    fn socket_of_an_address_that_is_left_out_is_closed_at_once() {
        let [stays, old] = free();
        let (mut net, mut listeners, now) = start(&[&stays, &old]);
        listeners.change(&mut net, &[address(&stays)], now, &mut Vec::new());
        listeners.tick(&mut net, now, &mut Vec::new());
        assert_eq!(listening(&listeners), [stays.parse().unwrap()]);
        assert_eq!(listeners.deadline(), None);
    }

    #[test]
    fn socket_stays_open_over_changes_to_what_cannot_be_opened() {
        let [old, one, two] = free();
        let (mut net, mut listeners, mut now) = start(&[&old]);
        let (old_at, two_at) = (old.parse().unwrap(), two.parse().unwrap());
        let _taken = std::net::TcpListener::bind(&one).unwrap();
        let taken = std::net::TcpListener::bind(&two).unwrap();
        let mut actions = Vec::new();
        for text in [&one, &two] {
            listeners.change(&mut net, &[address(text)], now, &mut actions);
            listeners.tick(&mut net, now, &mut actions);
            assert_eq!(listening(&listeners), [old_at]);
        }
        // It is one of the addresses again: its socket is used on.
        actions.clear();
        let wanted = [address(&old), address(&two)];
        listeners.change(&mut net, &wanted, now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), [old_at]);
        let opened = |action: &ListenerAction| matches!(action, ListenerAction::Emit(Event::Listening { addr }) if *addr == old_at);
        assert!(!actions.iter().any(opened), "{actions:?}");
        drop(taken);
        now = listeners.deadline().unwrap();
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), [old_at, two_at]);
        // No more than two sets of addresses: what was open before the last change but one is closed.
        listeners.change(&mut net, &[address(&two), address(&one)], now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), [old_at, two_at]);
        listeners.change(&mut net, &[address(&one)], now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), [two_at]);
    }

    #[test]
    fn socket_stays_open_if_all_tries_of_the_new_address_fail() {
        let [old, new] = free();
        let (mut net, mut listeners, now) = start(&[&old]);
        listeners.tries_max = 1;
        let taken = std::net::TcpListener::bind(&new).unwrap();
        let mut actions = Vec::new();
        listeners.change(&mut net, &[address(&new)], now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        let lost = ListenerAction::Emit(Event::ListenerLost {
            address: address(&new),
        });
        assert_eq!(format!("{:?}", actions.last()), format!("{:?}", Some(lost)));
        assert_eq!(listening(&listeners), [old.parse().unwrap()]);
        // The next change gives it new tries.
        drop(taken);
        let wanted = [address(&old), address(&new)];
        listeners.change(&mut net, &wanted, now, &mut actions);
        listeners.tick(&mut net, now, &mut actions);
        let open = [&old, &new].map(|at| at.parse().unwrap());
        assert_eq!(listening(&listeners), open);
    }

    #[test]
    fn wildcard_takes_the_place_of_an_address_with_its_port() {
        // A port that is free at all addresses, and not only at 127.0.0.1.
        let port = |socket: std::net::TcpListener| socket.local_addr().unwrap().port();
        let port = port(std::net::TcpListener::bind("0.0.0.0:0").unwrap());
        let [at, wildcard] = ["127.0.0.1", "0.0.0.0"].map(|ip| format!("{ip}:{port}"));
        let (mut net, mut listeners, now) = start(&[&at]);
        for text in [&wildcard, &at] {
            listeners.change(&mut net, &[address(text)], now, &mut Vec::new());
            listeners.tick(&mut net, now, &mut Vec::new());
            assert_eq!(listening(&listeners), [text.parse().unwrap()]);
        }
    }

    #[test]
    fn wildcard_stays_open_if_what_replaces_it_cannot_be_opened() {
        // A port that is free at all addresses.
        let port = |socket: std::net::TcpListener| socket.local_addr().unwrap().port();
        let port = port(std::net::TcpListener::bind("0.0.0.0:0").unwrap());
        // No machine has an address for documentation (RFC 5737).
        let [wildcard, nobody] = ["0.0.0.0", "192.0.2.1"].map(|ip| format!("{ip}:{port}"));
        let (mut net, mut listeners, now) = start(&[&wildcard]);
        listeners.change(&mut net, &[address(&nobody)], now, &mut Vec::new());
        listeners.tick(&mut net, now, &mut Vec::new());
        assert_eq!(listening(&listeners), [wildcard.parse().unwrap()]);
    }

    #[test]
    fn address_stays_open_if_the_wildcard_cannot_be_opened() {
        let port = |socket: std::net::TcpListener| socket.local_addr().unwrap().port();
        let port = port(std::net::TcpListener::bind("0.0.0.0:0").unwrap());
        let [at, other, wildcard] =
            ["127.0.0.1", "127.0.0.2", "0.0.0.0"].map(|ip| format!("{ip}:{port}"));
        let (mut net, mut listeners, now) = start(&[&at]);
        let taken = std::net::TcpListener::bind(&other).unwrap();
        listeners.change(&mut net, &[address(&wildcard)], now, &mut Vec::new());
        listeners.tick(&mut net, now, &mut Vec::new());
        assert_eq!(listening(&listeners), [at.parse().unwrap()]);
        drop(taken);
        let later = listeners.deadline().unwrap();
        listeners.tick(&mut net, later, &mut Vec::new());
        assert_eq!(listening(&listeners), [wildcard.parse().unwrap()]);
    }

    #[test]
    fn socket_of_a_name_is_taken_over_by_its_address() {
        let [at] = free();
        let port = at.rsplit_once(':').unwrap().1.to_owned();
        let name = format!("name.example:{port}");
        let (mut net, mut listeners, now) = start(&[&name]);
        let found = Ok(vec![at.parse().unwrap()]);
        listeners.on_found(&mut net, 0, found, now, &mut Vec::new());
        let open = listening(&listeners);
        listeners.change(&mut net, &[address(&at)], now, &mut Vec::new());
        let mut actions = Vec::new();
        listeners.tick(&mut net, now, &mut actions);
        assert_eq!(listening(&listeners), open);
        // It was never closed: nothing was opened.
        let is_open = |action: &ListenerAction| matches!(action, ListenerAction::Emit(_));
        assert!(!actions.iter().any(is_open), "{actions:?}");
    }

    #[test]
    fn changes_use_the_same_places_again() {
        let (mut net, mut listeners, now) = start(&["127.0.0.1:0"]);
        for round in 0..50 {
            let addresses = ["127.0.0.1:0".to_owned(), format!("name{round}.example:1")];
            let addresses = addresses.map(|text| address(&text));
            listeners.change(&mut net, &addresses, now, &mut Vec::new());
            listeners.tick(&mut net, now, &mut Vec::new());
        }
        assert!(listeners.own.len() <= 3, "{}", listeners.own.len());
        assert_eq!(listening(&listeners).len(), 1);
    }
}
