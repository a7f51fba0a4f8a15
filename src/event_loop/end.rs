//! Ends connections, and the loop itself.
//!
//! Nothing here decides which connection is kept.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    sync::atomic::Ordering,
    time::Instant,
};

use super::{EventLoop, connections::Phase};
use crate::{
    event::Event,
    handler::Handler,
    limits::PROVEN_AFTER,
    net::{Net, Stream as _},
    proto::{ConnectionKey, PeerId, Reason, Sid},
    shared::{Life, Peer},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// The deadline of a connection has passed.
    pub(super) fn on_overdue(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let reason = match &connection.phase {
            Phase::Open { .. } => return self.on_link_due(key, now),
            // Not silent for too long: it need not say anything more.
            Phase::Dialing { .. }
                if connection.stream.connected_at().is_some_and(|at| at <= now) =>
            {
                self.on_connected(key, now);
                let Some(Phase::Dialing { .. }) = self.connections.get_mut(key).map(|it| &it.phase)
                else {
                    return;
                };
                // It has not become what it promised. Left as it is, it would be overdue for ever, and this turn would not end.
                Reason::ConnectTimeout
            }
            Phase::Dialing { .. } => Reason::ConnectTimeout,
            _ => Reason::HandshakeTimeout,
        };
        self.end(key, reason, now);
    }

    /// Ends a connection for this reason, and does what its phase requires.
    pub(super) fn end(&mut self, key: ConnectionKey, reason: Reason, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (addr, dialed) = (connection.addr, connection.arrival.is_none());
        let is_answered = connection.incarnation.is_some();
        let was_retired = connection.retired && dialed;
        // The next link begins with the newest frame. The far end may see the two connections in the other order, and must not read
        // an older frame after it: the old link is aborted. After a halt there is no next link, and the last frames should still
        // arrive.
        connection.aborted = match connection.phase {
            Phase::Open { .. } => reason != Reason::Halted,
            // The next knock says the same. A late arrival of this one could meet a link that is already up.
            Phase::Knocking { .. } => reason == Reason::HandshakeTimeout,
            // Nothing is expected of it any more, and it must not become a link of the far end.
            Phase::AwaitingAnswer { .. } => true,
            _ => false,
        };
        if matches!(connection.phase, Phase::Named { .. }) {
            // A contender is told why. The connection ends in any case.
            let _ = self.answer(key, Some(&reason));
        }
        match self.connections.close(key) {
            // The dial goes on with the others and the next address; the roster is told only if none is left.
            Some(Phase::Dialing { peer } | Phase::AwaitingAnswer { peer, .. }) => {
                self.on_dial_ended(peer, key, (addr, reason), now);
            }
            // The knock was not answered, or it was refused.
            Some(Phase::Knocking {
                peer,
                answer: Some(_),
            }) if reason != Reason::Closed => {
                self.on_dial_ended(peer, key, (addr, reason), now);
            }
            Some(Phase::Knocking { peer, .. }) => {
                self.endpoints.finish(peer);
                self.roster.on_knocked(peer, now);
            }
            Some(Phase::AwaitingInitialMessage { .. }) => {
                let sid = None;
                self.tell(Event::Rejected { addr, sid, reason }, now);
            }
            Some(Phase::Named { peer, .. }) => {
                match self.peer(peer).map(|peer| peer.sid) {
                    // Its answer has arrived in this turn, and it has not become the link yet.
                    Some(sid) if dialed => self.tell_dial_failed(sid, addr, reason, now),
                    // The same, and its peer was removed before. A dial that is given up with its peer is not told.
                    None if dialed => {}
                    sid => self.tell(Event::Rejected { addr, sid, reason }, now),
                }
                self.on_down(peer, key, now);
            }
            Some(Phase::Open {
                peer,
                number,
                since,
                has_received,
                ..
            }) => {
                self.paused.remove(&key);
                let proven = has_received || now.saturating_duration_since(since) >= PROVEN_AFTER;
                if proven {
                    self.endpoints.on_proven(peer.id, addr);
                }
                // An end that the application has asked for proves nothing. Relaxed: only the loop uses this flag.
                if !matches!(reason, Reason::Dropped | Reason::Halted) {
                    peer.last_link_unproven.store(!proven, Ordering::Relaxed);
                }
                let reason = if self.roster.has_left(peer.id) {
                    // This server has closed its direction first.
                    Reason::Removed
                } else if self.goes_on_with_a_dial(peer.id, was_retired, now) {
                    reason_beside_a_dial(reason)
                } else {
                    reason_of_end(reason, dialed && !proven && !is_answered)
                };
                self.end_link(&peer, number, reason, now);
                self.on_down(peer.id, key, now);
            }
            Some(Phase::Closed) | None => {}
        }
    }

    /// The link of this peer has ended, which was retired or not. A dial whose answer is awaited waits for that no longer. Returns whether
    /// there is one, or was.
    fn goes_on_with_a_dial(&mut self, peer: PeerId, was_retired: bool, now: Instant) -> bool {
        let dial = self.unanswered_dial(peer);
        if let Some(dial) = dial {
            let due = now + self.answer_timeout(false);
            self.connections.set_due_before(dial, due);
        }
        if was_retired {
            self.roster.on_retired(peer, now);
        }
        was_retired || dial.is_some()
    }

    fn tell_dial_failed(&mut self, sid: Sid, addr: SocketAddr, reason: Reason, now: Instant) {
        self.handle.shared().counters.dial_failures.add(1);
        let addr = Some(addr);
        self.tell(Event::DialFailed { sid, addr, reason }, now);
    }

    /// A connection of a dial has failed.
    fn on_dial_ended(
        &mut self,
        peer: PeerId,
        key: ConnectionKey,
        failed: (SocketAddr, Reason),
        now: Instant,
    ) {
        let step = self.endpoints.next(peer, Some(key), failed, now);
        self.step(peer, step, now);
    }

    fn end_link(&mut self, peer: &Peer, link: u64, reason: Reason, now: Instant) {
        // Before `linked` is stored and before the event: a thread that learns of the end finds the frames waiting again.
        let written = peer.outbox.detach();
        self.handle.shared().link_down(peer, reason.clone());
        peer.counters.downs.count(reason.kind());
        let sid = peer.sid;
        self.tell(
            Event::Down {
                sid,
                reason,
                link,
                written,
            },
            now,
        );
    }

    /// A link or a contender of this peer has ended.
    fn on_down(&mut self, id: PeerId, key: ConnectionKey, now: Instant) {
        // With `Dial::OnDemand`, frames that still wait for the peer are the demand for its next link.
        let demand = self
            .peer(id)
            .is_some_and(|peer| peer.outbox.update_demand());
        self.roster.on_down(id, key, demand, now, &mut self.todo);
    }

    pub(super) fn reap(&mut self) {
        for connection in self.connections.drain_closed() {
            // Unwatched before the place is reused: no event of the old socket can come for the new one.
            self.net.unwatch(&connection.stream);
            // A thread that is writing may hold the stream for a moment longer. The connection ends now.
            let _ = if connection.aborted {
                connection.stream.abort()
            } else {
                connection.stream.shutdown(Shutdown::Both)
            };
        }
    }

    /// Halts the loop. Every socket is closed when this returns.
    pub(super) fn shut_down(&mut self, now: Instant) {
        // First: no connection is accepted by the kernel for a server that is about to be gone.
        self.net.close_listeners();
        for key in self.connections.keys() {
            match self
                .connections
                .get_mut(key)
                .map(|connection| &connection.phase)
            {
                // Nothing is dialed any more.
                Some(
                    Phase::Dialing { .. } | Phase::AwaitingAnswer { .. } | Phase::Knocking { .. },
                )
                | None => {
                    self.connections.close(key);
                }
                Some(_) => self.end(key, Reason::Halted, now),
            }
        }
        self.reap();
        let counters = &self.handle.shared().counters;
        counters.connections.set(0);
        counters.pending.set(0);
        self.tell(Event::Halted, now);
        self.handle.shared().end(Life::Halted);
    }
}

/// Why a link has ended while a native initial message to its peer is not answered yet. The far end has taken the new connection, and has
/// closed the old one before the answer arrived here.
fn reason_beside_a_dial(reason: Reason) -> Reason {
    match reason {
        Reason::Closed | Reason::ClosedEarly | Reason::Io(io::ErrorKind::ConnectionReset) => {
            Reason::Replaced
        }
        reason => reason,
    }
}

/// Why a link has ended. `at_once`: this server had dialed it, and it is not proven.
fn reason_of_end(reason: Reason, at_once: bool) -> Reason {
    match reason {
        Reason::Closed | Reason::ClosedEarly | Reason::Io(io::ErrorKind::ConnectionReset)
            if at_once =>
        {
            Reason::ClosedAtOnce
        }
        reason => reason,
    }
}
