//! A schedule with a fixed interval. Latencies are measured from the intended times.
//!
//! A late sender does not skip an interval, so that every delay counts (no coordinated omission).

use std::{
    thread,
    time::{Duration, Instant},
};

use super::payload::wall_nanos;

/// `sleep` overshoots by less than this. The rest of the time is spent polling the clock.
const OVERSHOOT: Duration = Duration::from_micros(200);

/// Ticks at a fixed interval.
#[derive(Clone, Debug)]
pub(crate) struct Ticker {
    start: Instant,
    start_wall: u64,
    interval: Duration,
    ticks: u64,
}

/// One tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    /// From 1.
    pub(crate) number: u64,
    /// Its intended time, by the wall clock, in nanoseconds.
    pub(crate) wall: u64,
    /// Its intended time, since the start.
    pub(crate) since: Duration,
}

impl Ticker {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            start: Instant::now(),
            start_wall: wall_nanos(),
            interval,
            ticks: 0,
        }
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    fn next(&self) -> Duration {
        self.interval * (self.ticks + 1) as u32
    }

    /// The next tick, if it is due.
    pub(crate) fn due(&mut self) -> Option<Tick> {
        let since = self.next();
        if self.start.elapsed() < since {
            return None;
        }
        self.ticks += 1;
        Some(Tick {
            number: self.ticks,
            wall: self.start_wall + since.as_nanos() as u64,
            since,
        })
    }

    /// Waits for the next tick.
    pub(crate) fn wait(&mut self) -> Tick {
        let left = self.next().saturating_sub(self.start.elapsed());
        thread::sleep(left.saturating_sub(OVERSHOOT));
        loop {
            if let Some(tick) = self.due() {
                return tick;
            }
            thread::yield_now();
        }
    }
}
