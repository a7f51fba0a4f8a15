//! What speaks for a connection and for the link that it contends with: where each comes from, and what the link brings.
//!
//! Nothing here acknowledges anything: an acknowledgement may be the word of a proxy, bytes of the peer are its own.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::limits::{
    FLAP_COUNT, FLAP_PAUSE, FLAP_WINDOW, KNOCK_CROSSING, KNOCKS_APART_MAX, RENEWAL_PAUSE_MAX,
    SILENCE_RECHECK, UNHEARD_RENEWAL_PAUSE,
};

/// Where an accepted connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ip: IpAddr,
    /// It is one of the peer's own addresses.
    pub(crate) at_home: bool,
}

/// From where the peer's own connections come, by the knocks that came when there was no link to shake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Origin {
    /// None has come yet.
    #[default]
    Unknown,
    /// From one of its own addresses. Whoever knocks from elsewhere afterwards is a stranger.
    Home,
    /// From somewhere else, this address at last: a proxy or a translator stands between.
    Abroad(IpAddr),
}

impl Origin {
    /// A knock has come from there. `open`: there is no link, or a first one, so young that
    /// the knock has crossed it.
    pub(super) fn on_knock(&mut self, source: Source, open: bool) {
        match self {
            _ if source.at_home => *self = Self::Home,
            Self::Unknown | Self::Abroad(_) if open => *self = Self::Abroad(source.ip),
            _ => {}
        }
    }

    /// How long after a knock from elsewhere than home was believed the next one may be; `None`: none is at all.
    pub(super) fn pause(self) -> Option<Duration> {
        match self {
            Self::Unknown => Some(UNHEARD_RENEWAL_PAUSE),
            Self::Home => None,
            Self::Abroad(_) => Some(KNOCK_CROSSING),
        }
    }
}

/// What the loop can say of the bytes that a link has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// So many so far.
    Bytes(u64),
    /// More of them wait to be read.
    More,
    /// It is being found out whether this is of any importance.
    Unclear,
}

/// What came of looking whether a link is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Silent,
    Heard,
    Unclear,
}

/// A link that is to bring a byte, and does or does not.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    brought: Brought,
    not_before: Instant,
}

impl Silence {
    pub(super) fn new(now: Instant, brought: Brought) -> Self {
        Self {
            since: now,
            brought,
            not_before: now,
        }
    }

    /// When it has lasted for so long.
    pub(super) fn due(&self, contender_timeout: Duration) -> Instant {
        (self.since + contender_timeout).max(self.not_before)
    }

    /// Whether it goes on. It begins anew if it does not.
    pub(super) fn on_look(&mut self, now: Instant, brought: Brought) -> Sound {
        match (self.brought, brought) {
            (_, Brought::Unclear) => {
                self.not_before = now + SILENCE_RECHECK;
                Sound::Unclear
            }
            (Brought::Bytes(then), Brought::Bytes(now)) if then == now => Sound::Silent,
            _ => {
                *self = Self::new(now, brought);
                Sound::Heard
            }
        }
    }
}

/// Knocks at a link, from elsewhere than home: either a stranger's, or the peer is back and the link is a proxy's.
#[derive(Debug)]
pub(super) struct Doubt {
    silence: Silence,
    /// The peer knocks again and again, and one knock may come from long ago.
    is_repeated: bool,
    /// The peer is being dialed for that.
    is_answered: bool,
    last: Instant,
}

impl Doubt {
    pub(super) fn new(now: Instant, brought: Brought) -> Self {
        Self {
            silence: Silence::new(now, brought),
            is_repeated: false,
            is_answered: false,
            last: now,
        }
    }

    pub(super) fn on_knock(&mut self, now: Instant, brought: Brought) {
        if self.is_stale(now) || self.silence.on_look(now, brought) == Sound::Heard {
            *self = Self::new(now, brought);
        } else {
            (self.is_repeated, self.last) = (true, now);
        }
    }

    pub(super) fn due(&self, contender_timeout: Duration) -> Option<Instant> {
        let is_open = self.is_repeated && !self.is_answered;
        is_open.then(|| self.silence.due(contender_timeout))
    }

    /// Nobody has knocked for long.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > KNOCKS_APART_MAX
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    pub(super) fn on_dial(&mut self) {
        self.is_answered = true;
    }

    /// The dial came to nothing, and is not tried again before.
    pub(super) fn on_dial_failed(&mut self, not_before: Instant) {
        self.is_answered = false;
        self.silence.not_before = not_before;
    }

    pub(super) fn on_look(&mut self, now: Instant, brought: Brought) -> Sound {
        self.silence.on_look(now, brought)
    }
}

/// When a knock may have a peer dialed beside its link: each time later than before, for as long as somebody knocks.
#[derive(Debug)]
pub(super) struct Renewals {
    pause: Duration,
    not_before: Option<Instant>,
    knocked: Option<Instant>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        Self {
            pause: KNOCK_CROSSING,
            not_before: None,
            knocked: None,
        }
    }

    /// Somebody knocks.
    pub(super) fn on_knock(&mut self, now: Instant) {
        let is_quiet = |at| now.saturating_duration_since(at) >= RENEWAL_PAUSE_MAX;
        if self.knocked.replace(now).is_none_or(is_quiet) {
            *self = Self {
                knocked: Some(now),
                ..Self::new()
            };
        }
    }

    /// Whether the peer may be dialed for that, after which it is not for this time at `least`.
    pub(super) fn admit(&mut self, now: Instant, least: Duration) -> bool {
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let pause = self.pause.max(least);
        self.not_before = Some(now + pause);
        self.pause = (pause * 2).min(RENEWAL_PAUSE_MAX);
        true
    }

    /// The dial came to nothing: there is another one after the usual time.
    pub(super) fn on_dial_failed(&mut self, not_before: Instant) {
        self.not_before = Some(not_before);
        self.pause = (self.pause / 2).max(KNOCK_CROSSING);
    }
}

/// The last times at which a link was replaced.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    times: [Option<Instant>; FLAP_COUNT],
    told: Option<Instant>,
}

impl Flaps {
    /// A link was replaced. Returns whether that happens so often that it is worth telling, again.
    pub(super) fn on_replaced(&mut self, now: Instant) -> bool {
        self.times.rotate_left(1);
        let oldest = self.times[0];
        self.times[FLAP_COUNT - 1] = Some(now);
        let within = |at: Instant, time| now.saturating_duration_since(at) < time;
        let flaps = oldest.is_some_and(|at| within(at, FLAP_WINDOW));
        if !flaps || self.told.is_some_and(|at| within(at, FLAP_PAUSE)) {
            return false;
        }
        self.told = Some(now);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_bytes_that_came_meanwhile_end_a_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(start, Brought::Bytes(7));
        assert_eq!(silence.due(SECOND), start + SECOND);
        let looks = [
            (Brought::Bytes(7), Sound::Silent),
            (Brought::Unclear, Sound::Unclear),
            (Brought::Bytes(7), Sound::Silent),
            (Brought::Bytes(8), Sound::Heard),
            (Brought::Bytes(8), Sound::Silent),
            (Brought::More, Sound::Heard),
            (Brought::More, Sound::Heard),
            (Brought::Bytes(8), Sound::Heard),
        ];
        for (brought, sound) in looks {
            assert_eq!(silence.on_look(start, brought), sound, "{brought:?}");
        }
    }

    #[test]
    fn what_is_unclear_is_looked_at_again_soon() {
        let start = Instant::now();
        let mut silence = Silence::new(start, Brought::Bytes(7));
        let now = start + SECOND;
        silence.on_look(now, Brought::Unclear);
        assert_eq!(silence.due(SECOND), now + SILENCE_RECHECK);
    }

    #[test]
    fn a_knock_alone_is_no_doubt_and_rare_ones_are_none() {
        let start = Instant::now();
        let mut doubt = Doubt::new(start, Brought::Bytes(7));
        assert_eq!(doubt.due(SECOND), None);
        let mut now = start + KNOCKS_APART_MAX + SECOND;
        doubt.on_knock(now, Brought::Bytes(7));
        assert_eq!(doubt.due(SECOND), None, "the first is long ago");
        now += SECOND;
        doubt.on_knock(now, Brought::Bytes(8));
        assert_eq!(doubt.due(SECOND), None, "the link has brought something");
        doubt.on_knock(now, Brought::Bytes(8));
        assert_eq!(doubt.due(SECOND), Some(now + SECOND));
    }

    #[test]
    fn renewals_are_farther_apart_each_time_until_nobody_knocks() {
        let start = Instant::now();
        let mut renewals = Renewals::new();
        let mut admitted = Vec::new();
        let mut now = start;
        // A knock each half second for ten minutes.
        for _ in 0..1200 {
            renewals.on_knock(now);
            if renewals.admit(now, SECOND) {
                admitted.push((now - start).as_secs());
            }
            now += SECOND / 2;
        }
        assert_eq!(admitted[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        let max = RENEWAL_PAUSE_MAX.as_secs();
        assert!(
            admitted[6..]
                .windows(2)
                .all(|pair| pair[1] - pair[0] == max)
        );
        now += RENEWAL_PAUSE_MAX;
        for after in [0, 1] {
            now += SECOND * after;
            renewals.on_knock(now);
            assert!(renewals.admit(now, SECOND), "it is as at first");
        }
    }

    #[test]
    fn four_replacements_within_ten_seconds_are_told_once_a_minute() {
        let (mut now, mut flaps) = (Instant::now(), Flaps::default());
        let times = |flaps: &mut Flaps, now: &mut Instant, every| {
            let mut told = 0;
            for _ in 0..600 {
                *now += every;
                told += u32::from(flaps.on_replaced(*now));
            }
            told
        };
        assert_eq!(times(&mut flaps, &mut now, SECOND * 4), 0);
        assert_eq!(times(&mut flaps, &mut now, SECOND), 10);
    }

    #[test]
    fn a_peer_that_was_heard_from_home_is_not_believed_elsewhere() {
        let at = |last: u8, at_home| Source {
            ip: IpAddr::from([10, 0, 0, last]),
            at_home,
        };
        let mut origin = Origin::default();
        origin.on_knock(at(9, false), false);
        assert_eq!(origin, Origin::Unknown, "anybody may knock at a link");
        assert_eq!(origin.pause(), Some(UNHEARD_RENEWAL_PAUSE));
        origin.on_knock(at(9, false), true);
        origin.on_knock(at(8, false), true);
        origin.on_knock(at(7, false), false);
        assert_eq!(origin, Origin::Abroad(at(8, false).ip));
        assert_eq!(origin.pause(), Some(KNOCK_CROSSING));
        origin.on_knock(at(1, true), false);
        origin.on_knock(at(9, false), true);
        assert_eq!(origin, Origin::Home);
        assert_eq!(origin.pause(), None);
    }
}
