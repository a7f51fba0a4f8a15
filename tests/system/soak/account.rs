//! The counters that a member prints, and the sums that must balance when there are no faults.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    sent: Sent,
    received: Received,
    /// Frames of other members, until the program has printed them.
    inbox: Inbox,
    accepted: u64,
    kept: u64,
    knocks: u64,
    rejected: BTreeMap<String, u64>,
    pending: u64,
    ups: u64,
    downs: BTreeMap<String, u64>,
    connections: u64,
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    linked: bool,
    sent: Sent,
    ups: u64,
    downs: u64,
}

#[derive(Debug, Deserialize)]
struct Sent {
    accepted: u64,
    written: u64,
    superseded: u64,
    discarded: u64,
    waiting: u64,
}

#[derive(Debug, Deserialize)]
struct Received {
    frames: u64,
}

#[derive(Debug, Deserialize)]
struct Inbox {
    pushed: u64,
    taken: u64,
    dropped: u64,
    waiting: u64,
}

impl Account {
    /// Whether this member has one link with each of so many others, and no other connection.
    pub(crate) fn is_linked_with(&self, others: usize) -> bool {
        self.linked() == others as u64 && self.connections == others as u64
    }

    fn linked(&self) -> u64 {
        self.peers.iter().filter(|peer| peer.linked).count() as u64
    }

    /// The first sum that does not balance. `sent_commands` is the number of frames that it was told to send.
    pub(crate) fn imbalance(&self, sent_commands: u64) -> Option<String> {
        let refused: u64 = self.rejected.values().sum();
        let ended: u64 = self.downs.values().sum();
        let mut sums = vec![
            ("accepted frames", self.sent.accepted, sent_commands),
            (
                "accepted connections",
                self.accepted,
                self.kept + self.knocks + refused + self.pending,
            ),
            ("pending connections", self.pending, 0),
            ("links", self.ups, ended + self.linked()),
            ("frames", self.inbox.pushed, self.received.frames),
            (
                "printed frames",
                self.inbox.pushed,
                self.inbox.taken + self.inbox.dropped + self.inbox.waiting,
            ),
        ];
        let all = self.peers.iter().map(|peer| &peer.sent);
        for sent in all.chain([&self.sent]) {
            let done = sent.written + sent.superseded + sent.discarded;
            sums.push(("frames", sent.accepted, done + sent.waiting));
            sums.push(("waiting frames", sent.waiting, 0));
        }
        for peer in &self.peers {
            let ended = peer.downs + u64::from(peer.linked);
            sums.push(("links of a peer", peer.ups, ended));
        }
        let (what, one, other) = sums.into_iter().find(|(_, one, other)| one != other)?;
        Some(format!("{what}: {one} and {other}, in {self:?}"))
    }
}
