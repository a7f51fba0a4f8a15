//! Looks up and dials peers, at one address after the other.
//!
//! Nothing here decides which peer is dialed, or when: the roster does.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use super::{
    EventLoop,
    endpoints::{Lookup, Step},
    renewals::Renew,
};
use crate::{
    event::Event,
    handler::Handler,
    limits::RENEWAL_TRIES,
    net::Net,
    proto::{ConnectionKey, PeerId, Reason},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Starts these name lookups. Nothing waits for them here.
    pub(super) fn look_up(&mut self, lookups: Vec<Lookup>) {
        for Lookup { lookup_id, host } in lookups {
            self.net.lookup(lookup_id, &host);
        }
    }

    /// Dials the next peer whose link is to be renewed.
    pub(super) fn renew_links(&mut self, now: Instant) {
        while let Some(renew) = self.renewals.next(now, |id| self.roster.renewable(id)) {
            match renew {
                Renew::Dial(peer) => self.roster.initiate(peer, now, &mut self.todo),
                Renew::GiveUp(peer) => {
                    self.handle.shared().counters.renewals_given_up.add(1);
                    if let Some(peer) = self.peer(peer) {
                        let sid = peer.sid;
                        log::warn!("peer {sid}: its link was not renewed in {RENEWAL_TRIES} tries");
                    }
                }
            }
        }
    }

    /// Carries out the steps of a dial until a connection is underway or no address is left.
    pub(super) fn step(&mut self, id: PeerId, mut step: Step, now: Instant) {
        loop {
            match step {
                Step::Wait => return,
                Step::Connect(addr) => match self.connect(id, addr, now) {
                    Ok(()) => return,
                    Err(error) => {
                        let failed = (addr, Reason::of_io(&error));
                        // At once and not in the next turn. A dial tries a bounded number of addresses, so that this ends.
                        step = self.endpoints.next(id, None, failed, now);
                    }
                },
                Step::Exhausted(addr, reason) => {
                    let lasts = reason.is_lasting();
                    self.handle.shared().counters.dial_failures.add(1);
                    if let Some(sid) = self.peer(id).map(|peer| peer.sid) {
                        self.tell(Event::DialFailed { sid, addr, reason }, now);
                    }
                    self.roster.on_dial_failed(id, lasts, now, &mut self.todo);
                    return;
                }
            }
        }
    }

    pub(super) fn connect(&mut self, id: PeerId, addr: SocketAddr, now: Instant) -> io::Result<()> {
        let stream = self.net.dial(addr)?;
        // Watched before it has its place, since it is only inserted if that succeeds. `next_index` is the place that it gets.
        self.net.watch(&stream, self.connections.next_index())?;
        let key = self.connections.insert_dialing(
            Arc::new(stream),
            addr,
            id,
            now,
            now + self.options.connect_timeout,
        );
        self.endpoints.on_connecting(id, key, addr);
        Ok(())
    }

    /// Called when more is known about where this peer is. An address from which it has connected may turn out to be its own, and
    /// addresses that are being dialed may turn out to be old ones.
    pub(super) fn recognize(&mut self, id: PeerId, now: Instant) {
        for ip in self.roster.abroad(id) {
            if self.endpoints.is_home(id, ip) {
                self.roster.on_home(id, ip, now, &mut self.todo);
            }
        }
        let mut is_abroad = |key: &ConnectionKey| {
            let connection = self.connections.get_mut(*key);
            connection.is_some_and(|it| !self.endpoints.is_home(id, it.addr.ip()))
        };
        let mut dialed: Vec<ConnectionKey> = self.endpoints.underway(id).collect();
        dialed.retain(&mut is_abroad);
        for key in &dialed {
            // Another host may have the old address by now, and must get nothing that is meant for the peer.
            self.connections.abort(*key);
            let step = self.endpoints.redirect(id, *key, now);
            self.step(id, step, now);
        }
        if !dialed.is_empty() {
            return;
        }
        self.keep_link_at_home(id);
        let link = self.roster.link(id);
        if let Some(key) = link.filter(|key| self.is_outdated(id, *key)) {
            self.end(key, Reason::Moved, now);
        }
    }

    /// Whether this link was dialed while the names of its peer were being looked up, to an address that the answers do not
    /// contain.
    pub(super) fn is_outdated(&mut self, id: PeerId, key: ConnectionKey) -> bool {
        let connection = self.connections.get_mut(key);
        // Only a dialed link: the peer itself opened the others.
        let dialed = connection.filter(|connection| connection.arrival.is_none());
        dialed.is_some_and(|connection| self.endpoints.is_outdated(id, connection.addr.ip()))
    }
}
