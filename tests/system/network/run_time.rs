//! A clock that does not count the time while the whole machine, or all its processes, are stopped.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use support::LONG;

/// The interval at which the clock is read. If an interval is longer than `STEP_MAX`, the machine was stopped.
const STEP: Duration = Duration::from_millis(20);
const STEP_MAX: Duration = Duration::from_millis(250);

/// When the clock was last read, and its value then.
static CLOCK: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);

/// Starts the clock. It runs until the end of the process.
pub(crate) fn start() {
    now();
    thread::spawn(|| {
        loop {
            thread::sleep(STEP);
            now();
        }
    });
}

/// The time since the start.
pub(crate) fn now() -> Duration {
    let mut clock = CLOCK.lock().unwrap();
    let now = Instant::now();
    let (last, total) = clock.unwrap_or((now, Duration::ZERO));
    let total = total + (now - last).min(STEP_MAX);
    *clock = Some((now, total));
    total
}

/// Waits until `missing` returns nothing.
#[track_caller]
pub(crate) fn wait(what: &str, mut missing: impl FnMut() -> Vec<String>) {
    let deadline = now() + LONG;
    loop {
        let missing = missing();
        if missing.is_empty() {
            return;
        }
        assert!(
            now() < deadline,
            "not within {LONG:?}: {what}: {missing:#?}"
        );
        // Leaves the processor to the other processes. Nothing depends on the duration.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for this time.
pub(crate) fn pass(time: Duration) {
    let end = now() + time;
    while let Some(left) = end.checked_sub(now()).filter(|left| !left.is_zero()) {
        thread::sleep(left.min(STEP));
    }
}
