//! Durations, counted by their magnitude.
//!
//! Nothing here looks at a clock.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets with an upper bound: from 2 us, each of twice the one before, to 16.8 s, which is more than the default timeouts. One more
/// bucket has no bound.
const BOUNDS: u32 = 24;

const BUCKETS: usize = BOUNDS as usize + 1;

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations. It is read separately, and may have one duration more than [`count`](Self::count).
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The buckets in order: the longest duration that is counted in each, and how many are. A duration is counted in the first bucket
    /// that can have it. The last bucket has no bound, `None`.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = (1..=BOUNDS).map(|power| Some(Duration::from_micros(1 << power)));
        bounds.chain([None]).zip(self.buckets)
    }
}

/// A [`Histogram`] to which the loop adds, and which other threads read.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Durations {
    /// Counts a duration. Only the loop does.
    pub(crate) fn add(&self, took: Duration) {
        // 584 years fit.
        let nanos = took.as_nanos() as u64;
        let count = &self.buckets[bucket_of(nanos)];
        // Not `fetch_add`, which would cost more than the rest: there is no other writer. Relaxed: no other memory depends on a count.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let sum = self.nanos.load(Ordering::Relaxed) + nanos;
        self.nanos.store(sum, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Histogram {
        Histogram {
            buckets: array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

/// The bucket of a duration.
fn bucket_of(nanos: u64) -> usize {
    // Bucket `n` ends with 2 << n microseconds, which belong to it.
    let whole_micros = nanos.saturating_sub(1) / 1000;
    // 0 and 1 are in bucket 0.
    (whole_micros | 1).ilog2().min(BOUNDS) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_can_have_it() {
        let bounds: Vec<_> = Histogram::default().buckets().map(|(end, _)| end).collect();
        assert_eq!(bounds[0], Some(Duration::from_micros(2)));
        assert_eq!(bounds[23], Some(Duration::from_micros(16_777_216)));
        assert_eq!(bounds[24], None);
        for (n, end) in bounds.iter().enumerate() {
            let counted = Durations::default();
            let nano = Duration::from_nanos(1);
            let first = n
                .checked_sub(1)
                .map_or(Duration::ZERO, |before| bounds[before].unwrap() + nano);
            let last = end.unwrap_or(Duration::from_secs(1 << 30));
            counted.add(first);
            counted.add(last);
            let read = counted.read();
            assert_eq!(read.buckets[n], 2, "{first:?} and {last:?}");
            assert_eq!((read.count(), read.sum()), (2, first + last));
        }
    }
}
