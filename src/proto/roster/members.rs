//! Members that join, move and leave while the loop runs.
//!
//! Nothing here knows who decides about the members, or which frames wait.

use std::{mem, time::Instant};

use super::{
    super::{Sid, reason::Reason, standing::Origin},
    Action, Attempt, Kind, PeerId, Renewals, Roster,
};

impl Roster {
    pub(crate) fn is_member(&self, id: PeerId) -> bool {
        self.peers
            .get(&id)
            .is_some_and(|peer| peer.kind == Kind::Member)
    }

    /// Whether this peer is a member or leaves.
    pub(crate) fn was_member(&self, id: PeerId) -> bool {
        self.peers
            .get(&id)
            .is_some_and(|peer| matches!(peer.kind, Kind::Member | Kind::Leaving | Kind::Left))
    }

    /// Whether this peer was a member, and only the end of its link is awaited.
    pub(crate) fn has_left(&self, id: PeerId) -> bool {
        self.peers
            .get(&id)
            .is_some_and(|peer| peer.kind == Kind::Left)
    }

    /// This server is a member from now on. If it is a peer already, it keeps its link. Another peer that has its sid is removed before.
    pub(crate) fn on_joined(&mut self, id: PeerId, sid: Sid, now: Instant, todo: &mut Vec<Action>) {
        if sid == self.rules.own || sid.0 < 0 {
            return;
        }
        match self.peers.get_mut(&id) {
            Some(peer) if peer.sid == sid && peer.kind == Kind::Admitted => {
                peer.kind = Kind::Member;
                self.admitted -= 1;
            }
            Some(_) => return,
            None => {
                if let Some(other) = self.find(sid) {
                    self.remove(other, todo);
                }
                self.insert(id, sid, Kind::Member);
            }
        }
        if self.rules.eager {
            self.want(id, now, todo);
        }
    }

    /// This member has other addresses from now on. A dial of the old ones is given up, and one begins at once where one was due.
    pub(crate) fn on_moved(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // What was learned at the old addresses says nothing about the new ones.
        (peer.origin, peer.doubt) = (Origin::default(), None);
        peer.renewals = Renewals::new();
        peer.backoff.reset();
        peer.refused_pause = None;
        (peer.retry_not_before, peer.ignore_knock_until) = (None, None);
        peer.dial_back_until = None;
        let is_underway = peer.attempt.is_underway();
        if peer.attempt != Attempt::Rest {
            peer.attempt = Attempt::Underway { since: now };
            if is_underway {
                todo.push(Action::Cancel {
                    peer: id,
                    late: true,
                });
            }
            todo.push(Action::Dial { peer: id });
        }
        self.reschedule(id);
    }

    /// The link of this peer is at one of its addresses after all: the dial by which it was to be replaced is given up.
    pub(crate) fn on_back(&mut self, id: PeerId, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.link.is_none() {
            return;
        }
        if peer.attempt.is_underway() {
            todo.push(Action::Cancel {
                peer: id,
                late: true,
            });
        }
        (peer.attempt, peer.asked) = (Attempt::Rest, false);
        self.reschedule(id);
    }

    /// This server is no member any more, and frames still wait for it. It is linked, and dialed, until
    /// [`on_drained`](Self::on_drained) or [`remove`](Self::remove).
    pub(crate) fn on_leaving(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.kind == Kind::Member {
            peer.kind = Kind::Leaving;
            self.want(id, now, todo);
        }
    }

    /// Nothing waits any more for a peer that leaves, or for one that is no member while this server shuts down. If it has a link, the far end is expected to end it. Else the peer is removed.
    pub(crate) fn on_drained(&mut self, id: PeerId, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match peer.kind {
            Kind::Member | Kind::Left => return,
            Kind::Leaving | Kind::Admitted | Kind::Observer => {}
        }
        let is_linked = peer.link.is_some();
        self.stop(id, todo);
        if !is_linked {
            return self.part(id, todo);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            match mem::replace(&mut peer.kind, Kind::Left) {
                Kind::Admitted => self.admitted -= 1,
                Kind::Observer => self.observers -= 1,
                Kind::Member | Kind::Leaving | Kind::Left => {}
            }
        }
        self.reschedule(id);
    }

    /// Closes the link of this peer, gives up all else that concerns it, and removes it.
    pub(crate) fn remove(&mut self, id: PeerId, todo: &mut Vec<Action>) {
        self.stop(id, todo);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(link) = peer.link.take() {
            todo.push(Action::Close {
                link: link.key,
                reason: Reason::Removed,
            });
        }
        peer.doubt = None;
        if peer.kind == Kind::Member {
            // `part` keeps members.
            peer.kind = Kind::Leaving;
        }
        self.part(id, todo);
    }

    /// Gives up the attempt to get a link, and closes a contender.
    pub(super) fn stop(&mut self, id: PeerId, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.attempt.is_underway() {
            todo.push(Action::Cancel {
                peer: id,
                late: true,
            });
        }
        (peer.attempt, peer.wanted, peer.asked) = (Attempt::Rest, false, false);
        if let Some(contender) = peer.contender.take() {
            todo.push(Action::Close {
                link: contender.key,
                reason: Reason::UnknownSid(peer.sid),
            });
        }
        self.reschedule(id);
    }
}
