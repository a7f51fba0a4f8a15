//! The known peers: members, which never change, and guests (observers and admitted peers), which are added and removed.
//!
//! Nothing here knows which peer is linked.
//!
//! Invariants:
//!
//! - `members` and `sids` never change, so that they need no lock.
//! - A guest is counted once: by its own counters while it is known, and then in the totals. Both change under one write lock.
//! - The lock of an outbox may be taken under this lock, and never the other way round.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    peer::Peer,
    stats::{Incoming, Outgoing, PeerStats},
};
use crate::proto::Sid;

#[derive(Debug)]
pub(super) struct Registry {
    /// Sorted by sid. It never changes, so that a member is found without a lock.
    members: Vec<Arc<Peer>>,
    /// The sids of `members`, in the same order. A search reads only these.
    sids: Vec<Sid>,
    guests: RwLock<Guests>,
}

/// Observers and admitted peers.
#[derive(Debug, Default)]
struct Guests {
    known: BTreeMap<Sid, Arc<Peer>>,
    /// Totals of the guests that were removed. So a total over removed and known guests never decreases.
    sent: Outgoing,
    received: Incoming,
}

impl Registry {
    /// `members` are sorted by sid.
    pub(super) fn new(members: Vec<Arc<Peer>>) -> Self {
        Self {
            sids: members.iter().map(|peer| peer.sid).collect(),
            members,
            guests: RwLock::default(),
        }
    }

    pub(super) fn find(&self, sid: Sid) -> Option<Arc<Peer>> {
        // Members first: for them no lock is taken, and a guest never has the sid of a member.
        match self.member(sid) {
            Some(peer) => Some(Arc::clone(peer)),
            None => self.read().known.get(&sid).cloned(),
        }
    }

    #[inline]
    pub(super) fn member(&self, sid: Sid) -> Option<&Arc<Peer>> {
        let index = self.sids.binary_search(&sid).ok()?;
        Some(&self.members[index])
    }

    /// All peers, sorted by sid.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.with_members(&self.read())
    }

    /// The members and these guests, sorted by sid.
    fn with_members(&self, guests: &Guests) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self
            .members
            .iter()
            .chain(guests.known.values())
            .cloned()
            .collect();
        peers.sort_by_key(|peer| peer.sid);
        peers
    }

    pub(super) fn add(&self, guest: Arc<Peer>) {
        self.write().known.insert(guest.sid, guest);
    }

    pub(super) fn remove(&self, guest: &Peer) {
        // Before the lock is taken: this drops payloads, and code of the application that runs then may call the registry.
        guest.outbox.close();
        // Between `close` and this lock, a thread may still find the guest. Its send is refused, since the outbox is closed.
        let mut guests = self.write();
        guests.known.remove(&guest.sid);
        let mut counts = guest.outbox.counts();
        // A thread may still be writing a frame. It counts as discarded.
        counts.discarded += std::mem::take(&mut counts.waiting);
        guests.sent.add(counts);
        guests.received.add(guest.received());
    }

    /// The totals of all peers, known and removed, and the counters of each known peer.
    pub(super) fn stats(&self) -> (Outgoing, Incoming, Vec<PeerStats>) {
        // Under one lock, so that a guest that is removed meanwhile is counted once: as known or as removed.
        let guests = self.read();
        let (mut sent, mut received) = (guests.sent, guests.received);
        let peers = self
            .with_members(&guests)
            .iter()
            .map(|peer| {
                let counts = peer.outbox.counts();
                sent.add(counts);
                let stats = peer.stats(counts);
                received.add(stats.received);
                stats
            })
            .collect();
        (sent, received, peers)
    }

    fn read(&self) -> RwLockReadGuard<'_, Guests> {
        self.guests.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Guests> {
        self.guests.write().unwrap_or_else(PoisonError::into_inner)
    }
}
