//! A histogram of durations that one thread records and another one reads.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// The largest duration; longer ones are recorded as this.
const LONGEST_NANOS: u64 = 100_000_000_000;

/// A histogram of durations, in nanoseconds.
pub(crate) struct Times(Mutex<Histogram<u64>>);

impl Default for Times {
    fn default() -> Self {
        let nanos =
            Histogram::new_with_bounds(1, LONGEST_NANOS, 3).expect("the bounds are in order");
        Self(Mutex::new(nanos))
    }
}

impl Times {
    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, time: Duration) {
        self.record_nanos([time.as_nanos() as u64]);
    }

    pub(crate) fn record_nanos(&self, nanos: impl IntoIterator<Item = u64>) {
        let mut times = self.lock();
        for nanos in nanos {
            times.saturating_record(nanos);
        }
    }

    pub(crate) fn reset(&self) {
        self.lock().reset();
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().len()
    }

    /// Inserts quantiles in microseconds, each with the key `<name>_<p50, p99, ... or max>_us`; nothing if the histogram is
    /// empty.
    pub(crate) fn report(
        &self,
        name: &str,
        quantiles: &[(&str, f64)],
        into: &mut Map<String, Value>,
    ) {
        let times = self.lock();
        if times.is_empty() {
            return;
        }
        for (quantile, share) in quantiles {
            let nanos = times.value_at_quantile(*share);
            into.insert(format!("{name}_{quantile}_us"), json!(micros(nanos)));
        }
    }

    /// The median in microseconds; 0 if the histogram is empty.
    pub(crate) fn median_us(&self) -> f64 {
        micros(self.lock().value_at_quantile(0.5))
    }

    /// Pairs of a percentile and microseconds: ten points up to 90 %, ten up to 99 %, and so on.
    pub(crate) fn percentiles(&self) -> Value {
        let times = self.lock();
        let shares = (0..=40).map(|step| 1.0 - 10f64.powf(f64::from(step) / -10.0));
        // Beyond this percentile there is only the maximum.
        let last = 1.0 - 1.0 / times.len().max(1) as f64;
        let point = |share: f64| json!([share * 100.0, micros(times.value_at_quantile(share))]);
        shares
            .take_while(|share| *share <= last)
            .map(point)
            .collect()
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}
