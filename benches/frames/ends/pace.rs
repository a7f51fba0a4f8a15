//! Intended times: what is measured under load counts from when it should have happened.
//!
//! Whoever is late stays late; no beat is left out, so no delay is forgiven.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::payload::wall_nanos;

/// Sleeping overshoots by less than this; the rest is spent asking for the time.
const OVERSHOOT: Duration = Duration::from_micros(200);

/// Beats at a fixed interval.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    start: Instant,
    start_wall: u64,
    interval: Duration,
    beats: u64,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// From 1.
    pub(crate) number: u64,
    /// When it is meant to be, by the wall clock.
    pub(crate) wall: u64,
    /// The same, since the start.
    pub(crate) since: Duration,
}

impl Pace {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            start: Instant::now(),
            start_wall: wall_nanos(),
            interval,
            beats: 0,
        }
    }

    /// When it began.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    fn next(&self) -> Duration {
        self.interval * (self.beats + 1) as u32
    }

    /// The next beat, if its time has come.
    pub(crate) fn due(&mut self) -> Option<Beat> {
        let since = self.next();
        if self.start.elapsed() < since {
            return None;
        }
        self.beats += 1;
        Some(Beat {
            number: self.beats,
            wall: self.start_wall + since.as_nanos() as u64,
            since,
        })
    }

    /// Waits for the next beat.
    pub(crate) fn wait(&mut self) -> Beat {
        let left = self.next().saturating_sub(self.start.elapsed());
        thread::sleep(left.saturating_sub(OVERSHOOT));
        loop {
            if let Some(beat) = self.due() {
                return beat;
            }
            thread::yield_now();
        }
    }
}
