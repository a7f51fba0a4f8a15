//! Who the members are now, and what a step to other members would change.
//!
//! Nothing here changes which peers are known: `reconfigure` does.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::peer::Peer;
use crate::{
    config::{Config, Leave, Members, Outbox, Server},
    error::ConfigError,
    outbox::Clock,
    proto::{Address, PeerId, PeerIds, Sid},
};

/// What a change of the members has changed. Each sid is in one of the lists at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The version of the members now.
    pub version: u64,
    /// The servers that are members now, and were none before.
    pub joined: Vec<Sid>,
    /// The servers that are no members any more.
    pub left: Vec<Sid>,
    /// The members that have other addresses now, this server included.
    pub moved: Vec<Sid>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.moved.is_empty()
    }
}

/// A member, and where it can be dialed.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) peer: Arc<Peer>,
    pub(crate) addresses: Vec<Address>,
}

/// A server that was a member, and with which the loop has not parted yet.
#[derive(Clone, Debug)]
pub(crate) struct Leaver {
    pub(crate) member: Member,
    /// Until when the frames that wait for it may leave. `None`: they are discarded.
    pub(crate) until: Option<Instant>,
}

/// The members as the loop follows them.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) own_addresses: Vec<Address>,
    pub(crate) members: Vec<Member>,
    pub(crate) leavers: Vec<Leaver>,
    /// When the loop halts at the latest, if it shuts down.
    pub(crate) shutdown_at: Option<Instant>,
}

/// The members now. All but this server are in `members`.
#[derive(Debug)]
pub(crate) struct Membership {
    own: Sid,
    pub(super) own_addresses: Vec<Address>,
    pub(super) version: u64,
    pub(super) members: BTreeMap<Sid, Member>,
    pub(super) leavers: Vec<Leaver>,
    /// When the loop halts at the latest. `Some` if it shuts down: then all members leave, and none joins.
    pub(super) shutdown_at: Option<Instant>,
    /// How many servers, this one included, may be members or leave at one time.
    max: usize,
    outbox: Outbox,
    pub(super) clock: Clock,
    ids: PeerIds,
}

impl Membership {
    /// The members at the start.
    pub(crate) fn new(config: &Config, clock: Clock, ids: PeerIds) -> Self {
        let mut membership = Self {
            own: config.own,
            own_addresses: config.own_addresses.clone(),
            version: 0,
            members: BTreeMap::new(),
            leavers: Vec::new(),
            shutdown_at: None,
            max: config.options.members_max,
            outbox: config.options.outbox,
            clock,
            ids,
        };
        for Server { sid, addresses } in &config.members {
            let (peer, addresses) = (membership.peer(*sid), addresses.clone());
            peer.set_member(true);
            membership.members.insert(*sid, Member { peer, addresses });
        }
        membership
    }

    pub(super) fn peer(&self, sid: Sid) -> Arc<Peer> {
        let (id, clock) = (self.ids.next(), self.clock.clone());
        Arc::new(Peer::new(id, sid, self.outbox, clock))
    }

    /// The other members, sorted by sid.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let members = self.members.values();
        members.map(|member| Arc::clone(&member.peer)).collect()
    }

    /// Until when a server that leaves now may take.
    pub(super) fn until(&self, leave: Leave) -> Option<Instant> {
        match leave {
            Leave::Now => None,
            Leave::After(time) => Some(self.clock.now() + time),
        }
    }

    /// The loop has parted with this peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.leavers.retain(|leaver| leaver.member.peer.id != peer);
    }

    /// Whether a server with this sid leaves.
    #[cfg(feature = "tls")]
    pub(super) fn leaves(&self, sid: Sid) -> bool {
        self.leavers
            .iter()
            .any(|leaver| leaver.member.peer.sid == sid)
    }

    /// The members now, with the next version.
    pub(super) fn next(&self) -> Members {
        let members = self.members.iter();
        let others = members.map(|(sid, member)| (*sid, &member.addresses));
        let all = others.chain([(self.own, &self.own_addresses)]);
        let next = Members::new(self.version.saturating_add(1));
        all.fold(next, |next, (sid, addresses)| {
            next.server_at(sid, addresses.clone())
        })
    }

    /// What a step to these servers changes. `servers` are the other ones.
    pub(super) fn changes(
        &self,
        version: u64,
        own_addresses: &[Address],
        servers: &[Server],
    ) -> Changes {
        let mut changes = Changes {
            version,
            ..Changes::default()
        };
        if !are_same(own_addresses, &self.own_addresses) {
            changes.moved.push(self.own);
        }
        let mut left = self.members.clone();
        for server in servers {
            match left.remove(&server.sid) {
                None => changes.joined.push(server.sid),
                Some(member) if !are_same(&member.addresses, &server.addresses) => {
                    changes.moved.push(server.sid);
                }
                Some(_) => {}
            }
        }
        changes.left.extend(left.into_keys());
        changes
    }

    pub(super) fn check_room(&self, servers: usize, changes: &Changes) -> Result<(), ConfigError> {
        let (servers, leaving) = (servers + 1, self.leavers.len() + changes.left.len());
        if servers + leaving <= self.max {
            return Ok(());
        }
        let max = self.max;
        Err(ConfigError::BadOption {
            option: "members_max",
            why: format!("{servers} servers are members and {leaving} leave, at most {max} fit"),
        })
    }

    pub(super) fn view(&self) -> View {
        View {
            own_addresses: self.own_addresses.clone(),
            members: self.members.values().cloned().collect(),
            leavers: self.leavers.clone(),
            shutdown_at: self.shutdown_at,
        }
    }
}

/// Whether these are the same addresses in the same order, however they are spelled: ZooKeeper writes `[::1]` as `[0:0:0:0:0:0:0:1]`.
pub(crate) fn are_same(one: &[Address], other: &[Address]) -> bool {
    // First the texts, which mostly are the same as well: the loop compares those of all members after each step.
    let are_same =
        |(one, other): (&Address, &Address)| one == other || one.canonical() == other.canonical();
    one.len() == other.len() && one.iter().zip(other).all(are_same)
}
