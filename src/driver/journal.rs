//! One place where facts become log lines.
//!
//! Lines about one peer, about strangers, and about this server are throttled apart; what was held back is counted in the
//! next line that gets through. Never a payload.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    handler::Event,
    limits::{LOG_LINES, LOG_WINDOW},
    proto::Sid,
};

const TARGET: &str = "quorum_cnx::mesh";

/// Writes events to the log.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// As many as there are peers, and two.
    throttles: BTreeMap<About, Throttle>,
}

/// Whom a line is about. Strangers are one, so that they cannot fill our tables, and cannot hide what is about ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Peer(Sid),
    Strangers,
    Ourselves,
}

#[derive(Debug)]
struct Throttle {
    since: Instant,
    lines: u32,
    held: u64,
}

impl Journal {
    /// A peer is not known any more.
    pub(super) fn forget(&mut self, sid: Sid) {
        self.throttles.remove(&About::Peer(sid));
    }

    pub(super) fn write(&mut self, event: &Event, now: Instant) {
        let (level, about) = match event {
            Event::Listening { .. } | Event::Halted => (log::Level::Info, None),
            // Once for each listening socket: an operator must not miss it.
            Event::ListenerLost { .. } => (log::Level::Warn, None),
            Event::Up { sid, .. } | Event::Down { sid, .. } => {
                (log::Level::Info, Some(About::Peer(*sid)))
            }
            Event::DialFailed { sid, .. } => (log::Level::Warn, Some(About::Peer(*sid))),
            // Whom a refused connection claims to be is its own word.
            Event::Rejected { .. } => (log::Level::Warn, Some(About::Strangers)),
            Event::ListenFailed { .. } | Event::AcceptFailed { .. } | Event::SlowTurn { .. } => {
                (log::Level::Warn, Some(About::Ourselves))
            }
        };
        if level > log::max_level() {
            return;
        }
        match self.admit(about, now) {
            Some(0) => log::log!(target: TARGET, level, "{}", Line(event)),
            Some(held) => {
                log::log!(target: TARGET, level, "{} ({held} similar lines held back)", Line(event))
            }
            None => {}
        }
    }

    /// Whether a line may be written, and how many about the same were not since the last one.
    fn admit(&mut self, about: Option<About>, now: Instant) -> Option<u64> {
        let Some(about) = about else {
            return Some(0);
        };
        let throttle = self.throttles.entry(about).or_insert(Throttle {
            since: now,
            lines: 0,
            held: 0,
        });
        throttle.admit(now)
    }
}

impl Throttle {
    /// Whether a line may be written, and how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= LOG_WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= LOG_LINES {
            self.held += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.held))
    }
}

struct Line<'a>(&'a Event);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Event::Listening { addr } => write!(f, "listening on {addr}"),
            Event::ListenFailed { address, error } => {
                write!(f, "cannot listen on {address}: {error}")
            }
            Event::AcceptFailed { address, error } => {
                write!(f, "cannot accept a connection on {address}: {error}")
            }
            Event::ListenerLost { address } => write!(
                f,
                "given up listening on {address}: servers with a larger id cannot reach this one there; see listen_tries"
            ),
            Event::Up {
                sid,
                dialed: true,
                addr,
            } => write!(f, "peer {sid}: up, dialed at {addr}"),
            Event::Up {
                sid,
                dialed: false,
                addr,
            } => write!(f, "peer {sid}: up, accepted from {addr}"),
            Event::Down { sid, reason } => write!(f, "peer {sid}: down, {reason}"),
            Event::DialFailed {
                sid,
                addr: Some(addr),
                reason,
            } => write!(f, "peer {sid}: cannot be reached at {addr}, {reason}"),
            Event::DialFailed {
                sid,
                addr: None,
                reason,
            } => write!(f, "peer {sid}: cannot be reached, {reason}"),
            Event::Rejected {
                addr,
                sid: None,
                reason,
            } => write!(f, "refused a connection from {addr}: {reason}"),
            Event::Rejected {
                addr,
                sid: Some(sid),
                reason,
            } => {
                write!(
                    f,
                    "refused a connection from {addr} for peer {sid}: {reason}"
                )
            }
            Event::SlowTurn { took } => {
                write!(f, "one turn took {took:?}: a handler has blocked the loop")
            }
            Event::Halted => f.write_str("halted"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ten_lines_get_through_and_the_rest_is_counted() {
        let (start, mut journal) = (Instant::now(), Journal::default());
        let mut admit = |about, after| journal.admit(about, start + Duration::from_secs(after));
        let strangers = Some(About::Strangers);
        let through = (0..10_000).filter(|_| admit(strangers, 0).is_some());
        assert_eq!(through.count(), 10);
        // What is about a peer, or about ourselves, is not held back for that.
        for other in [Some(About::Peer(Sid(1))), Some(About::Ourselves), None] {
            assert_eq!(admit(other, 0), Some(0), "{other:?}");
        }
        assert_eq!(admit(strangers, 11), Some(9990));
    }
}
