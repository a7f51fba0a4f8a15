//! What an end has done since it began, and what of it since the last mark.
//!
//! Whoever moves frames only counts here, never waits and never forgets: a mark is a copy of the counts, taken by the
//! thread that hears the commands.

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

/// The longest time that is told from longer ones.
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
    /// True exactly when the contender does not tell what became of an offered frame.
    is_blind: AtomicBool,
    delivered: Counter,
    bytes: Counter,
    gaps: Counter,
    /// Round trips or ages since the last mark, in nanoseconds.
    times: Mutex<Histogram<u64>>,
}

/// How things stood at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: Instant,
    counts: [u64; 5],
}

/// Counts what one thread does, for another one to see.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only ever called by one thread, which makes it cheaper than an addition that is atomic.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.read() + n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Meter {
    pub(crate) fn new(end: End, workload: Workload) -> Self {
        // Bounds that are fixed: a histogram that can grow does not do so when it is told to saturate.
        let times = Histogram::new_with_bounds(1, TIME_MAX_NS, 3).expect("the bounds are in order");
        Self {
            end,
            workload,
            offered: Counter::default(),
            written: Counter::default(),
            is_blind: AtomicBool::new(false),
            delivered: Counter::default(),
            bytes: Counter::default(),
            gaps: Counter::default(),
            times: Mutex::new(times),
        }
    }

    /// Nobody knows how many of the offered frames were written.
    pub(crate) fn set_blind(&self) {
        self.is_blind.store(true, Ordering::Relaxed);
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

    /// The line of results.
    pub(crate) fn results(&self, mark: Mark, until: Instant) -> Value {
        let seconds = until.saturating_duration_since(mark.at).as_secs_f64();
        let counts = self.counts();
        let mut rates = [0.0; 5];
        for ((rate, now), then) in rates.iter_mut().zip(counts).zip(mark.counts) {
            *rate = (now - then) as f64 / seconds.max(1e-9);
        }
        let [offered, written, delivered, bytes, _] = rates;
        let gaps = counts[4] - mark.counts[4];
        match (self.end, self.workload) {
            (End::Serve, Workload::Latency) => json!({}),
            (End::Drive, Workload::Latency) => self.round_trips(),
            (End::Drive, Workload::Stream) => json!({"offered_per_s": offered}),
            (End::Serve, Workload::Stream) => {
                json!({"delivered_per_s": delivered, "bytes_per_s": bytes, "gaps": gaps})
            }
            (End::Drive, _) if self.is_blind.load(Ordering::Relaxed) => {
                json!({"offered_per_s": offered, "written_per_s": null, "superseded_per_s": null})
            }
            (End::Drive, _) => {
                // At most two frames are neither: one that waits, and one that is being written.
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

    /// In microseconds; nothing if nothing was recorded.
    fn percentile(&self, percentile: f64) -> Option<f64> {
        let times = self.times();
        (!times.is_empty()).then(|| times.value_at_percentile(percentile) as f64 / 1e3)
    }

    fn counts(&self) -> [u64; 5] {
        let counters = [
            &self.offered,
            &self.written,
            &self.delivered,
            &self.bytes,
            &self.gaps,
        ];
        counters.map(Counter::read)
    }

    fn times(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some forty, closer to one another towards the end.
fn percentiles() -> impl Iterator<Item = f64> {
    let coarse = (0..=18).map(|n| f64::from(n) * 5.0);
    let fine = (91..=99).map(f64::from);
    let tail = [
        99.2, 99.4, 99.6, 99.8, 99.9, 99.92, 99.94, 99.96, 99.98, 99.99, 99.995, 99.999,
    ];
    coarse.chain(fine).chain(tail).chain([100.0])
}

/// What the receiving thread knows of the frames that came.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    meter: &'a Meter,
    /// The number of the last one.
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
                // 16 ns of at least 1500 that such a frame takes.
                meter.record(Duration::from_nanos(payload::now().saturating_sub(stamp)));
            }
        }
        meter.bytes.add(frame.len() as u64);
        meter.delivered.add(1);
    }
}
