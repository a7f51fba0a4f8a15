//! Time as far as this run was let run: it stands still while the whole machine does, or somebody stops all its processes.
//!
//! Nothing here waits for anything but time.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use support::LONG;

/// Looked at so often, so that what is longer than `STEP_MAX` was a standstill.
const STEP: Duration = Duration::from_millis(20);
const STEP_MAX: Duration = Duration::from_millis(250);

/// When it was last looked at, and what it was then.
static CLOCK: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);

/// Starts the clock, which nobody stops.
pub(crate) fn start() {
    now();
    thread::spawn(|| {
        loop {
            thread::sleep(STEP);
            now();
        }
    });
}

/// How long this run has run.
pub(crate) fn now() -> Duration {
    let mut clock = CLOCK.lock().unwrap();
    let now = Instant::now();
    let (seen, so_far) = clock.unwrap_or((now, Duration::ZERO));
    let so_far = so_far + (now - seen).min(STEP_MAX);
    *clock = Some((now, so_far));
    so_far
}

/// Waits until nothing is said to be missing any more.
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
        // Leaves the processor to those that are waited for; nothing depends on how long.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lets this much time pass, in which the members do what they do.
pub(crate) fn pass(time: Duration) {
    let end = now() + time;
    while let Some(left) = end.checked_sub(now()).filter(|left| !left.is_zero()) {
        thread::sleep(left.min(STEP));
    }
}
