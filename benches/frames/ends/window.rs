//! The growth of counters between `mark` and `stop`.

use std::time::Instant;

/// The values of counters at `mark`.
pub(crate) struct Window<const N: usize> {
    start: Instant,
    counts: [u64; N],
}

/// The growth of counters, and the time of it.
pub(crate) struct Growth<const N: usize> {
    pub(crate) counts: [u64; N],
    seconds: f64,
}

impl<const N: usize> Window<N> {
    pub(crate) fn open(counts: [u64; N]) -> Self {
        Self {
            start: Instant::now(),
            counts,
        }
    }

    pub(crate) fn close(&self, mut counts: [u64; N]) -> Growth<N> {
        let seconds = self.start.elapsed().as_secs_f64();
        for (count, before) in counts.iter_mut().zip(self.counts) {
            *count = count.saturating_sub(before);
        }
        Growth { counts, seconds }
    }
}

impl<const N: usize> Growth<N> {
    pub(crate) fn per_second(&self, which: usize) -> f64 {
        self.counts[which] as f64 / self.seconds
    }
}
