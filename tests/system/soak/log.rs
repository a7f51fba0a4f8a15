//! A log of all faults with their times, for a person who examines a failure.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Shortest time between two lines about what the test waits for.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints each line at once. The test harness shows them when the test fails, or with `--nocapture`.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    /// When the last line about what the test waits for was printed.
    waited: Cell<Instant>,
}

impl Log {
    pub(crate) fn begin() -> Self {
        let start = Instant::now();
        let waited = Cell::new(start);
        Self { start, waited }
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = self.start.elapsed().as_secs_f64();
        println!("[{at:9.3}] {}", what.as_ref());
    }

    /// Notes what the test waits for, unless it did so a moment ago.
    pub(crate) fn note_waiting(&self, what: impl AsRef<str>) {
        if self.waited.get().elapsed() >= PAUSE {
            self.waited.set(Instant::now());
            self.note(what);
        }
    }
}
