//! Measures when the last receiver of a fan-out has a value.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};

use super::{payload::Head, times::Times};

/// Values that have not arrived everywhere. When there are more, the oldest one counts as incomplete.
const IN_FLIGHT_MAX: usize = 256;

/// Counts the receivers of each value.
pub(crate) struct FanOutCounts {
    peers: u32,
    inner: Mutex<Inner>,
    lasts: Times,
}

#[derive(Default)]
struct Inner {
    /// Numbers of values and of their receivers, oldest first.
    in_flight: VecDeque<(u64, u32)>,
    incomplete: u64,
}

impl FanOutCounts {
    pub(crate) fn new(peers: u32) -> Self {
        Self {
            peers,
            inner: Mutex::default(),
            lasts: Times::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver has this value.
    pub(crate) fn on_frame(&self, head: Head, now: u64) {
        let mut inner = self.lock();
        let found = inner
            .in_flight
            .iter()
            .position(|(number, _)| *number == head.number);
        let at = found.unwrap_or_else(|| {
            if inner.in_flight.len() == IN_FLIGHT_MAX {
                inner.in_flight.pop_front();
                inner.incomplete += 1;
            }
            inner.in_flight.push_back((head.number, 0));
            inner.in_flight.len() - 1
        });
        inner.in_flight[at].1 += 1;
        if inner.in_flight[at].1 == self.peers {
            inner.in_flight.remove(at);
            self.lasts.record_nanos([now.saturating_sub(head.stamp)]);
        }
    }

    pub(crate) fn reset(&self) {
        self.lock().incomplete = 0;
        self.lasts.reset();
    }

    pub(crate) fn report(&self, into: &mut Map<String, Value>) {
        self.lasts
            .report("last", &[("p50", 0.5), ("p99", 0.99)], into);
        let inner = self.lock();
        // The newest value may be in flight. Of each earlier one, some receiver got a newer one instead.
        let superseded = inner.in_flight.len().saturating_sub(1) as u64;
        into.insert("incomplete".into(), json!(inner.incomplete + superseded));
    }
}
