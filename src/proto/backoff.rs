//! How long to wait after a failed attempt before the next one.
//!
//! Nothing here reads a clock: the caller adds the delay to its own `now`. The backoff is exponential with full jitter.

use std::time::Duration;

/// Random delays, uniform between zero and a ceiling. The ceiling doubles with each delay, from `first` up to `last`.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    ceiling: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            ceiling: first,
        }
    }

    /// The delay before the next attempt.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        let delay = rng.up_to(self.ceiling);
        self.ceiling = (self.ceiling * 2).min(self.last);
        delay
    }

    /// The peer has proved that it can be reached: the ceiling is `first` again.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

/// A small random number generator (splitmix64). It spreads attempts over time, and is not fit for secrets.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration from zero to `ceiling`, in whole microseconds.
    fn up_to(&mut self, ceiling: Duration) -> Duration {
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next() % (micros + 1))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_its_cap() {
        let (first, last) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut rng = Rng::new(7);
        for _ in 0..100 {
            let mut backoff = Backoff::new(first, last);
            let mut ceiling = first;
            for _ in 0..10 {
                assert_eq!(backoff.ceiling, ceiling);
                assert!(backoff.next(&mut rng) <= ceiling);
                ceiling = (ceiling * 2).min(last);
            }
            assert_eq!(backoff.ceiling, last);
            backoff.reset();
            assert_eq!(backoff.ceiling, first);
        }
    }

    #[test]
    fn delays_are_spread() {
        let mut rng = Rng::new(1);
        let ceiling = Duration::from_secs(1);
        let low = (0..1000)
            .filter(|_| rng.up_to(ceiling) < ceiling / 4)
            .count();
        assert!(
            (180..=320).contains(&low),
            "{low} of 1000 delays are in the first quarter"
        );
    }
}
