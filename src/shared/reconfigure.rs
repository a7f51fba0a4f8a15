//! The step from one set of members to the next.
//!
//! Nothing here is linked, and no link ends: the loop follows. A step is made by the thread that calls for it, under one lock, so that what
//! it returns is true at once for all threads that send.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    lifecycle::Life,
    membership::{Changes, Leaver, Member, Membership, View},
    peer::Peer,
    state::Shared,
};
use crate::{
    config::{Given, Leave, Members, Server, check_servers, take_own},
    error::{ConfigError, ReconfigureError},
    limits::LEAVE_MAX,
    proto::{Address, Sid},
    sync::lock,
};

/// What is left to do after a step, without the lock.
struct Applied {
    /// Those that have become members, or have ceased to be.
    changed: Vec<Arc<Peer>>,
    /// Those whose outboxes are to be closed.
    gone: Vec<Arc<Peer>>,
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
        let changes = self.step(|membership| {
            let mut next = membership.next().leave(leave);
            next.servers.retain(|(other, _)| *other != sid);
            (next, false)
        })?;
        if changes.left.is_empty() {
            self.hurry(sid, leave);
        }
        Ok(changes)
    }

    /// Shortens the time of a server that leaves already.
    fn hurry(&self, sid: Sid, leave: Leave) {
        let (mut gone, mut is_shorter) = (Vec::new(), false);
        let mut membership = lock(&self.membership);
        let until = membership.until(leave);
        for leaver in &mut membership.leavers {
            let peer = &leaver.member.peer;
            // `None` is the earliest.
            if peer.sid == sid && until < leaver.until {
                leaver.until = until;
                is_shorter = true;
                gone.extend(until.is_none().then(|| Arc::clone(peer)));
            }
        }
        drop(membership);
        if is_shorter {
            let changed = Vec::new();
            self.follow_up(Applied { changed, gone });
        }
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
        if membership.shutdown_at.is_some() {
            return Err(ReconfigureError::Halted);
        }
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
        let applied = self.apply(&mut membership, servers, own_addresses, leave, &changes)?;
        // Last: the loop that takes names without those of a removed server sees that it is removed.
        #[cfg(feature = "tls")]
        if let Some(names) = names {
            self.tls.set_names(names);
        }
        membership.version = given;
        drop(membership);
        self.follow_up(applied);
        Ok(changes)
    }

    /// See [`Handle::request_shutdown`](crate::Handle::request_shutdown).
    pub(crate) fn request_shutdown(&self, within: Duration) {
        if self.life() != Life::Running {
            return;
        }
        let mut membership = lock(&self.membership);
        let at = membership.clock.now() + within.min(LEAVE_MAX);
        let at = membership.shutdown_at.map_or(at, |earlier| earlier.min(at));
        membership.shutdown_at = Some(at);
        // First: from now on, a call that finds no peer returns `Halted`.
        self.shutting_down.store(true, Ordering::Relaxed);
        for leaver in &mut membership.leavers {
            leaver.until = leaver.until.map(|until| until.min(at));
        }
        let leavers = mem::take(&mut membership.members).into_values();
        let applied = self.let_leave(&mut membership, leavers, Some(at));
        drop(membership);
        for peer in self.peers() {
            // Also those that are no members, which stay known until they have left.
            peer.outbox.seal();
        }
        self.follow_up(applied);
    }

    /// What is done without the lock: this wakes tasks and drops payloads, and code of the application that runs then may change the members.
    fn follow_up(&self, applied: Applied) {
        for peer in applied.changed {
            if !peer.is_member() {
                peer.outbox.seal();
            }
            self.count_link_of(&peer);
        }
        for peer in applied.gone {
            peer.close();
        }
        self.order(&self.members_changed);
    }

    /// Applies the changes.
    fn apply(
        &self,
        membership: &mut Membership,
        servers: Vec<Server>,
        own_addresses: Vec<Address>,
        leave: Leave,
        changes: &Changes,
    ) -> Result<Applied, ReconfigureError> {
        let until = membership.until(leave);
        let left = &changes.left;
        let left: Vec<_> = left
            .iter()
            .filter_map(|sid| membership.members.remove(sid))
            .collect();
        let Applied {
            mut changed,
            mut gone,
        } = self.let_leave(membership, left, until);
        for Server { sid, addresses } in servers {
            if let Some(member) = membership.members.get_mut(&sid) {
                member.addresses = addresses;
                continue;
            }
            let peer = self.peers.join(membership.peer(sid));
            let peer = peer.ok_or(ReconfigureError::Halted)?;
            changed.push(Arc::clone(&peer));
            // The older peer with this sid has no more time: a server has one link.
            let same = |leaver: &&mut Leaver| leaver.member.peer.sid == sid;
            for older in membership.leavers.iter_mut().filter(same) {
                older.until = None;
                gone.push(Arc::clone(&older.member.peer));
            }
            membership.members.insert(sid, Member { peer, addresses });
        }
        membership.own_addresses = own_addresses;
        Ok(Applied { changed, gone })
    }

    /// These members are none any more. `until`: as in [`Leaver`].
    fn let_leave(
        &self,
        membership: &mut Membership,
        members: impl IntoIterator<Item = Member>,
        until: Option<Instant>,
    ) -> Applied {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for member in members {
            let peer = &member.peer;
            self.peers.leave(peer);
            changed.push(Arc::clone(peer));
            if until.is_none() {
                gone.push(Arc::clone(peer));
            }
            membership.leavers.push(Leaver { member, until });
        }
        Applied { changed, gone }
    }

    /// The members as the loop is to follow them.
    pub(crate) fn view(&self) -> View {
        lock(&self.membership).view()
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
