//! What was done to whom, with times: what a person reads when something has failed.
//!
//! Nothing here decides or checks.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two notes of what is waited for.
const PAUSE: Duration = Duration::from_secs(2);

/// Printed as it is written; the harness shows it when the test fails, or with `--nocapture`.
#[derive(Clone, Debug)]
pub(crate) struct Diary(Arc<Book>);

#[derive(Debug)]
struct Book {
    start: Instant,
    /// When it was last noted what is waited for.
    waited: Mutex<Instant>,
}

impl Diary {
    pub(crate) fn begin() -> Self {
        let start = Instant::now();
        Self(Arc::new(Book {
            start,
            waited: Mutex::new(start),
        }))
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = self.0.start.elapsed().as_secs_f64();
        println!("[{at:9.3}] {}", what.as_ref());
    }

    /// Something that is seen again and again while it is waited for.
    pub(crate) fn note_waiting(&self, what: impl AsRef<str>) {
        let mut waited = self.0.waited.lock().unwrap_or_else(PoisonError::into_inner);
        if waited.elapsed() >= PAUSE {
            *waited = Instant::now();
            self.note(what);
        }
    }
}
