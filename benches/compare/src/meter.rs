//! Counters of an end, and the results since the last `mark`.
//!
//! The thread that sends or receives frames only counts, and never blocks or resets the counters. A mark is a copy of the counts,
//! made by the thread that executes the commands.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{Workload, payload};

/// The largest recorded time; longer ones are recorded as this.
const TIME_MAX_NS: u64 = 120 * 1_000_000_000;

/// Which end it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Serve,
    Drive,
}

#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) end: End,
    pub(crate) workload: Workload,
    pub(crate) offered: Counter,
    pub(crate) written: Counter,
    /// True exactly when the contender does not report whether an offered frame was written.
    is_written_unknown: AtomicBool,
    delivered: Counter,
    bytes: Counter,
    gaps: Counter,
    /// Entries that both followers have acknowledged.
    pub(crate) acknowledged: Counter,
    /// Round trips or ages since the last mark, in nanoseconds.
    times: Mutex<Histogram<u64>>,
}

/// The counts at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: Instant,
    counts: [u64; 6],
}

/// A counter that one thread writes and another one reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Called by one thread only, so that it needs no atomic addition.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.read() + n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Meter {
    pub(crate) fn new(end: End, workload: Workload) -> Self {
        // Fixed bounds, since `saturating_record` does not resize a histogram.
        let times = Histogram::new_with_bounds(1, TIME_MAX_NS, 3).expect("the bounds are in order");
        Self {
            end,
            workload,
            offered: Counter::default(),
            written: Counter::default(),
            is_written_unknown: AtomicBool::new(false),
            delivered: Counter::default(),
            bytes: Counter::default(),
            gaps: Counter::default(),
            acknowledged: Counter::default(),
            times: Mutex::new(times),
        }
    }

    /// The number of written frames is unknown.
    pub(crate) fn set_written_unknown(&self) {
        self.is_written_unknown.store(true, Ordering::Relaxed);
    }

    pub(crate) fn record(&self, time: Duration) {
        self.times().saturating_record(time.as_nanos() as u64);
    }

    pub(crate) fn mark(&self) -> Mark {
        self.times().reset();
        Mark {
            at: Instant::now(),
            counts: self.counts(),
        }
    }

    /// The results since `mark`.
    pub(crate) fn results(&self, mark: Mark, until: Instant) -> Value {
        let seconds = until.saturating_duration_since(mark.at).as_secs_f64();
        let counts = self.counts();
        let mut rates = [0.0; 6];
        for ((rate, now), then) in rates.iter_mut().zip(counts).zip(mark.counts) {
            *rate = (now - then) as f64 / seconds.max(1e-9);
        }
        let [offered, written, delivered, bytes, _, acknowledged] = rates;
        let gaps = counts[4] - mark.counts[4];
        match (self.end, self.workload) {
            (End::Serve, Workload::Latency) => json!({}),
            (End::Drive, Workload::Latency) => self.round_trips(),
            (End::Drive, Workload::Beats) => json!({}),
            (End::Serve, Workload::Beats) => {
                let [p50, p99, max] = [50.0, 99.0, 100.0].map(|p| self.percentile(p));
                json!({
                    "age_p50_us": p50, "age_p99_us": p99, "age_max_us": max,
                    "stream_per_s": delivered, "stream_bytes_per_s": bytes,
                })
            }
            (End::Serve, Workload::Mix) => json!({"acknowledged_per_s": acknowledged}),
            // A follower that finds a gap fails.
            (End::Drive, Workload::Mix) => json!({"gaps": 0}),
            (End::Drive, Workload::Stream) => json!({"offered_per_s": offered}),
            (End::Serve, Workload::Stream) => {
                json!({"delivered_per_s": delivered, "bytes_per_s": bytes, "gaps": gaps})
            }
            (End::Drive, _) if self.is_written_unknown.load(Ordering::Relaxed) => {
                json!({"offered_per_s": offered, "written_per_s": null, "superseded_per_s": null})
            }
            (End::Drive, _) => {
                // At most two frames are neither written nor superseded: one waits, and one is being written.
                let superseded = (offered - written).max(0.0);
                json!({"offered_per_s": offered, "written_per_s": written, "superseded_per_s": superseded})
            }
            (End::Serve, _) => {
                let [p50, p99, max] = [50.0, 99.0, 100.0].map(|p| self.percentile(p));
                json!({
                    "delivered_per_s": delivered,
                    "age_p50_us": p50, "age_p99_us": p99, "age_max_us": max,
                    "gaps": gaps,
                })
            }
        }
    }

    fn round_trips(&self) -> Value {
        let [p50, p90, p99, p999, max] =
            [50.0, 90.0, 99.0, 99.9, 100.0].map(|p| self.percentile(p));
        let percentiles: Vec<Value> = percentiles()
            .map(|percentile| json!([percentile, self.percentile(percentile)]))
            .collect();
        let round_trips = self.times().len();
        json!({
            "rtt_p50_us": p50, "rtt_p90_us": p90, "rtt_p99_us": p99, "rtt_p999_us": p999, "rtt_max_us": max,
            "round_trips": round_trips,
            "rtt_percentiles": percentiles,
        })
    }

    /// In microseconds; `None` if nothing was recorded.
    fn percentile(&self, percentile: f64) -> Option<f64> {
        let times = self.times();
        (!times.is_empty()).then(|| times.value_at_percentile(percentile) as f64 / 1e3)
    }

    fn counts(&self) -> [u64; 6] {
        let counters = [
            &self.offered,
            &self.written,
            &self.delivered,
            &self.bytes,
            &self.gaps,
            &self.acknowledged,
        ];
        counters.map(Counter::read)
    }

    fn times(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About forty percentiles, denser towards 100.
fn percentiles() -> impl Iterator<Item = f64> {
    let coarse = (0..=18).map(|n| f64::from(n) * 5.0);
    let fine = (91..=99).map(f64::from);
    let tail = [
        99.2, 99.4, 99.6, 99.8, 99.9, 99.92, 99.94, 99.96, 99.98, 99.99, 99.995, 99.999,
    ];
    coarse.chain(fine).chain(tail).chain([100.0])
}

/// Counts received frames.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    meter: &'a Meter,
    /// The number of the last frame.
    last: u64,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(meter: &'a Meter) -> Self {
        Self { meter, last: 0 }
    }

    pub(crate) fn frame(&mut self, frame: &[u8]) {
        let meter = self.meter;
        if let Some((stamp, number)) = payload::read(frame) {
            if number != self.last + 1 {
                meter.gaps.add(1);
            }
            self.last = number;
            if matches!(meter.workload, Workload::Latest | Workload::Lossless) {
                // Recording takes 16 ns of the 1500 ns or more of such a frame.
                meter.record(Duration::from_nanos(payload::now().saturating_sub(stamp)));
            }
        }
        meter.bytes.add(frame.len() as u64);
        meter.delivered.add(1);
    }
}
