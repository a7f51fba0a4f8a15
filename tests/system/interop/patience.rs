//! Waiting for what Java does: the same as elsewhere, with more time, since virtual machines start slowly and share few
//! processors.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Only a failure takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until something is so.
#[track_caller]
pub(crate) fn patiently(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        // Leaves the processor to those that are waited for; nothing depends on how long.
        thread::sleep(Duration::from_millis(2));
    }
}
