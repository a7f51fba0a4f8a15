//! Counters of a receiver: frames, bytes, ages and gaps.
//!
//! The clock is read once for each burst, not for each frame.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Map, Value, json};

use super::{
    payload::{Head, wall_nanos},
    times::Times,
    window::Window,
};

/// Counters that one thread writes and another one reads.
#[derive(Default)]
pub(crate) struct Received {
    frames: AtomicU64,
    bytes: AtomicU64,
    gaps: AtomicU64,
    ages: Times,
}

impl Received {
    /// Frames, bytes and gaps until now.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [&self.frames, &self.bytes, &self.gaps].map(|count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn reset_ages(&self) {
        self.ages.reset();
    }

    /// Inserts the results of this window.
    pub(crate) fn report(
        &self,
        window: &Window<3>,
        with_ages: bool,
        into: &mut Map<String, Value>,
    ) {
        let growth = window.close(self.counts());
        into.insert("delivered_per_s".into(), json!(growth.per_second(0)));
        into.insert("bytes_per_s".into(), json!(growth.per_second(1)));
        into.insert("delivered".into(), json!(growth.counts[0]));
        into.insert("gaps".into(), json!(growth.counts[2]));
        if with_ages {
            let quantiles = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
            self.ages.report("age", &quantiles, into);
        }
    }
}

/// Counts the frames of one burst: of one read, one batch or one turn.
pub(crate) struct Burst {
    received: Arc<Received>,
    with_ages: bool,
    /// The time of its first frame; 0 before that.
    now: u64,
    frames: u64,
    bytes: u64,
    gaps: u64,
    ages: Vec<u64>,
    last: u64,
}

impl Burst {
    pub(crate) fn new(received: &Arc<Received>, with_ages: bool) -> Self {
        Self {
            received: Arc::clone(received),
            with_ages,
            now: 0,
            frames: 0,
            bytes: 0,
            gaps: 0,
            ages: Vec::new(),
            last: 0,
        }
    }

    /// Counts the next frame.
    pub(crate) fn frame(&mut self, head: Head, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
        self.gaps += u64::from(head.number != self.last + 1);
        self.last = head.number;
        if self.with_ages {
            if self.now == 0 {
                self.now = wall_nanos();
            }
            self.ages.push(self.now.saturating_sub(head.stamp));
        }
    }

    /// Ends the burst: adds its counts to the shared ones.
    pub(crate) fn end(&mut self) {
        if self.frames == 0 {
            return;
        }
        // Relaxed: only this thread writes, and no other data depends on the counters.
        let add = |count: &AtomicU64, n: &mut u64| {
            count.store(count.load(Ordering::Relaxed) + *n, Ordering::Relaxed);
            *n = 0;
        };
        add(&self.received.frames, &mut self.frames);
        add(&self.received.bytes, &mut self.bytes);
        add(&self.received.gaps, &mut self.gaps);
        self.received.ages.record_nanos(self.ages.drain(..));
        self.now = 0;
    }
}
