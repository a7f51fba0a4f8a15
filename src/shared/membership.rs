//! Who the members are now, and the step from one set of them to the next.
//!
//! Nothing here is linked or closed: the loop follows. A step is made by the thread that calls for it, under one lock, so that what it
//! returns is true at once for all threads that send.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{lifecycle::Life, peer::Peer, state::Shared};
use crate::{
    config::{self, Given, Leave, Members, Server, check_servers, take_own},
    error::{ConfigError, ReconfigureError},
    limits::LEAVE_MAX,
    outbox::Clock,
    proto::{Address, PeerId, PeerIds, Sid},
    sync::lock,
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
    fn is_empty(&self) -> bool {
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
}

/// The members now. All but this server are in `members`.
#[derive(Debug)]
pub(crate) struct Membership {
    own: Sid,
    own_addresses: Vec<Address>,
    version: u64,
    members: BTreeMap<Sid, Member>,
    leavers: Vec<Leaver>,
    /// How many servers, this one included, may be members or leave at one time.
    max: usize,
    outbox: config::Outbox,
    clock: Clock,
    ids: PeerIds,
}

impl Membership {
    /// The members at the start: this server, with these addresses, and the others.
    pub(crate) fn new(
        own: Server,
        others: &[Server],
        max: usize,
        outbox: config::Outbox,
        clock: Clock,
        ids: PeerIds,
    ) -> Self {
        let mut membership = Self {
            own: own.sid,
            own_addresses: own.addresses,
            version: 0,
            members: BTreeMap::new(),
            leavers: Vec::new(),
            max,
            outbox,
            clock,
            ids,
        };
        for server in others {
            let peer = membership.peer(server.sid);
            peer.set_member(true);
            let addresses = server.addresses.clone();
            membership
                .members
                .insert(server.sid, Member { peer, addresses });
        }
        membership
    }

    fn peer(&self, sid: Sid) -> Arc<Peer> {
        let (id, clock) = (self.ids.next(), self.clock.clone());
        Arc::new(Peer::new(id, sid, self.outbox, clock))
    }

    /// The other members, sorted by sid.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let members = self.members.values();
        members.map(|member| Arc::clone(&member.peer)).collect()
    }

    /// The loop has parted with this peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.leavers.retain(|leaver| leaver.member.peer.id != peer);
    }

    /// The members now, with the next version.
    fn next(&self) -> Members {
        let members = self.members.iter();
        let others = members.map(|(sid, member)| (*sid, &member.addresses));
        let all = others.chain([(self.own, &self.own_addresses)]);
        let next = Members::new(self.version.saturating_add(1));
        all.fold(next, |next, (sid, addresses)| {
            next.server_at(sid, addresses.clone())
        })
    }

    /// What a step to these servers changes. `servers` are the other ones.
    fn changes(&self, version: u64, own_addresses: &[Address], servers: &[Server]) -> Changes {
        let mut changes = Changes {
            version,
            ..Changes::default()
        };
        if own_addresses != self.own_addresses {
            changes.moved.push(self.own);
        }
        let mut left = self.members.clone();
        for server in servers {
            match left.remove(&server.sid) {
                None => changes.joined.push(server.sid),
                Some(member) if member.addresses != server.addresses => {
                    changes.moved.push(server.sid);
                }
                Some(_) => {}
            }
        }
        changes.left.extend(left.into_keys());
        changes
    }

    fn check_room(&self, servers: usize, changes: &Changes) -> Result<(), ConfigError> {
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
}

impl Shared {
    /// See [`Handle::reconfigure`](crate::Handle::reconfigure).
    pub(crate) fn reconfigure(&self, members: Members) -> Result<Changes, ReconfigureError> {
        self.step(|_| (members, true))
    }

    /// See [`Handle::set_server`](crate::Handle::set_server).
    pub(crate) fn set_server(
        &self,
        sid: Sid,
        addresses: String,
    ) -> Result<Changes, ReconfigureError> {
        self.step(|membership| {
            let mut next = membership.next();
            next.servers.retain(|(other, _)| *other != sid);
            next.servers.push((sid, Given::Text(addresses)));
            (next, false)
        })
    }

    /// See [`Handle::remove_server`](crate::Handle::remove_server).
    pub(crate) fn remove_server(
        &self,
        sid: Sid,
        leave: Leave,
    ) -> Result<Changes, ReconfigureError> {
        self.step(|membership| {
            let mut next = membership.next().leave(leave);
            next.servers.retain(|(other, _)| *other != sid);
            (next, false)
        })
    }

    /// Makes one step, to the members that `next` returns, and with `true` if the application has chosen their version.
    fn step(
        &self,
        next: impl FnOnce(&Membership) -> (Members, bool),
    ) -> Result<Changes, ReconfigureError> {
        if self.life() != Life::Running || self.halt.is_given() {
            return Err(ReconfigureError::Halted);
        }
        let mut membership = lock(&self.membership);
        let (next, has_version) = next(&membership);
        let (given, current) = (next.version(), membership.version);
        if given < current {
            return Err(ReconfigureError::OldVersion { given, current });
        }
        let leave = check_leave(next.leave)?;
        let mut servers = check_servers(next.servers)?;
        #[cfg(feature = "tls")]
        let all = servers.clone();
        let own_addresses = take_own(self.own, &mut servers)?;
        let mut changes = membership.changes(given, &own_addresses, &servers);
        // `Some`: they are other ones than those now.
        #[cfg(feature = "tls")]
        let names = self
            .tls
            .next_names(self.own, &all, next.names, &changes.left)?;
        #[cfg(not(feature = "tls"))]
        let names: Option<()> = None;
        if changes.is_empty() && names.is_none() {
            if has_version {
                membership.version = given;
            }
            changes.version = membership.version;
            return Ok(changes);
        }
        if given == current {
            return Err(ReconfigureError::SameVersion(current));
        }
        membership.check_room(servers.len(), &changes)?;
        #[cfg(feature = "tls")]
        if let Some(names) = names {
            self.tls.set_names(names);
        }
        let gone = self.apply(&mut membership, servers, own_addresses, leave, &changes)?;
        membership.version = given;
        // Without the lock: this drops payloads, and code of the application that runs then may change the members.
        drop(membership);
        for peer in gone {
            peer.close();
        }
        self.order(&self.members_changed);
        Ok(changes)
    }

    /// Applies the changes. Returns the peers whose outboxes are to be closed.
    fn apply(
        &self,
        membership: &mut Membership,
        servers: Vec<Server>,
        own_addresses: Vec<Address>,
        leave: Leave,
        changes: &Changes,
    ) -> Result<Vec<Arc<Peer>>, ReconfigureError> {
        let mut gone = Vec::new();
        let until = match leave {
            Leave::Now => None,
            Leave::After(time) => Some(membership.clock.now() + time),
        };
        for sid in &changes.left {
            let Some(member) = membership.members.remove(sid) else {
                continue;
            };
            let peer = &member.peer;
            self.peers.leave(peer);
            self.count_link_of(peer);
            match until {
                Some(_) => peer.outbox.seal(),
                None => gone.push(Arc::clone(peer)),
            }
            membership.leavers.push(Leaver { member, until });
        }
        for Server { sid, addresses } in servers {
            if let Some(member) = membership.members.get_mut(&sid) {
                member.addresses = addresses;
                continue;
            }
            let peer = self.peers.join(membership.peer(sid));
            let peer = peer.ok_or(ReconfigureError::Halted)?;
            self.count_link_of(&peer);
            // The older peer with this sid has no more time: a server has one link.
            let same = |leaver: &&mut Leaver| leaver.member.peer.sid == sid;
            for older in membership.leavers.iter_mut().filter(same) {
                older.until = None;
                gone.push(Arc::clone(&older.member.peer));
            }
            membership.members.insert(sid, Member { peer, addresses });
        }
        membership.own_addresses = own_addresses;
        Ok(gone)
    }

    /// The members as the loop is to follow them.
    pub(crate) fn view(&self) -> View {
        let membership = lock(&self.membership);
        View {
            own_addresses: membership.own_addresses.clone(),
            members: membership.members.values().cloned().collect(),
            leavers: membership.leavers.clone(),
        }
    }
}

fn check_leave(leave: Leave) -> Result<Leave, ConfigError> {
    match leave {
        Leave::After(time) if time > LEAVE_MAX => Err(ConfigError::BadOption {
            option: "leave",
            why: format!("{time:?} is above {LEAVE_MAX:?}"),
        }),
        leave => Ok(leave),
    }
}
