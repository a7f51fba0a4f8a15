//! The known peers: members, which never change, and others (observers and admitted peers), which are added and removed.
//!
//! Nothing here knows which peer is linked.
//!
//! Invariants:
//!
//! - `members` and `sids` never change, so that they need no lock.
//! - A peer that is removed is counted once: by its own counters while it is known, and then in the totals. Both change under one write lock.
//! - The lock of an outbox may be taken under this lock, and never the other way round.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    peer::Peer,
    stats::{PeerStats, ReceiveStats, SendStats},
};
use crate::proto::Sid;

#[derive(Debug)]
pub(super) struct Registry {
    /// Sorted by sid. It never changes, so that a member is found without a lock.
    members: Vec<Arc<Peer>>,
    /// The sids of `members`, in the same order. A search reads only these.
    sids: Vec<Sid>,
    others: RwLock<Others>,
}

/// Observers and admitted peers.
#[derive(Debug, Default)]
struct Others {
    known: BTreeMap<Sid, Arc<Peer>>,
    /// Totals of the peers that were removed. So a total over removed and known peers never decreases.
    sent: SendStats,
    received: ReceiveStats,
}

impl Registry {
    /// `members` are sorted by sid.
    pub(super) fn new(members: Vec<Arc<Peer>>) -> Self {
        Self {
            sids: members.iter().map(|peer| peer.sid).collect(),
            members,
            others: RwLock::default(),
        }
    }

    pub(super) fn find(&self, sid: Sid) -> Option<Arc<Peer>> {
        // Members first: for them no lock is taken, and another peer never has the sid of a member.
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

    /// The members and these others, sorted by sid.
    fn with_members(&self, others: &Others) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self
            .members
            .iter()
            .chain(others.known.values())
            .cloned()
            .collect();
        peers.sort_by_key(|peer| peer.sid);
        peers
    }

    pub(super) fn add(&self, peer: Arc<Peer>) {
        self.write().known.insert(peer.sid, peer);
    }

    pub(super) fn remove(&self, peer: &Peer) {
        // Before the lock is taken: this drops payloads, and code of the application that runs then may call the registry.
        peer.outbox.close();
        // Between `close` and this lock, a thread may still find the peer. Its send is refused, since the outbox is closed.
        let mut others = self.write();
        others.known.remove(&peer.sid);
        let mut counts = peer.outbox.counts();
        // A thread may still be writing a frame. It counts as discarded.
        counts.discarded += std::mem::take(&mut counts.waiting);
        counts.waiting_since = None;
        others.sent.add(counts);
        others.received.add(peer.received());
    }

    /// The totals of all peers, known and removed, and the counters of each known peer.
    pub(super) fn stats(&self) -> (SendStats, ReceiveStats, Vec<PeerStats>) {
        // Under one lock, so that a peer that is removed meanwhile is counted once: as known or as removed.
        let others = self.read();
        let (mut sent, mut received) = (others.sent, others.received);
        let peers = self
            .with_members(&others)
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

    fn read(&self) -> RwLockReadGuard<'_, Others> {
        self.others.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Others> {
        self.others.write().unwrap_or_else(PoisonError::into_inner)
    }
}
