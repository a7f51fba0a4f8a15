//! Follows the members: those that the application has changed become or cease to be those of the roster.
//!
//! Nothing is decided here about who is a member. The loop compares what is with what should be, so that it does not matter how many
//! steps were made since it looked, or on which threads.

use std::{
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::{EventLoop, leaves::Step};
use crate::{
    config::Listens,
    event::Event,
    handler::Handler,
    net::{Net, Stream as _},
    proto::{Address, PeerId},
    shared::{Leaver, Member, Peer, View, are_same},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Parts with those that the application has removed from the members, or begins to. Returns the members.
    pub(super) fn follow_leavers(&mut self, now: Instant) -> Vec<Member> {
        // The actions of this turn first: they concern the peers as they were.
        self.apply_all(now);
        let View {
            own_addresses,
            members,
            leavers,
            shutdown_at,
        } = self.handle.shared().view();
        if !are_same(&own_addresses, &self.own_addresses) {
            self.move_self(own_addresses, now);
        }
        for Leaver { member, until } in leavers {
            self.follow_leaver(member, until, now);
            // Before the next one: it may have the same sid, and must not join before the older one has left.
            self.apply_all(now);
        }
        if let Some(until) = shutdown_at {
            self.shutting_down = true;
            // Those that are no members as well.
            for id in self.peers.keys() {
                self.leaves.insert(*id, until, now);
            }
        }
        members
    }

    /// Makes these the members of the roster.
    pub(super) fn follow_members(&mut self, members: Vec<Member>, now: Instant) {
        for Member { peer, addresses } in members {
            if !self.roster.is_member(peer.id) {
                self.join(&peer, &addresses, now);
            } else if !are_same(&self.endpoints.addresses(peer.id), &addresses) {
                self.move_to(&peer, &addresses, now);
            }
        }
        self.apply_all(now);
    }

    /// This server has other addresses. The next connections say so.
    fn move_self(&mut self, own_addresses: Vec<Address>, now: Instant) {
        if self.options.listens != Listens::Elsewhere {
            let addresses = self.options.listens.addresses(&own_addresses);
            let actions = &mut self.listener_actions;
            self.listeners
                .change(&mut self.net, &addresses, now, actions);
        }
        self.own_addresses = own_addresses;
        let sid = self.handle.sid();
        self.tell(Event::Moved { sid }, now);
    }

    fn join(&mut self, peer: &Arc<Peer>, addresses: &[Address], now: Instant) {
        self.peers.insert(peer.id, Arc::clone(peer));
        self.endpoints.insert(peer.id, addresses);
        self.roster
            .on_joined(peer.id, peer.sid, now, &mut self.todo);
        self.tell(Event::Joined { sid: peer.sid }, now);
    }

    /// `until`: `None` if the peer leaves at once.
    fn follow_leaver(&mut self, member: Member, until: Option<Instant>, now: Instant) {
        let Member { peer, addresses } = member;
        if !self.roster.was_member(peer.id) {
            // It joined and left since the loop has looked.
            if until.is_none() && !self.peers.contains_key(&peer.id) {
                let (shared, sid) = (self.handle.shared(), peer.sid);
                shared.part(&peer);
                let discarded = peer.discarded_at_end();
                self.tell(Event::Joined { sid }, now);
                return self.tell(Event::Left { sid, discarded }, now);
            }
            // Also if it is an admitted peer, which would not be dialed for its last word.
            self.join(&peer, &addresses, now);
        }
        if !self.leaves.insert(peer.id, until.unwrap_or(now), now) && until.is_some() {
            return;
        }
        match until {
            Some(_) => self.roster.on_leaving(peer.id, now, &mut self.todo),
            None => self.roster.remove(peer.id, &mut self.todo),
        }
    }

    /// The member has other addresses. A link to one of them stays. Any other link is replaced by a new one, and ends when that is there.
    fn move_to(&mut self, peer: &Arc<Peer>, addresses: &[Address], now: Instant) {
        let id = peer.id;
        self.endpoints.insert(id, addresses);
        self.keep_link_at_home(id);
        self.roster.on_moved(id, now, &mut self.todo);
        if self.is_link_at_home(id) == Some(false) {
            self.renewals.add_moved(id);
        }
        self.tell(Event::Moved { sid: peer.sid }, now);
    }

    /// The addresses of this peer have changed, or more of them are known. If its link was to be replaced because it was at none of them, and
    /// is at one now, it stays.
    pub(super) fn keep_link_at_home(&mut self, id: PeerId) {
        if self.is_link_at_home(id) == Some(true) && self.renewals.withdraw(id) {
            self.roster.on_back(id, &mut self.todo);
        }
    }

    /// Whether the link of this peer is at one of its known addresses. `None`: it has no link.
    fn is_link_at_home(&mut self, id: PeerId) -> Option<bool> {
        let connection = self.connections.get_mut(self.roster.link(id)?)?;
        let (addr, is_dialed) = (connection.addr, connection.arrival.is_none());
        Some(self.is_at(id, addr, is_dialed))
    }

    /// Whether the far end of a link is at a known address of its peer. The port of one that the peer has dialed has no meaning.
    fn is_at(&self, id: PeerId, addr: SocketAddr, is_dialed: bool) -> bool {
        match is_dialed {
            true => self.endpoints.has(id, addr),
            false => self.endpoints.is_home(id, addr.ip()),
        }
    }

    /// Ends the links of those that leave, once nothing waits for them or their time is over.
    pub(super) fn look_at_leaves(&mut self, now: Instant) {
        // The actions of this turn first, as in `follow_leavers`: else the `Up` of a link is applied after its peer was removed.
        self.apply_all(now);
        let peers = &self.peers;
        let is_drained = |id| peers.get(&id).is_none_or(|peer| peer.outbox.is_drained());
        for (id, step) in self.leaves.due(now, is_drained) {
            match step {
                Step::Over => self.roster.remove(id, &mut self.todo),
                Step::Drained => {
                    self.roster.on_drained(id, &mut self.todo);
                    self.close_own_direction(id);
                }
            }
        }
    }

    /// Tells the far end that nothing follows. It reads all that was written before, and then ends the link: closed from here, the link
    /// could be reset, and the last frame lost with it.
    fn close_own_direction(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get(&id) {
            // A ping that is written after this would break the link, which would then be reset. No frame waits.
            peer.outbox.close();
        }
        let link = self.roster.link(id);
        if let Some(connection) = link.and_then(|key| self.connections.get_mut(key)) {
            // If it is broken, its end is reported.
            let _ = connection.stream.shutdown(Shutdown::Write);
        }
    }
}
