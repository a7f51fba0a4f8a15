//! Servers that were members, until the loop has parted with them: what waits for them is written, then their links end.
//!
//! Nothing here closes a connection: the loop does.

use std::{collections::BTreeMap, time::Instant};

use crate::{limits::LEAVE_RECHECK, proto::PeerId};

#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaving: BTreeMap<PeerId, Leave>,
    /// When it is looked again whether frames wait.
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
    /// The peer leaves, at the latest at this time. Returns whether it did not leave before.
    pub(super) fn insert(&mut self, peer: PeerId, until: Instant) -> bool {
        self.recheck = Some(until.min(self.recheck.unwrap_or(until)));
        let is_drained = false;
        let new = Leave { until, is_drained };
        let leave = self.leaving.insert(peer, new);
        if let (Some(old), Some(leave)) = (leave, self.leaving.get_mut(&peer)) {
            leave.is_drained = old.is_drained;
        }
        leave.is_none()
    }

    /// The loop has parted with the peer. Returns whether it was leaving.
    pub(super) fn remove(&mut self, peer: PeerId) -> bool {
        self.leaving.remove(&peer).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// What is to be done now. `is_empty`: whether no frame waits for a peer.
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
        self.recheck.filter(|_| !self.leaving.is_empty())
    }
}
