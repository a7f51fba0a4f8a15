//! Renews the links of all peers, one after the other.
//!
//! Nothing here dials: the loop does.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    limits::RENEWAL_WAIT,
    proto::{ConnectionKey, PeerId},
};

/// The peers whose links are still to be renewed.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    waiting: BTreeSet<PeerId>,
    current: Option<Renewal>,
}

/// The renewal that is under way.
#[derive(Debug)]
struct Renewal {
    peer: PeerId,
    /// The link that is to be replaced.
    link: ConnectionKey,
    /// When the next peer is renewed, whether this one has a new link or not.
    due: Instant,
}

impl Renewals {
    /// Adds a peer, if its renewal is not under way.
    pub(super) fn add(&mut self, peer: PeerId) {
        let is_current = |renewal: &Renewal| renewal.peer == peer;
        if !self.current.as_ref().is_some_and(is_current) {
            self.waiting.insert(peer);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// The next peer to dial, once the one before has a new link or none, or has had its time. `link`: the current link of a peer.
    pub(super) fn next(
        &mut self,
        now: Instant,
        link: impl Fn(PeerId) -> Option<ConnectionKey>,
    ) -> Option<PeerId> {
        let is_under_way =
            |renewal: &Renewal| renewal.due > now && link(renewal.peer) == Some(renewal.link);
        if self.current.as_ref().is_some_and(is_under_way) {
            return None;
        }
        self.current = None;
        // A peer without a link needs no new one: its next link is new.
        let (peer, link) = loop {
            let peer = self.waiting.pop_first()?;
            if let Some(link) = link(peer) {
                break (peer, link);
            }
        };
        let due = now + RENEWAL_WAIT;
        self.current = Some(Renewal { peer, link, due });
        Some(peer)
    }

    /// When the next peer is renewed at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.current.as_ref().map(|renewal| renewal.due)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn key(index: u32) -> ConnectionKey {
        let generation = 0;
        ConnectionKey { index, generation }
    }

    #[test]
    fn peers_are_renewed_one_after_the_other() {
        let now = Instant::now();
        let mut renewals = Renewals::default();
        for peer in [1, 2, 3, 1] {
            renewals.add(PeerId(peer));
        }
        let old = |PeerId(peer)| (peer != 2).then_some(key(peer as u32));
        assert_eq!(renewals.next(now, old), Some(PeerId(1)));
        renewals.add(PeerId(1));
        assert_eq!(renewals.next(now, old), None);
        // 1 has a new link. 2 has none, so that it needs no renewal.
        let new = |PeerId(peer)| (peer != 2).then_some(key(10 + peer as u32));
        assert_eq!(renewals.next(now, new), Some(PeerId(3)));
        let late = now + RENEWAL_WAIT - Duration::from_nanos(1);
        assert_eq!(renewals.next(late, new), None);
        assert_eq!(renewals.deadline(), Some(now + RENEWAL_WAIT));
        assert_eq!(renewals.next(now + RENEWAL_WAIT, new), None);
        assert_eq!(renewals.deadline(), None);
    }
}
