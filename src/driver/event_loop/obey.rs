//! Then do: the roster's actions carried out, and connections ended, each in one place.
//!
//! Nothing here decides who keeps which connection.

use std::{
    mem,
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::EventLoop;
use crate::{
    driver::{
        links::Phase,
        net::{Net, Stream as _},
    },
    error::Reason,
    handler::{Event, Handler},
    proto::{Action, Assembler, LinkKey, PeerId},
    shared::{Life, Peer},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Meet { peer: id, sid } => {
                let peer = Arc::new(Peer::new(id, sid, self.knobs.outbox));
                let index = id.0 as usize;
                if self.peers.len() <= index {
                    self.peers.resize(index + 1, None);
                }
                self.handle.shared().meet(Arc::clone(&peer));
                self.peers[index] = Some(peer);
            }
            Action::Learn { peer, addresses } => self.routes.insert(peer, &addresses),
            Action::Part { peer: id } => {
                self.routes.remove(id);
                self.doors.forget(id);
                if let Some(peer) = self.peers[id.0 as usize].take() {
                    self.handle.shared().part(&peer);
                    self.journal.forget(peer.sid);
                }
            }
            Action::Dial { peer } => {
                self.handle.shared().counters.dials.add(1);
                self.peer(peer).counters.dials.add(1);
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
            Action::Close { link, reason } => self.end(link, reason, now),
        }
    }

    /// A connection becomes the link of its peer.
    pub(super) fn raise(&mut self, id: PeerId, key: LinkKey, now: Instant) {
        let peer = Arc::clone(self.peer(id));
        // The larger sid dials; an observer cannot be dialed.
        let dialed = !self.roster.knocks(id) && peer.sid.0 >= 0;
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (stream, addr) = (Arc::clone(&link.stream), link.addr);
        if let Some(arrival) = link.arrival {
            // It may have been a challenger until now.
            self.doors.keep(id, arrival);
        }
        let Phase::Named { held, .. } = &mut link.phase else {
            unreachable!("a link has a name before it comes up")
        };
        let phase = Phase::Open {
            peer: id,
            frames: Assembler::default(),
            held: mem::take(held),
        };
        self.links.advance(key, phase, None);
        peer.linked.store(true, Ordering::Release);
        peer.counters.ups.add(1);
        let counters = &self.handle.shared().counters;
        counters.ups.add(1);
        counters.kept.add(u64::from(!dialed));
        // Before anybody is told: who sends on that word finds the link.
        let ask = peer.outbox.attach(stream);
        self.tell(
            Event::Up {
                sid: peer.sid,
                dialed,
                addr,
            },
            now,
        );
        self.see_to(id, ask, now);
        // What came while it had no name was announced by an edge that is gone.
        self.look_at(key);
    }

    /// Ends a connection for this reason, and does what its phase asks for.
    pub(super) fn end(&mut self, key: LinkKey, reason: Reason, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let addr = link.addr;
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
                let sid = self.peers[peer.0 as usize].as_ref().map(|peer| peer.sid);
                self.tell(Event::Rejected { addr, sid, reason }, now);
                self.roster.on_down(peer, key, false, now, &mut self.todo);
            }
            Some(Phase::Open { peer: id, .. }) => {
                let peer = Arc::clone(self.peer(id));
                peer.outbox.detach();
                peer.linked.store(false, Ordering::Release);
                peer.counters.downs.add(1);
                self.tell(
                    Event::Down {
                        sid: peer.sid,
                        reason,
                    },
                    now,
                );
                // Something still waits for this peer: with `Dial::OnDemand`, that is the demand.
                let demand = !peer.outbox.is_empty();
                self.roster.on_down(id, key, demand, now, &mut self.todo);
            }
            Some(Phase::Buried) | None => {}
        }
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
