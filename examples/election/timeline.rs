//! Collects the events of one election, and draws them: which vote was sent from where to where, and when.

use std::{collections::BTreeMap, time::Duration};

use quorum_cnx::Sid;

use crate::{
    election::Outcome,
    notification::{Notification, Vote},
    picture,
};

/// Entries of one election; further ones are not drawn.
const ENTRIES_MAX: usize = 4096;

/// Something that happened at a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Duration,
    pub(crate) own: Sid,
    pub(crate) fact: Fact,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fact {
    /// It began to look for a leader.
    Looking {
        round: i64,
    },
    /// This is its own vote from now on.
    Vote(Vote),
    Sent(Sid, Notification),
    Received(Sid, Notification),
    Elected(Outcome),
}

/// The events of the present election, or of the last one.
pub(crate) struct Timeline {
    /// For each server of this process, whether it has a leader.
    decided: BTreeMap<Sid, bool>,
    lanes: Vec<Sid>,
    entries: Vec<Entry>,
    /// True exactly when an election was over at some time.
    was_over: bool,
}

impl Timeline {
    pub(crate) fn new(
        own: impl IntoIterator<Item = Sid>,
        voters: impl IntoIterator<Item = Sid>,
    ) -> Self {
        let decided: BTreeMap<Sid, bool> = own.into_iter().map(|sid| (sid, false)).collect();
        let mut lanes: Vec<Sid> = voters.into_iter().chain(decided.keys().copied()).collect();
        lanes.sort_unstable();
        lanes.dedup();
        Self {
            decided,
            lanes,
            entries: Vec::new(),
            was_over: false,
        }
    }

    /// Adds an entry; returns whether it ends an election.
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        let was_over = self.is_over();
        match entry.fact {
            Fact::Looking { .. } => {
                if was_over {
                    self.entries.clear();
                }
                self.decided.insert(entry.own, false);
            }
            Fact::Elected(_) => drop(self.decided.insert(entry.own, true)),
            _ => {}
        }
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(entry);
        }
        self.was_over |= self.is_over();
        !was_over && self.is_over()
    }

    /// Whether an election was over at some time.
    pub(crate) fn was_over(&self) -> bool {
        self.was_over
    }

    fn is_over(&self) -> bool {
        self.decided.values().all(|decided| *decided)
    }

    /// The drawing (SVG) of all entries.
    pub(crate) fn draw(&self) -> String {
        picture::draw(&self.lanes, &self.messages(), &self.entries)
    }

    /// The messages. A send and its arrival, which are entries of two servers, become one message if both are in this process.
    fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        for entry in &self.entries {
            match entry.fact {
                Fact::Sent(to, notification) if !notification.is_question() => {
                    messages.push(Message {
                        from: entry.own,
                        to,
                        notification,
                        sent: Some(entry.at),
                        received: None,
                        is_ours: self.decided.contains_key(&to),
                    });
                }
                Fact::Received(from, notification) if !notification.is_question() => {
                    // Matches the first one that is equal and has not arrived. Earlier ones may have been superseded.
                    let is_it = |message: &&mut Message| {
                        message.from == from
                            && message.to == entry.own
                            && message.received.is_none()
                            && message.notification == notification
                    };
                    match messages.iter_mut().find(is_it) {
                        Some(message) => message.received = Some(entry.at),
                        None => messages.push(Message {
                            from,
                            to: entry.own,
                            notification,
                            sent: None,
                            received: Some(entry.at),
                            is_ours: true,
                        }),
                    }
                }
                _ => {}
            }
        }
        messages
    }
}

/// A notification that was sent or received.
pub(crate) struct Message {
    pub(crate) from: Sid,
    pub(crate) to: Sid,
    pub(crate) notification: Notification,
    /// The time of the send, if the sender is in this process.
    pub(crate) sent: Option<Duration>,
    /// The time of the arrival, if the receiver is in this process.
    pub(crate) received: Option<Duration>,
    /// True exactly when the receiver is in this process, so that an arrival would be known.
    pub(crate) is_ours: bool,
}
