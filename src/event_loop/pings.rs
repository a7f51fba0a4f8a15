//! When a ping is sent over a link, and how long its answer took.
//!
//! Nothing here sends one: the loop does.

use std::time::{Duration, Instant};

/// The pings of one link.
#[derive(Debug)]
pub(super) struct Pings {
    /// When the next one is sent, unless one is under way then.
    pub(super) due: Instant,
    every: Duration,
    /// The number of the last one.
    number: u64,
    /// When the one that is under way was sent. So there is one at a time.
    pub(super) sent: Option<Instant>,
}

impl Pings {
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self {
            due: now,
            every,
            number: 0,
            sent: None,
        }
    }

    /// The number of the ping that is to be sent now, if there is one.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.due > now {
            return None;
        }
        self.due = now + self.every;
        self.sent.is_none().then(|| {
            self.number += 1;
            self.number
        })
    }

    /// The round trip that has ended with this answer. A far end may send anything.
    pub(super) fn on_answer(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let sent = self.sent.take_if(|_| number == self.number)?;
        Some(now.saturating_duration_since(sent))
    }
}
