//! Which starts of a peer were heard of, by the random number that a native handshake carries.
//!
//! Nothing here decides which connection is kept. A peer that never uses the native handshake has no incarnation.
//!
//! A process that starts again has a new incarnation, and the old one has ended before. What the old one had sent may still arrive, for
//! as long as the kernel repeats it: `peer_dead_after`. What arrives later shows that both are alive.

use std::time::{Duration, Instant};

use super::standing::Brought;

/// The incarnations of one peer.
#[derive(Debug)]
pub(super) struct Incarnations {
    /// How long a sign of life of an old process may be under way.
    late: Duration,
    linked: Option<Linked>,
    /// The last other one that was heard.
    other: Option<Other>,
}

/// The incarnation of the last native link.
#[derive(Clone, Copy, Debug)]
struct Linked {
    incarnation: u64,
    /// When it was heard first, as far as is known.
    first: Instant,
    /// When its last link came up.
    up: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    incarnation: u64,
    /// When it was heard first, as far as is known.
    first: Instant,
    /// Whether it has had a link.
    was_linked: bool,
    /// When it was heard first beside the link. A single connection may have waited here for long, since its process lived.
    beside: Option<Instant>,
    /// What the link had brought when this one was heard later than `late` after that.
    brought: Option<Brought>,
}

/// What a new link says about its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is the first link, a process that had a link before, or that is not known.
    Same,
    /// The process has started since the last link.
    Restarted,
    /// The process has been heard before the one that had the last link: both are alive.
    Duplicate,
}

impl Incarnations {
    pub(super) fn new(late: Duration) -> Self {
        Self {
            late,
            linked: None,
            other: None,
        }
    }

    /// A link comes up.
    pub(super) fn on_up(&mut self, incarnation: Option<u64>, now: Instant) -> Start {
        let Some(incarnation) = incarnation else {
            return Start::Same;
        };
        let heard = self.other.filter(|other| other.incarnation == incarnation);
        let new = Linked {
            incarnation,
            first: heard.map_or(now, |other| other.first),
            up: now,
        };
        let Some(last) = self.linked.replace(new) else {
            return Start::Same;
        };
        if last.incarnation == incarnation {
            self.linked = Some(Linked {
                first: last.first,
                ..new
            });
            return Start::Same;
        }
        self.other = Some(Other {
            incarnation: last.incarnation,
            first: last.first,
            was_linked: true,
            beside: None,
            brought: None,
        });
        match heard {
            Some(heard) if last.up >= heard.first + self.late => Start::Duplicate,
            // A connection that the old process had made arrives after one of the new process, or that one is back.
            Some(heard) if heard.was_linked => Start::Same,
            _ => Start::Restarted,
        }
    }

    /// A connection that is not the link has this incarnation, and the link has brought so much. Returns whether two processes of the
    /// peer are known to be alive: the link has come up or has brought a byte long after the other one was heard.
    pub(super) fn on_heard(
        &mut self,
        incarnation: Option<u64>,
        brought: Brought,
        now: Instant,
    ) -> bool {
        let (Some(incarnation), Some(linked)) = (incarnation, self.linked) else {
            return false;
        };
        if incarnation == linked.incarnation {
            return false;
        }
        let same = |other: &&mut Other| other.incarnation == incarnation;
        let Some(other) = self.other.as_mut().filter(same) else {
            self.other = Some(Other {
                incarnation,
                first: now,
                was_linked: false,
                beside: Some(now),
                brought: None,
            });
            return false;
        };
        let late = *other.beside.get_or_insert(now) + self.late;
        if now < late {
            return false;
        }
        let then = *other.brought.get_or_insert(brought);
        linked.up >= late || has_more(then, brought)
    }
}

/// Whether the link is known to have brought something in between.
fn has_more(then: Brought, now: Brought) -> bool {
    matches!((then, now), (Brought::Bytes(then), Brought::Bytes(now)) if now > then)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_secs(6);

    fn peer() -> (Instant, Incarnations) {
        (Instant::now(), Incarnations::new(LATE))
    }

    #[test]
    fn new_incarnation_is_a_restart() {
        let (now, mut peer) = peer();
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
    fn incarnation_that_comes_back_late_is_a_duplicate() {
        let (mut now, mut peer) = peer();
        let mut up = |incarnation, after: u32| {
            now += SECOND * after;
            peer.on_up(Some(incarnation), now)
        };
        assert_eq!(up(1, 0), Start::Same);
        assert_eq!(up(2, 1), Start::Restarted);
        // This may be an old connection of the first process.
        assert_eq!(up(1, 1), Start::Same);
        assert_eq!(up(2, 1), Start::Same);
        assert_eq!(up(1, 5), Start::Same, "the second was heard before");
        assert_eq!(up(2, 1), Start::Duplicate);
        assert_eq!(up(1, 1), Start::Duplicate);
    }

    #[test]
    fn restart_that_knocks_first_is_no_duplicate() {
        let (now, mut peer) = peer();
        peer.on_up(Some(1), now);
        for after in 1..20 {
            // The link of the process that has ended is silent, but for what was under way.
            let brought = Brought::Bytes(if after < 6 { after.into() } else { 6 });
            let now = now + SECOND * after;
            assert!(!peer.on_heard(Some(2), brought, now), "after {after} s");
        }
        let mut now = now + SECOND * 20;
        assert_eq!(peer.on_up(Some(2), now), Start::Restarted);
        now += SECOND * 20;
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now));
        assert!(!peer.on_heard(None, Brought::Bytes(8), now));
    }

    #[test]
    fn link_that_brings_a_byte_shows_a_duplicate() {
        let (now, mut peer) = peer();
        assert!(
            !peer.on_heard(Some(2), Brought::More, now),
            "there is no link"
        );
        peer.on_up(Some(1), now);
        assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now));
        assert!(!peer.on_heard(Some(2), Brought::Bytes(8), now + SECOND * 5));
        assert!(!peer.on_heard(Some(2), Brought::Bytes(9), now + SECOND * 6));
        assert!(!peer.on_heard(Some(2), Brought::More, now + SECOND * 7));
        assert!(!peer.on_heard(Some(2), Brought::Bytes(9), now + SECOND * 8));
        assert!(peer.on_heard(Some(2), Brought::Bytes(10), now + SECOND * 9));
    }

    #[test]
    fn late_connection_of_the_old_process_shows_no_duplicate() {
        let (now, mut peer) = peer();
        peer.on_up(Some(1), now);
        peer.on_up(Some(2), now + SECOND * 20);
        for after in [30, 30, 35] {
            let brought = Brought::Bytes(after.into());
            assert!(!peer.on_heard(Some(1), brought, now + SECOND * after));
        }
        assert!(!peer.on_heard(Some(1), Brought::Bytes(36), now + SECOND * 36));
        assert!(peer.on_heard(Some(1), Brought::Bytes(37), now + SECOND * 37));
    }

    #[test]
    fn link_that_comes_up_again_late_shows_a_duplicate() {
        for (after, duplicate) in [(5, false), (6, true)] {
            let (now, mut peer) = peer();
            peer.on_up(Some(1), now);
            assert!(!peer.on_heard(Some(2), Brought::Bytes(7), now));
            assert_eq!(peer.on_up(Some(1), now + SECOND * after), Start::Same);
            let again = peer.on_heard(Some(2), Brought::Bytes(7), now + SECOND * 9);
            assert_eq!(again, duplicate);
        }
    }
}
