//! Waits for a condition with a longer deadline than elsewhere: virtual machines start slowly and share few processors.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Deadline of every wait. Only a failure reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        // Leaves the processor to the other processes. Nothing depends on the duration.
        thread::sleep(Duration::from_millis(2));
    }
}
