//! Servers that were members, until the loop has parted with them: what waits for them is written, then their links end.
//!
//! Nothing here closes a connection: the loop does.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Instant,
};

use crate::{limits::LEAVE_RECHECK, proto::PeerId};

#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaving: BTreeMap<PeerId, Leave>,
    /// When it is looked again whether frames wait. `None` if no peer leaves.
    recheck: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Leave {
    until: Instant,
    /// True exactly when nothing waits any more, and the end of the link is awaited.
    is_drained: bool,
}

/// What is to be done about a peer that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing waits for it any more.
    Drained,
    /// Its time is over.
    Over,
}

impl Leaves {
    /// The peer leaves, at the latest at this time. It is looked at in this turn. Returns whether it did not leave before.
    pub(super) fn insert(&mut self, peer: PeerId, until: Instant, now: Instant) -> bool {
        self.recheck = Some(now);
        match self.leaving.entry(peer) {
            Entry::Vacant(vacant) => {
                let is_drained = false;
                vacant.insert(Leave { until, is_drained });
                true
            }
            Entry::Occupied(mut leave) => {
                let leave = leave.get_mut();
                leave.until = leave.until.min(until);
                false
            }
        }
    }

    /// The loop has parted with the peer. Returns whether it was leaving.
    pub(super) fn remove(&mut self, peer: PeerId) -> bool {
        let has_left = self.leaving.remove(&peer).is_some();
        if self.leaving.is_empty() {
            self.recheck = None;
        }
        has_left
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// What is to be done now. `is_empty`: whether nothing is left to write to a peer.
    pub(super) fn due(
        &mut self,
        now: Instant,
        is_empty: impl Fn(PeerId) -> bool,
    ) -> Vec<(PeerId, Step)> {
        let mut due = Vec::new();
        self.recheck = None;
        for (peer, leave) in &mut self.leaving {
            if leave.until <= now {
                due.push((*peer, Step::Over));
                continue;
            }
            if !leave.is_drained && is_empty(*peer) {
                leave.is_drained = true;
                due.push((*peer, Step::Drained));
            }
            let next = match leave.is_drained {
                true => leave.until,
                false => leave.until.min(now + LEAVE_RECHECK),
            };
            self.recheck = Some(self.recheck.map_or(next, |first| first.min(next)));
        }
        due
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.recheck
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn peer_leaves_when_nothing_waits_and_at_the_latest_in_time() {
        let (now, mut leaves) = (Instant::now(), Leaves::default());
        let [early, late] = [PeerId(1), PeerId(2)];
        for peer in [early, late] {
            assert!(leaves.insert(peer, now + SECOND, now));
        }
        assert_eq!(leaves.deadline(), Some(now));
        assert!(!leaves.insert(late, now + SECOND, now), "it leaves already");
        assert_eq!(leaves.due(now, |_| false), []);
        assert_eq!(leaves.deadline(), Some(now + LEAVE_RECHECK));
        let soon = now + LEAVE_RECHECK;
        assert_eq!(
            leaves.due(soon, |peer| peer == early),
            [(early, Step::Drained)]
        );
        // Only once.
        assert_eq!(leaves.due(soon, |peer| peer == early), []);
        assert!(leaves.remove(early) && !leaves.remove(early));
        assert_eq!(leaves.due(now + SECOND, |_| false), [(late, Step::Over)]);
        leaves.remove(late);
        assert_eq!(leaves.deadline(), None);
    }

    #[test]
    fn drained_peer_is_waited_for_until_its_time_is_over() {
        let (now, mut leaves) = (Instant::now(), Leaves::default());
        leaves.insert(PeerId(1), now + SECOND, now);
        assert_eq!(leaves.due(now, |_| true), [(PeerId(1), Step::Drained)]);
        assert_eq!(leaves.deadline(), Some(now + SECOND));
        // Its sid is that of a new member: it has no more time.
        assert!(!leaves.insert(PeerId(1), now, now));
        assert!(!leaves.insert(PeerId(1), now + SECOND, now));
        assert_eq!(leaves.deadline(), Some(now));
        assert_eq!(leaves.due(now, |_| true), [(PeerId(1), Step::Over)]);
    }
}
