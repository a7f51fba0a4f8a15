//! One value to many: when the last of them has it.
//!
//! Nothing here knows a socket.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};

use super::{payload::Head, times::Times};

/// Values of which some have not got theirs yet; more are given up.
const UNDERWAY_MAX: usize = 256;

/// Counts, for each value, how many have it.
pub(crate) struct Waves {
    peers: u32,
    inner: Mutex<Inner>,
    lasts: Times,
}

#[derive(Default)]
struct Inner {
    /// Number and how many have it, oldest first.
    underway: VecDeque<(u64, u32)>,
    incomplete: u64,
}

impl Waves {
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

    /// One of them has this value now.
    pub(crate) fn on_frame(&self, head: Head, now: u64) {
        let mut inner = self.lock();
        let found = inner
            .underway
            .iter()
            .position(|(number, _)| *number == head.number);
        let at = found.unwrap_or_else(|| {
            if inner.underway.len() == UNDERWAY_MAX {
                inner.underway.pop_front();
                inner.incomplete += 1;
            }
            inner.underway.push_back((head.number, 0));
            inner.underway.len() - 1
        });
        inner.underway[at].1 += 1;
        if inner.underway[at].1 == self.peers {
            inner.underway.remove(at);
            self.lasts.record_nanos([now.saturating_sub(head.stamp)]);
        }
    }

    pub(crate) fn forget(&self) {
        self.lock().incomplete = 0;
        self.lasts.forget();
    }

    pub(crate) fn tell(&self, into: &mut Map<String, Value>) {
        self.lasts
            .tell("last", &[("p50", 0.5), ("p99", 0.99)], into);
        let inner = self.lock();
        // The newest may be underway; of those before it, somebody has got a newer one instead.
        let passed = inner.underway.len().saturating_sub(1) as u64;
        into.insert("incomplete".into(), json!(inner.incomplete + passed));
    }
}
