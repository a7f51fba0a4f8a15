//! Carries out what the roster has decided.
//!
//! Nothing is decided here.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{EventLoop, connections::Phase};
use crate::{
    event::Event,
    handler::Handler,
    limits::PROVEN_AFTER,
    net::Net,
    proto::{Action, ConnectionKey, PeerId, Reason},
    shared::{LinkStats, Peer},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn apply(&mut self, action: Action, now: Instant) {
        match action {
            Action::PeerAdded { peer: id, sid } => {
                let peer = Arc::new(Peer::new(id, sid, self.options.outbox, self.net.clock()));
                self.handle.shared().meet(Arc::clone(&peer));
                self.peers.insert(id, peer);
            }
            Action::AddressesLearned { peer, addresses } => self.endpoints.insert(peer, &addresses),
            Action::PeerRemoved { peer } => self.part(peer, now),
            Action::Dial { peer } => {
                self.handle.shared().counters.dials.add(1);
                if let Some(peer) = self.peer(peer) {
                    peer.counters.dials.add(1);
                }
                let (lookups, step) = self.endpoints.start(peer, now);
                self.look_up(lookups);
                self.step(peer, step, now);
            }
            Action::TryNextAddress { peer } => {
                if let Some((given_up, lookups, step)) = self.endpoints.try_next_address(peer, now)
                {
                    for key in given_up {
                        self.connections.abort(key);
                    }
                    self.look_up(lookups);
                    self.step(peer, step, now);
                }
            }
            Action::Cancel { peer, late } => {
                for key in self.endpoints.finish(peer) {
                    if late {
                        self.connections.abort(key);
                    } else {
                        self.connections.close(key);
                    }
                }
            }
            Action::Resolve { peer } => {
                let lookups = self.endpoints.resolve(peer, now);
                self.look_up(lookups);
            }
            Action::Up {
                peer,
                link,
                restarted,
            } => self.link_up(peer, link, restarted, now),
            Action::Close { link, reason } => {
                if reason == Reason::Replaced {
                    // What the kernel has received on the old link is older than what the new link brings, so it is delivered
                    // first. One turn's budget is read: more waits only if the handler was slow.
                    let _ = self.read_link(link, Some(now));
                }
                self.end(link, reason, now);
            }
            Action::ReportFlapping { peer, duplicate } => {
                if let Some(sid) = self.peer(peer).map(|peer| peer.sid) {
                    self.tell(Event::Flapping { sid, duplicate }, now);
                }
            }
        }
    }

    /// The roster has removed this peer.
    fn part(&mut self, id: PeerId, now: Instant) {
        self.endpoints.remove(id);
        self.listeners.forget(id);
        self.releases.retain(|of| *of != id);
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.handle.shared().part(&peer);
        if self.leaves.remove(id) {
            let (sid, discarded) = (peer.sid, peer.discarded_at_end());
            self.tell(Event::Left { sid, discarded }, now);
        }
        self.event_log.forget(peer.sid);
    }

    /// Makes a connection the link of its peer.
    fn link_up(&mut self, id: PeerId, key: ConnectionKey, restarted: bool, now: Instant) {
        let Some(peer) = self.peer(id).cloned() else {
            return;
        };
        // Before anything else is written to it. The connection may have been a contender until now.
        if let Err(reason) = self.answer(key, None) {
            return self.end(key, reason, now);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (arrival, incarnation) = (connection.arrival, connection.incarnation);
        let begun = connection.since;
        // Only the loop counts `ups`, so that no two links get one number.
        let number = self.handle.shared().counters.ups.read() + 1;
        let Some((stream, addr)) =
            self.connections
                .open(key, Arc::clone(&peer), number, self.options.ping_every, now)
        else {
            return;
        };
        if let Some(arrival) = arrival {
            self.listeners.keep(id, arrival);
        }
        // Not asked of the roster, which may have removed the peer in this turn.
        let dialed = arrival.is_none();
        peer.counters.ups.add(1);
        let link = LinkStats {
            number,
            dialed,
            addr,
            since: now,
            round_trip: None,
            last_round_trip: None,
        };
        self.handle.shared().link_up(&peer, link, incarnation);
        let counters = &self.handle.shared().counters;
        counters.ups.add(1);
        counters.kept.add(u64::from(!dialed));
        // Attached before the event is emitted, so that a thread that sends because of the event finds the link.
        let request = peer
            .outbox
            .attach(stream, self.is_on_probation(&peer, key, now));
        self.tell(
            Event::Up {
                sid: peer.sid,
                dialed,
                addr,
                link: number,
                restarted,
            },
            now,
        );
        self.handle_request(&peer, request, now);
        // What came while it had no name was announced by an edge that is gone.
        self.look_at(key);
        if self.renewals.on_up(id, begun) {
            self.renew_links(now);
        }
    }

    /// Whether the queue is not written to this link yet. That is so if the previous link to the peer ended soon and had brought
    /// nothing, as do links to a server that does not know this one.
    fn is_on_probation(&mut self, peer: &Peer, key: ConnectionKey, now: Instant) -> bool {
        if !peer.outbox.has_queue() || !peer.last_link_unproven.load(Ordering::Relaxed) {
            return false;
        }
        self.connections.set_due_before(key, now + PROVEN_AFTER);
        if let Some(Phase::Open { on_probation, .. }) = self
            .connections
            .get_mut(key)
            .map(|connection| &mut connection.phase)
        {
            *on_probation = true;
        }
        true
    }
}
