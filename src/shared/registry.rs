//! The known peers: members and others (observers and admitted peers). Both are added and removed while the loop runs.
//!
//! Nothing here knows which peer is linked, or decides who is a member.
//!
//! Invariants:
//!
//! - `first` never changes, so that it needs no lock. A key in it changes once, when its peer is removed, and then matches no sid.
//! - `known` has at most one peer for each sid. A peer that is removed is in `removed` until the loop knows that it is.
//! - A peer is counted once: by its own counters while it is in one of these two, and then in the totals.
//! - The lock of an outbox may be taken under this lock, and never the other way round. No outbox is closed under it, since that drops
//!   payloads, and code of the application that runs then may call the registry.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    peer::Peer,
    stats::{PeerStats, ReceiveStats, SendStats},
};
use crate::proto::Sid;

#[derive(Debug)]
pub(super) struct Registry {
    /// The members at the start, sorted by sid, so that they are found without a lock.
    first: Vec<Arc<Peer>>,
    /// The [keys](key) of `first`, in the same order. A search reads only these.
    keys: Vec<AtomicU64>,
    peers: RwLock<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    known: BTreeMap<Sid, Arc<Peer>>,
    /// Peers that are not known any more, and of which the loop may still have a link.
    removed: Vec<Arc<Peer>>,
    /// True exactly when the loop has ended.
    has_ended: bool,
    /// Totals of the peers that are in neither. So a total over all peers never decreases.
    sent: SendStats,
    received: ReceiveStats,
}

/// A number by which sids are sorted. That of a member is even.
fn key(sid: Sid) -> u64 {
    // The sign comes last: that of a member is 0.
    (sid.0 as u64).rotate_left(1)
}

impl Registry {
    /// `members` are sorted by sid.
    pub(super) fn new(members: Vec<Arc<Peer>>) -> Self {
        let known = members.iter().map(|peer| (peer.sid, Arc::clone(peer)));
        let peers = Peers {
            known: known.collect(),
            ..Peers::default()
        };
        Self {
            keys: members
                .iter()
                .map(|peer| AtomicU64::new(key(peer.sid)))
                .collect(),
            first: members,
            peers: RwLock::new(peers),
        }
    }

    pub(super) fn find(&self, sid: Sid) -> Option<Arc<Peer>> {
        match self.first_member(sid) {
            Some(peer) => Some(Arc::clone(peer)),
            None => self.read().known.get(&sid).cloned(),
        }
    }

    /// The member with this sid, if it was one at the start, and has been ever since.
    #[inline]
    pub(super) fn first_member(&self, sid: Sid) -> Option<&Arc<Peer>> {
        Some(&self.first[self.first_index(sid)?])
    }

    #[inline]
    fn first_index(&self, sid: Sid) -> Option<usize> {
        let wanted = key(sid);
        // Relaxed: the peer itself never changes. A thread that has not seen yet that it was removed finds its outbox closed.
        let order = |key: &AtomicU64| key.load(Ordering::Relaxed).cmp(&wanted);
        self.keys.binary_search_by(order).ok()
    }

    /// The known peers, sorted by sid.
    pub(super) fn known(&self) -> Vec<Arc<Peer>> {
        self.read().known.values().cloned().collect()
    }

    /// Whether this holds for all peers, also for those that are being removed.
    pub(super) fn all(&self, holds: impl Fn(&Peer) -> bool) -> bool {
        self.read().all().all(|peer| holds(peer))
    }

    /// Returns all peers. No member is added afterwards.
    pub(super) fn end(&self) -> Vec<Arc<Peer>> {
        let mut peers = self.write();
        peers.has_ended = true;
        peers.all().cloned().collect()
    }

    /// Adds an observer or an admitted peer. If its sid has become that of a member meanwhile, the loop removes it again.
    pub(super) fn add(&self, peer: Arc<Peer>) {
        let mut peers = self.write();
        if peers.known.contains_key(&peer.sid) {
            peers.removed.push(peer);
        } else {
            peers.known.insert(peer.sid, peer);
        }
    }

    /// Makes this peer a member, or the admitted peer that has its sid. Returns the member. `None`: the loop has ended.
    pub(super) fn join(&self, peer: Arc<Peer>) -> Option<Arc<Peer>> {
        let mut peers = self.write();
        if peers.has_ended {
            return None;
        }
        let member = peers.known.entry(peer.sid).or_insert(peer);
        member.set_member(true);
        Some(Arc::clone(member))
    }

    /// This peer is no member any more. The caller closes or seals its outbox.
    pub(super) fn leave(&self, peer: &Arc<Peer>) {
        let mut peers = self.write();
        peer.set_member(false);
        peers.retire(peer);
        if let Some(index) = self.first_index(peer.sid) {
            // An odd number, which no member has. The order stays.
            self.keys[index].store(key(peer.sid) | 1, Ordering::Relaxed);
        }
    }

    /// The loop has parted with this peer. If it has become a member meanwhile, it stays: the loop finds it among the members.
    pub(super) fn remove(&self, peer: &Arc<Peer>) {
        {
            let mut peers = self.write();
            if peer.is_member() {
                return;
            }
            peers.retire(peer);
        }
        // After this, a thread may still find the peer in a copy. Its send is refused.
        peer.close();
        let mut peers = self.write();
        let Some(index) = peers.removed.iter().position(|it| it.id == peer.id) else {
            return;
        };
        peers.removed.swap_remove(index);
        let mut counts = peer.outbox.counts();
        // A thread may still be writing a frame. It counts as discarded.
        counts.discarded += std::mem::take(&mut counts.waiting);
        counts.waiting_since = None;
        peers.sent.add(counts);
        peers.received.add(peer.received());
    }

    /// The totals of all peers, known and removed, and the counters of each known peer.
    pub(super) fn stats(&self) -> (SendStats, ReceiveStats, Vec<PeerStats>) {
        // Under one lock, so that a peer that is removed meanwhile is counted once: as known or as removed.
        let peers = self.read();
        let (mut sent, mut received) = (peers.sent, peers.received);
        let mut stats_of = |peer: &Arc<Peer>| {
            let counts = peer.outbox.counts();
            sent.add(counts);
            let stats = peer.stats(counts);
            received.add(stats.received);
            stats
        };
        let known = peers.known.values().map(&mut stats_of).collect();
        for peer in &peers.removed {
            stats_of(peer);
        }
        (sent, received, known)
    }

    fn read(&self) -> RwLockReadGuard<'_, Peers> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Peers> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    fn all(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.known.values().chain(&self.removed)
    }

    /// Moves this peer from the known ones to the removed ones, if it is there.
    fn retire(&mut self, peer: &Arc<Peer>) {
        if self
            .known
            .get(&peer.sid)
            .is_some_and(|known| known.id == peer.id)
        {
            self.known.remove(&peer.sid);
            self.removed.push(Arc::clone(peer));
        }
    }
}
