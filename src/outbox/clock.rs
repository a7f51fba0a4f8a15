//! The time at which frames begin to wait.
//!
//! Nothing here is on the path of a frame that is written at once.

use std::{
    fmt,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

/// Tells the time, on any thread. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// Makes a clock that calls this function. The function must not send and must not block.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A time in one word, since it is moved with each frame: nanoseconds after the outbox was made, plus 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(NonZeroU64);

/// The clock of one outbox.
#[derive(Debug)]
pub(super) struct Stamps {
    clock: Clock,
    start: Instant,
}

impl Stamps {
    pub(super) fn new(clock: Clock) -> Self {
        let start = clock.now();
        Self { clock, start }
    }

    /// The current time.
    #[cold]
    pub(super) fn now(&self) -> Stamp {
        let since = self.clock.now().saturating_duration_since(self.start);
        // 584 years fit.
        Stamp(NonZeroU64::MIN.saturating_add(since.as_nanos() as u64))
    }

    pub(super) fn time_of(&self, stamp: Stamp) -> Instant {
        self.start + Duration::from_nanos(stamp.0.get() - 1)
    }
}
