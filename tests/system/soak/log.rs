//! A log of all faults with their times, for a person who examines a failure.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two lines about what the test waits for.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints each line at once. The test harness shows them when the test fails, or with `--nocapture`.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// When the last line about what the test waits for was printed.
    waited: Mutex<Instant>,
}

impl Log {
    pub(crate) fn begin() -> Self {
        let start = Instant::now();
        Self(Arc::new(Inner {
            start,
            waited: Mutex::new(start),
        }))
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = self.0.start.elapsed().as_secs_f64();
        println!("[{at:9.3}] {}", what.as_ref());
    }

    /// Notes what the test waits for, unless it did so a moment ago.
    pub(crate) fn note_waiting(&self, what: impl AsRef<str>) {
        let mut waited = self.0.waited.lock().unwrap_or_else(PoisonError::into_inner);
        if waited.elapsed() >= PAUSE {
            *waited = Instant::now();
            self.note(what);
        }
    }
}
