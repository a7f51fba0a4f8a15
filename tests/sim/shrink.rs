//! Shrinks a run that fails to a smaller one that fails in the same property, and in the same way.
//!
//! The seed stays the same. Parts of its plan are switched off one after the other, and stay off if the run still fails.

use std::{
    collections::BTreeSet,
    panic,
    time::{Duration, Instant},
};

use crate::{
    only::{Only, Part, Size},
    simulation::Outcome,
};

const TRIES_MAX: u32 = 1000;
const TIME_MAX: Duration = Duration::from_secs(30);

/// The smallest run that was found.
#[derive(Default)]
pub struct Shrunk {
    pub only: Only,
    pub tries: u32,
}

struct Shrinker<F> {
    run: F,
    kind: (&'static str, String),
    best: Only,
    size: Size,
    tries: u32,
    until: Instant,
}

/// Removes as much as possible. `run` runs the seed once; `first` is the outcome of the whole run.
pub fn shrink(first: &Outcome, run: impl Fn(&Only) -> Outcome) -> Shrunk {
    let Some(failure) = &first.failure else {
        return Shrunk::default();
    };
    let mut shrinker = Shrinker {
        run,
        kind: failure.kind(),
        best: Only::default(),
        size: first.size.clone(),
        tries: 0,
        until: Instant::now() + TIME_MAX,
    };
    // Nobody needs the messages of panics on the way.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    while shrinker.round() {}
    panic::set_hook(hook);
    Shrunk {
        only: shrinker.best,
        tries: shrinker.tries,
    }
}

impl<F: Fn(&Only) -> Outcome> Shrinker<F> {
    /// Tries every kind of cut once. Returns whether one has made the run smaller.
    fn round(&mut self) -> bool {
        let before = self.best.clone();
        for strangers in smaller(self.size.strangers, 0) {
            self.attempt(|only| only.strangers = Some(strangers));
        }
        for hosts in smaller(self.size.hosts, 2) {
            self.attempt(|only| only.hosts = Some(hosts));
        }
        for (part, _) in Part::ALL {
            self.attempt(|only| {
                only.without.insert(part);
            });
        }
        self.cut_storm();
        self.cut_faults();
        self.cut_calls();
        self.best != before
    }

    fn cut_storm(&mut self) {
        for sixteenths in [1, 2, 4, 8, 12] {
            let storm = self.size.storm * sixteenths / 16;
            let storm = Duration::from_millis(storm.as_millis() as u64);
            if self.attempt(|only| only.storm = Some(storm)) {
                return;
            }
        }
    }

    /// Removes chunks of the faults that are left; the chunks are halved each time.
    fn cut_faults(&mut self) {
        let all: Vec<usize> = match &self.best.faults {
            Some(faults) => faults.iter().copied().collect(),
            None => (0..self.size.faults).collect(),
        };
        let mut piece = all.len();
        let mut left: BTreeSet<usize> = all.iter().copied().collect();
        while piece > 0 {
            for some in all.chunks(piece) {
                let fewer: BTreeSet<usize> = left
                    .iter()
                    .copied()
                    .filter(|fault| !some.contains(fault))
                    .collect();
                if fewer != left && self.attempt(|only| only.faults = Some(fewer.clone())) {
                    left = fewer;
                }
            }
            piece /= 2;
        }
    }

    /// Removes calls at the end, then at the beginning.
    fn cut_calls(&mut self) {
        let mut calls = self.best.calls.clone().unwrap_or(0..self.size.calls);
        let mut piece = calls.len();
        while piece > 0 {
            for fewer in [
                calls.start..calls.end - piece.min(calls.len()),
                calls.start + piece.min(calls.len())..calls.end,
            ] {
                if fewer != calls && self.attempt(|only| only.calls = Some(fewer.clone())) {
                    calls = fewer;
                    break;
                }
            }
            piece /= 2;
        }
    }

    /// Keeps a cut if the run still fails in the same way. A mesh without calls, for example, may fail in the same property only
    /// because nobody dials.
    fn attempt(&mut self, cut: impl FnOnce(&mut Only)) -> bool {
        let mut only = self.best.clone();
        cut(&mut only);
        if only == self.best || self.tries >= TRIES_MAX || Instant::now() > self.until {
            return false;
        }
        self.tries += 1;
        let outcome = (self.run)(&only);
        let fails = outcome
            .failure
            .is_some_and(|failure| failure.kind() == self.kind);
        if fails {
            (self.best, self.size) = (only, outcome.size);
        }
        fails
    }
}

/// Smaller numbers, in ascending order.
fn smaller(now: usize, least: usize) -> std::ops::Range<usize> {
    least..now.max(least)
}
