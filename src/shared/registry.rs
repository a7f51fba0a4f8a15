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
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    peer::Peer,
    stats::{PeerStats, ReceiveStats, SendStats},
};
use crate::{proto::Sid, sync::Guard};

#[derive(Debug)]
pub(super) struct Registry {
    /// The members at the start, sorted by sid, so that they are found without a lock.
    first: Vec<First>,
    peers: RwLock<Peers>,
}

/// A member at the start.
#[derive(Debug)]
struct First {
    /// Its [key]. A search reads only these.
    key: AtomicU64,
    peer: Arc<Peer>,
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
        let first = members.into_iter().map(|peer| First {
            key: AtomicU64::new(key(peer.sid)),
            peer,
        });
        Self {
            first: first.collect(),
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
        Some(&self.first(sid)?.peer)
    }

    #[inline]
    fn first(&self, sid: Sid) -> Option<&First> {
        let wanted = key(sid);
        // Relaxed: the peer itself never changes. A thread that has not seen yet that it was removed finds its outbox closed.
        let order = |first: &First| first.key.load(Ordering::Relaxed).cmp(&wanted);
        let index = self.first.binary_search_by(order).ok()?;
        self.first.get(index)
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
        match peers.known.entry(peer.sid) {
            Entry::Vacant(place) => {
                place.insert(peer);
            }
            Entry::Occupied(_) => peers.removed.push(peer),
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
        if let Some(first) = self.first(peer.sid) {
            // An odd number, which no member has. The order stays.
            first.key.store(key(peer.sid) | 1, Ordering::Relaxed);
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

    /// Counts frames that were taken for this peer, and came too late to be put into its outbox.
    pub(super) fn discard_late(&self, peer: &Peer, frames: u64) {
        let mut peers = self.write();
        peer.outbox.discard_late(frames);
        // `remove` has added the counts of the outbox without these.
        if !peers.all().any(|it| it.id == peer.id) {
            peers.sent.accepted += frames;
            peers.sent.discarded += frames;
        }
    }

    /// The totals of all peers, known and removed, how many of the removed ones are linked, and the counters of each known peer.
    pub(super) fn stats(&self) -> (SendStats, ReceiveStats, u64, Vec<PeerStats>) {
        // Under one lock, so that a peer that is removed meanwhile is counted once: as known or as removed.
        let peers = self.read();
        let (mut sent, mut received) = (peers.sent, peers.received);
        let mut stats_of = |peer: &Arc<Peer>| {
            let counts = peer.outbox.all_counts();
            sent.add(counts.0);
            let stats = peer.stats(counts);
            received.add(stats.received);
            stats
        };
        let known = peers.known.values().map(&mut stats_of).collect();
        let leaving = peers.removed.iter().filter(|peer| stats_of(peer).linked);
        let leaving = leaving.count() as u64;
        (sent, received, leaving, known)
    }

    fn read(&self) -> Guard<RwLockReadGuard<'_, Peers>> {
        Guard::new(self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> Guard<RwLockWriteGuard<'_, Peers>> {
        Guard::new(self.peers.write().unwrap_or_else(PoisonError::into_inner))
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{config::Outbox, outbox::Clock, proto::PeerId};

    fn peer(id: u64, sid: i64) -> Arc<Peer> {
        let clock = Clock::new(Instant::now);
        Arc::new(Peer::new(PeerId(id), Sid(sid), Outbox::Latest, clock))
    }

    fn registry(sids: &[i64]) -> Registry {
        let members: Vec<_> = (0..).zip(sids).map(|(id, sid)| peer(id, *sid)).collect();
        for member in &members {
            member.set_member(true);
        }
        Registry::new(members)
    }

    fn found(registry: &Registry, sid: i64) -> Option<PeerId> {
        registry.find(Sid(sid)).map(|peer| peer.id)
    }

    #[test]
    fn members_are_found_until_they_leave() {
        let sids = [0, 1, 2, 3, i64::MAX - 2, i64::MAX - 1];
        let registry = registry(&sids);
        for (id, sid) in (0..).zip(sids) {
            assert_eq!(found(&registry, sid), Some(PeerId(id)));
            // Sids whose keys are those of members that have left.
            for other in [i64::MIN + sid, sid - i64::MAX, -sid - 1] {
                assert_eq!(found(&registry, other), None, "{other}");
            }
        }
        for (id, sid) in (0..).zip(sids) {
            let leaver = registry.find(Sid(sid)).unwrap();
            registry.leave(&leaver);
            assert!(!leaver.is_member() && registry.first_member(Sid(sid)).is_none());
            assert_eq!(found(&registry, sid), None);
            for (later, sid) in (0..).zip(sids).skip(id as usize + 1) {
                assert_eq!(found(&registry, sid), Some(PeerId(later)));
            }
        }
    }

    #[test]
    fn sid_that_comes_back_is_another_peer() {
        let registry = registry(&[1, 2]);
        let old = registry.find(Sid(1)).unwrap();
        old.outbox.put("old".into()).0.unwrap();
        registry.leave(&old);
        let new = registry.join(peer(7, 1)).unwrap();
        assert_eq!(found(&registry, 1), Some(PeerId(7)));
        new.outbox.put("new".into()).0.unwrap();
        let counted = |registry: &Registry| {
            let (sent, _, _, known) = registry.stats();
            assert!(sent.balances());
            (sent.accepted, sent.waiting, sent.discarded, known.len())
        };
        assert_eq!(counted(&registry), (2, 2, 0, 2));
        for _ in 0..2 {
            registry.remove(&old);
            assert_eq!(counted(&registry), (2, 1, 1, 2), "it is counted once");
        }
        assert_eq!(old.discarded_at_end(), 1);
    }

    #[test]
    fn admitted_peer_that_becomes_a_member_stays_when_the_loop_parts_with_it() {
        let registry = registry(&[1]);
        let admitted = peer(3, 9);
        registry.add(Arc::clone(&admitted));
        let member = registry.join(peer(4, 9)).unwrap();
        assert_eq!((member.id, member.is_member()), (admitted.id, true));
        registry.remove(&admitted);
        assert_eq!(found(&registry, 9), Some(admitted.id));
        admitted.outbox.put("taken".into()).0.unwrap();
    }

    #[test]
    fn peer_that_is_admitted_with_the_sid_of_a_new_member_is_counted_and_not_found() {
        let registry = registry(&[1]);
        registry.join(peer(4, 9)).unwrap();
        let admitted = peer(3, 9);
        registry.add(Arc::clone(&admitted));
        assert_eq!(found(&registry, 9), Some(PeerId(4)));
        admitted.counters.frames.add(5);
        assert_eq!(registry.stats().1.frames, 5);
        registry.remove(&admitted);
        assert_eq!(registry.stats().1.frames, 5);
        assert_eq!(found(&registry, 9), Some(PeerId(4)));
    }

    #[test]
    fn nobody_joins_after_the_end() {
        let registry = registry(&[1]);
        assert_eq!(registry.end().len(), 1);
        assert!(registry.join(peer(4, 9)).is_none());
    }
}
