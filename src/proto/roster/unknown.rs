//! Peers that are not configured: observers, and servers that are admitted.
//!
//! Nothing here decides which connection is kept.

use std::time::Instant;

use super::{
    super::{Sid, reason::Reason},
    Action, ConnectionKey, FarEnd, Kind, Peer, PeerId, Roster, Verdict,
};

impl Roster {
    pub(super) fn on_observer(
        &mut self,
        link: ConnectionKey,
        far_end: FarEnd,
        now: Instant,
        todo: &mut Vec<Action>,
    ) -> Verdict {
        if self.observers >= self.rules.observers_max {
            return Verdict::Reject(Reason::ObserversFull);
        }
        // Counted down and never reused, so that no frame for one observer reaches another.
        let sid = Sid(self.next_observer);
        self.next_observer -= 1;
        let id = self.ids.next();
        self.insert(id, sid, Kind::Observer);
        todo.push(Action::PeerAdded { peer: id, sid });
        self.establish(id, link, far_end, now, todo);
        Verdict::Keep(id)
    }

    /// Admits a server that is not a member, or returns why it is refused. If all places are taken, an idle one is removed to make room.
    pub(super) fn admit(
        &mut self,
        sid: Sid,
        reachable: bool,
        todo: &mut Vec<Action>,
    ) -> Result<PeerId, Reason> {
        // It would have to be dialed back, and has named no address.
        let useless = sid < self.rules.own && !reachable;
        if self.rules.admitted_max == 0 || sid.0 < 0 || useless {
            return Err(Reason::UnknownSid(sid));
        }
        if self.admitted >= self.rules.admitted_max {
            let idle = |peer: &Peer| {
                peer.kind == Kind::Admitted && peer.link.is_none() && !peer.attempt.is_underway()
            };
            // The peer that was admitted first: ids increase.
            let Some((&idle, _)) = self.peers.iter().find(|(_, peer)| idle(peer)) else {
                return Err(Reason::AdmittedFull);
            };
            self.part(idle, todo);
        }
        let id = self.ids.next();
        self.insert(id, sid, Kind::Admitted);
        todo.push(Action::PeerAdded { peer: id, sid });
        Ok(id)
    }
}
