//! Which starts of a peer were heard of, by the random number that a native handshake carries.
//!
//! Nothing here decides which connection is kept. A peer that never uses the native handshake has no incarnation.
//!
//! A process that starts again has a new incarnation, and the old one is not heard again. Two processes with one sid are alive at the
//! same time exactly when one of them is heard after the other, and the other was heard before.

use std::time::Instant;

use super::standing::Brought;
use crate::limits::SILENT_AFTER;

/// The incarnations of one peer.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    /// That of the last native link, and when it came up.
    linked: Option<(u64, Instant)>,
    /// The last other one that was heard.
    other: Option<Other>,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    incarnation: u64,
    /// When it was heard first, as far as is known.
    since: Instant,
    /// What the link had brought by then.
    brought: Brought,
}

/// What a new link says about its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is the first link, the same process as before, or that is not known.
    Same,
    /// The process has started since the last link.
    Restarted,
    /// The process has been heard before the one that had the last link: both are alive.
    Duplicate,
}

impl Incarnations {
    /// A link comes up.
    pub(super) fn on_up(&mut self, incarnation: Option<u64>, now: Instant) -> Start {
        let Some(incarnation) = incarnation else {
            return Start::Same;
        };
        let Some((last, up)) = self.linked.replace((incarnation, now)) else {
            return Start::Same;
        };
        if last == incarnation {
            return Start::Same;
        }
        let older = Other {
            incarnation: last,
            since: up,
            brought: Brought::More,
        };
        match self.other.replace(older) {
            Some(other) if other.incarnation == incarnation && other.since < up => Start::Duplicate,
            _ => Start::Restarted,
        }
    }

    /// A connection that is not the link has this incarnation, and the link has brought so much. Returns whether the peer is known to
    /// have two processes: the link has come up, or has brought a byte, after the other one was heard.
    pub(super) fn on_heard(
        &mut self,
        incarnation: Option<u64>,
        brought: Brought,
        now: Instant,
    ) -> bool {
        let (Some(incarnation), Some((linked, up))) = (incarnation, self.linked) else {
            return false;
        };
        if incarnation == linked {
            return false;
        }
        match self.other {
            Some(other) if other.incarnation == incarnation => {
                // A byte that comes soon may have been under way when the old process ended.
                let has_time = now.saturating_duration_since(other.since) >= SILENT_AFTER;
                other.since < up || (has_time && has_more(other.brought, brought))
            }
            _ => {
                self.other = Some(Other {
                    incarnation,
                    since: now,
                    brought,
                });
                false
            }
        }
    }
}

/// Whether the link is known to have brought something in between.
fn has_more(then: Brought, now: Brought) -> bool {
    matches!((then, now), (Brought::Bytes(then), Brought::Bytes(now)) if now > then)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn new_incarnation_is_a_restart() {
        let (now, mut peer) = (Instant::now(), Incarnations::default());
        for (incarnation, start) in [
            (None, Start::Same),
            (Some(1), Start::Same),
            (Some(1), Start::Same),
            (None, Start::Same),
            (Some(2), Start::Restarted),
            (Some(2), Start::Same),
            (Some(3), Start::Restarted),
        ] {
            assert_eq!(peer.on_up(incarnation, now), start, "{incarnation:?}");
        }
    }

    #[test]
    fn incarnation_that_comes_back_is_a_duplicate() {
        let (mut now, mut peer) = (Instant::now(), Incarnations::default());
        let mut up = |incarnation| {
            now += SECOND;
            peer.on_up(Some(incarnation), now)
        };
        assert_eq!(
            [up(1), up(2), up(1), up(2)],
            [
                Start::Same,
                Start::Restarted,
                Start::Duplicate,
                Start::Duplicate
            ]
        );
    }

    #[test]
    fn restart_that_knocks_first_is_no_duplicate() {
        let (now, mut peer) = (Instant::now(), Incarnations::default());
        peer.on_up(Some(1), now);
        for after in 1..10 {
            let now = now + SECOND * after;
            // The dead link is silent.
            assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now));
        }
        assert_eq!(peer.on_up(Some(2), now + SECOND * 10), Start::Restarted);
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now + SECOND * 11));
        assert!(!peer.on_heard(None, Brought::Bytes(8), now + SECOND * 12));
    }

    #[test]
    fn link_that_brings_a_byte_shows_a_duplicate() {
        let (now, mut peer) = (Instant::now(), Incarnations::default());
        assert!(
            !peer.on_heard(Some(2), Brought::More, now),
            "there is no link"
        );
        peer.on_up(Some(1), now);
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now));
        assert!(!peer.on_heard(Some(2), Brought::Bytes(8), now + SECOND / 2));
        assert!(!peer.on_heard(Some(2), Brought::More, now + SECOND));
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now + SECOND));
        assert!(peer.on_heard(Some(2), Brought::Bytes(8), now + SECOND));
    }

    #[test]
    fn link_that_comes_up_again_shows_a_duplicate() {
        let (now, mut peer) = (Instant::now(), Incarnations::default());
        peer.on_up(Some(1), now);
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now + SECOND));
        assert_eq!(peer.on_up(Some(1), now + SECOND * 2), Start::Same);
        assert!(peer.on_heard(Some(2), Brought::Bytes(7), now + SECOND * 3));
    }
}
