//! Then do: the roster's actions carried out, and connections ended, each in one place.
//!
//! Nothing here decides who keeps which connection.

use std::{
    io,
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{EventLoop, links::Phase};
use crate::{
    event::Event,
    handler::Handler,
    limits::PROVEN_AFTER,
    net::{Net, Stream as _},
    proto::{Action, LinkKey, PeerId, Reason},
    shared::{Life, Peer},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Meet { peer: id, sid } => {
                let peer = Arc::new(Peer::new(id, sid, self.knobs.outbox));
                self.handle.shared().meet(Arc::clone(&peer));
                self.peers.insert(id, peer);
            }
            Action::Learn { peer, addresses } => self.routes.insert(peer, &addresses),
            Action::Part { peer: id } => {
                self.routes.remove(id);
                self.doors.forget(id);
                if let Some(peer) = self.peers.remove(&id) {
                    self.handle.shared().part(&peer);
                    self.journal.forget(peer.sid);
                }
            }
            Action::Dial { peer } => {
                self.handle.shared().counters.dials.add(1);
                if let Some(peer) = self.peer(peer) {
                    peer.counters.dials.add(1);
                }
                let (questions, step) = self.routes.start(peer, now);
                self.look_up(questions);
                self.step(peer, step, now);
            }
            Action::Hurry { peer } => {
                if let Some((key, questions, step)) = self.routes.hurry(peer, now) {
                    self.links.abort(key);
                    self.look_up(questions);
                    self.step(peer, step, now);
                }
            }
            Action::Cancel { peer, late } => match self.routes.finish(peer) {
                Some(key) if late => self.links.abort(key),
                Some(key) => {
                    self.links.bury(key);
                }
                None => {}
            },
            Action::Inquire { peer } => {
                let questions = self.routes.inquire(peer, now);
                self.look_up(questions);
            }
            Action::Up { peer, link } => self.raise(peer, link, now),
            Action::Close { link, reason } => {
                if reason == Reason::Replaced {
                    // What the kernel has received of it is older than what the new one brings, and so comes before that. Up to a
                    // turn's share: more than that waits only if the handler was slow.
                    let _ = self.pump(link);
                }
                self.end(link, reason, now);
            }
            Action::Warn { peer } => {
                if let Some(sid) = self.peer(peer).map(|peer| peer.sid) {
                    self.tell(Event::Flapping { sid }, now);
                }
            }
        }
    }

    /// A connection becomes the link of its peer.
    pub(super) fn raise(&mut self, id: PeerId, key: LinkKey, now: Instant) {
        let Some(peer) = self.peer(id).cloned() else {
            return;
        };
        // It may have been a challenger until now.
        let arrival = self.links.get_mut(key).and_then(|link| link.arrival);
        let number = self.handle.shared().counters.ups.read() + 1;
        let Some((stream, addr)) = self.links.open(key, Arc::clone(&peer), number, now) else {
            return;
        };
        if let Some(arrival) = arrival {
            self.doors.keep(id, arrival);
        }
        // The larger sid dials; an observer cannot be dialed.
        let dialed = !self.roster.knocks(id) && peer.sid.0 >= 0;
        peer.linked.store(true, Ordering::Release);
        peer.counters.ups.add(1);
        let counters = &self.handle.shared().counters;
        counters.ups.add(1);
        counters.kept.add(u64::from(!dialed));
        // Before anybody is told: who sends on that word finds the link.
        let ask = peer
            .outbox
            .attach(stream, self.is_on_probation(&peer, key, now));
        self.tell(
            Event::Up {
                sid: peer.sid,
                dialed,
                addr,
                link: number,
            },
            now,
        );
        self.see_to(&peer, ask, now);
        // What came while it had no name was announced by an edge that is gone.
        self.look_at(key);
    }

    /// Whether nothing of the queue is written to this link yet: the last one to the peer ended soon and had brought nothing, as
    /// links to a server that does not know this one do.
    fn is_on_probation(&mut self, peer: &Peer, key: LinkKey, now: Instant) -> bool {
        if !peer.outbox.is_queue() || !peer.doubtful.load(Ordering::Relaxed) {
            return false;
        }
        self.links.set_due(key, Some(now + PROVEN_AFTER));
        if let Some(Phase::Open { on_probation, .. }) =
            self.links.get_mut(key).map(|link| &mut link.phase)
        {
            *on_probation = true;
        }
        true
    }

    /// The time of a connection is up.
    pub(super) fn on_overdue(&mut self, key: LinkKey, now: Instant) {
        let reason = match self.links.get_mut(key).map(|link| &mut link.phase) {
            Some(Phase::Open {
                peer, on_probation, ..
            }) => {
                // It has lasted.
                *on_probation = false;
                let peer = Arc::clone(peer);
                self.links.set_due(key, None);
                let ask = peer.outbox.confirm();
                return self.see_to(&peer, ask, now);
            }
            Some(Phase::Dialing { .. }) => Reason::ConnectTimeout,
            _ => Reason::HandshakeTimeout,
        };
        self.end(key, reason, now);
    }

    /// Ends a connection for this reason, and does what its phase asks for.
    pub(super) fn end(&mut self, key: LinkKey, reason: Reason, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (addr, dialed) = (link.addr, link.arrival.is_none());
        // The next link begins with what is newest. The far end may see the two connections in the other order, and
        // must not find there what is older. After a halt there is no next link, and the last words are to arrive.
        link.aborted = match link.phase {
            Phase::Open { .. } => reason != Reason::Halted,
            // The next knock says the same, and this one could come when there is a link.
            Phase::Knocking { .. } => reason == Reason::HandshakeTimeout,
            _ => false,
        };
        match self.links.bury(key) {
            Some(Phase::Dialing { peer }) => {
                let step = self.routes.next(peer, (addr, reason), now);
                self.step(peer, step, now);
            }
            Some(Phase::Knocking { peer }) => {
                self.routes.finish(peer);
                self.roster.on_knocked(peer, now);
            }
            Some(Phase::Greeting { .. }) => self.tell(
                Event::Rejected {
                    addr,
                    sid: None,
                    reason,
                },
                now,
            ),
            Some(Phase::Named { peer, .. }) => {
                let sid = self.peer(peer).map(|peer| peer.sid);
                self.tell(Event::Rejected { addr, sid, reason }, now);
                self.on_down(peer, key, now);
            }
            Some(Phase::Open {
                peer,
                number,
                since,
                heard,
                ..
            }) => {
                self.paused.remove(&key);
                let lasted = now.saturating_duration_since(since) >= PROVEN_AFTER;
                let proven = heard || lasted;
                // What the application asks for proves nothing.
                if !matches!(reason, Reason::Dropped | Reason::Halted) {
                    peer.doubtful.store(!proven, Ordering::Relaxed);
                }
                let reason = match reason {
                    Reason::Closed
                    | Reason::ClosedEarly
                    | Reason::Io(io::ErrorKind::ConnectionReset)
                        if dialed && !proven =>
                    {
                        Reason::ClosedAtOnce
                    }
                    reason => reason,
                };
                let written = peer.outbox.detach();
                peer.linked.store(false, Ordering::Release);
                peer.counters.downs.add(1);
                self.tell(
                    Event::Down {
                        sid: peer.sid,
                        reason,
                        link: number,
                        written,
                    },
                    now,
                );
                self.on_down(peer.id, key, now);
            }
            Some(Phase::Buried) | None => {}
        }
    }

    /// A connection that the roster knows as the link of this peer, or as one that claims to be it, has ended.
    fn on_down(&mut self, id: PeerId, key: LinkKey, now: Instant) {
        // What still waits for the peer is, with `Dial::OnDemand`, the demand for its next link.
        let demand = self.peer(id).is_some_and(|peer| peer.outbox.demand());
        self.roster.on_down(id, key, demand, now, &mut self.todo);
    }

    pub(super) fn bury(&mut self) {
        for link in self.links.exhume() {
            self.net.unwatch(&link.stream);
            // A thread that is just writing holds the stream a moment longer; the connection ends now.
            let _ = if link.aborted {
                link.stream.abort()
            } else {
                link.stream.shutdown(Shutdown::Both)
            };
        }
    }

    /// Halts: every socket is closed when this returns.
    pub(super) fn close(&mut self, now: Instant) {
        self.net.close_doors();
        for key in self.links.keys() {
            match self.links.get_mut(key).map(|link| &link.phase) {
                // Nothing is tried any more.
                Some(Phase::Dialing { .. } | Phase::Knocking { .. }) | None => {
                    self.links.bury(key);
                }
                Some(_) => self.end(key, Reason::Halted, now),
            }
        }
        self.bury();
        let counters = &self.handle.shared().counters;
        counters.connections.set(0);
        counters.pending.set(0);
        self.tell(Event::Halted, now);
        self.handle.shared().end(Life::Halted);
    }
}
