//! The evidence for a connection and for the link that it contends with: where each comes from, and what the link brings.
//!
//! Nothing here counts acknowledgements, because a proxy may send them for a dead machine. Bytes on a link are the peer's own.

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
    /// True exactly when `ip` is known to be one of the peer's own addresses.
    pub(crate) at_home: bool,
}

/// Where the peer's connections come from, as its knocks show. A knock from an address that is not the peer's own counts only if
/// the peer may have had no link when the knock was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Origin {
    /// No knock that counts has arrived yet.
    #[default]
    Unknown,
    /// From one of the peer's own addresses. Every later knock from another address is a stranger's.
    Home,
    /// From another address, most recently this one: a proxy or a NAT is in between.
    Abroad(IpAddr),
}

impl Origin {
    /// A knock has arrived from `source`. `open`: there is no link, or a first link that is so young that the knock crossed it.
    pub(super) fn on_knock(&mut self, source: Source, open: bool) {
        match self {
            _ if source.at_home => *self = Self::Home,
            Self::Unknown | Self::Abroad(_) if open => *self = Self::Abroad(source.ip),
            _ => {}
        }
    }

    /// Shortest time between two dials because of knocks from addresses that are not the peer's own. `None`: such knocks cause no
    /// dial.
    pub(super) fn pause(self) -> Option<Duration> {
        match self {
            Self::Unknown => Some(UNHEARD_RENEWAL_PAUSE),
            Self::Home => None,
            Self::Abroad(_) => Some(KNOCK_CROSSING),
        }
    }
}

/// What the loop knows about the bytes that a link has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// This many bytes so far.
    Bytes(u64),
    /// More bytes wait to be read, or may wait.
    More,
    /// A lookup is in progress, and its answer may decide the matter without the number of bytes.
    Unclear,
}

/// The result of a check whether a link is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Silent,
    Heard,
    Unclear,
}

/// Measures how long a link has brought no byte.
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

    /// When the silence has lasted for `silent_for` and the link may be checked.
    pub(super) fn due(&self, silent_for: Duration) -> Instant {
        (self.since + silent_for).max(self.not_before)
    }

    /// Checks whether the silence continues. If the link has brought something, the measurement starts again.
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

/// Knocks for a linked peer, from an address that is not the peer's own. Either they are a stranger's, or the peer is back and
/// only a proxy keeps the link alive.
#[derive(Debug)]
pub(super) struct Doubt {
    silence: Silence,
    /// True exactly when a second knock has confirmed the first. A single knock may have been sent long ago.
    is_repeated: bool,
    /// True exactly when the peer is being dialed because of the knocks.
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

    pub(super) fn due(&self, silent_for: Duration) -> Option<Instant> {
        let is_open = self.is_repeated && !self.is_answered;
        is_open.then(|| self.silence.due(silent_for))
    }

    /// Whether the last knock is older than [`KNOCKS_APART_MAX`].
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > KNOCKS_APART_MAX
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    pub(super) fn on_dial(&mut self) {
        self.is_answered = true;
    }

    /// The dial has failed, and is not repeated before `not_before`.
    pub(super) fn on_dial_failed(&mut self, not_before: Instant) {
        self.is_answered = false;
        self.silence.not_before = not_before;
    }

    pub(super) fn on_look(&mut self, now: Instant, brought: Brought) -> Sound {
        self.silence.on_look(now, brought)
    }
}

/// When a knock may cause a dial beside the link of a peer. While knocks continue, the pause between dials doubles up to
/// [`RENEWAL_PAUSE_MAX`].
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

    /// A knock has arrived. If it is the first for [`RENEWAL_PAUSE_MAX`], a dial is allowed at once and pauses are short again.
    pub(super) fn on_knock(&mut self, now: Instant) {
        let is_quiet = |at| now.saturating_duration_since(at) >= RENEWAL_PAUSE_MAX;
        if self.knocked.replace(now).is_none_or(is_quiet) {
            *self = Self {
                knocked: Some(now),
                ..Self::new()
            };
        }
    }

    /// Returns whether the peer may be dialed because of a knock. If so, the next such dial is allowed after `least` or later.
    pub(super) fn admit(&mut self, now: Instant, least: Duration) -> bool {
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let pause = self.pause.max(least);
        self.not_before = Some(now + pause);
        self.pause = (pause * 2).min(RENEWAL_PAUSE_MAX);
        true
    }

    /// The dial has failed. Another one is allowed at `not_before`, and the last doubling of the pause is undone.
    pub(super) fn on_dial_failed(&mut self, not_before: Instant) {
        self.not_before = Some(not_before);
        self.pause = (self.pause / 2).max(KNOCK_CROSSING);
    }
}

/// The last times at which a link was replaced, and when that was last reported.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    times: [Option<Instant>; FLAP_COUNT],
    told: Option<Instant>,
}

impl Flaps {
    /// A link was replaced. Returns whether to report it: [`FLAP_COUNT`] links were replaced within [`FLAP_WINDOW`], and the last
    /// report is at least [`FLAP_PAUSE`] old.
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
    fn only_new_bytes_end_a_silence() {
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
    fn unclear_silence_is_checked_again_soon() {
        let start = Instant::now();
        let mut silence = Silence::new(start, Brought::Bytes(7));
        let now = start + SECOND;
        silence.on_look(now, Brought::Unclear);
        assert_eq!(silence.due(SECOND), now + SILENCE_RECHECK);
    }

    #[test]
    fn single_or_rare_knocks_raise_no_doubt() {
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
    fn pauses_between_renewals_grow_until_knocks_stop() {
        let start = Instant::now();
        let mut renewals = Renewals::new();
        let mut admitted = Vec::new();
        let mut now = start;
        // One knock every half second for ten minutes.
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
    fn failed_dials_do_not_lengthen_the_pause() {
        let (now, mut renewals) = (Instant::now(), Renewals::new());
        for _ in 0..10 {
            assert!(renewals.admit(now, SECOND));
            renewals.on_dial_failed(now);
        }
        assert!(renewals.admit(now, SECOND) && renewals.admit(now + SECOND, SECOND));
    }

    #[test]
    fn frequent_replacements_are_reported_once_a_minute() {
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
    fn peer_known_at_its_address_is_not_believed_elsewhere() {
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
