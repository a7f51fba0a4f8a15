//! Measures how far apart two processors are: the time for a cache line to pass from one to the other and back.
//!
//! Virtual processors move. When they share a cache, this time is 50 ns on AMD EPYC, else 300 ns, and a stream over loopback has half
//! of its rate or less. Rates of the two states cannot be compared.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::child::check_interrupt;
use crate::failure::failure;

/// Passes in one measurement. The fastest of several measurements counts, since the other ones were interrupted.
const PASSES: u32 = 100;
const MEASUREMENTS: u32 = 20;

/// Time for the two threads to start. If one of them does not run, there is no answer.
const AT_MOST: Duration = Duration::from_millis(100);

/// The processors count as near if the time is at most so many times the shortest one of this run.
const NEAR: f64 = 2.0;

/// How long to wait until they are near again. They move every few seconds.
const WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// The distance in this run.
#[derive(Debug)]
pub(crate) struct Distance<M> {
    measure: M,
    shortest: Option<f64>,
}

impl<M: FnMut() -> Option<f64>> Distance<M> {
    /// `measure` returns the nanoseconds for a cache line there and back, if they can be measured.
    pub(crate) fn new(measure: M) -> Self {
        Self {
            measure,
            shortest: None,
        }
    }

    /// Waits until the processors are near, for a bounded time.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while {
            let now = self.look();
            !self.is_near(now)
        } && start.elapsed() < WAIT
        {
            check_interrupt()?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Nanoseconds for a cache line there and back, now. The best of this run is remembered.
    pub(crate) fn look(&mut self) -> Option<f64> {
        let now = (self.measure)()?;
        self.shortest = Some(self.shortest.map_or(now, |shortest| shortest.min(now)));
        Some(now)
    }

    /// Whether this is near, compared to the rest of this run. What is not known is near.
    pub(crate) fn is_near(&self, distance: Option<f64>) -> bool {
        match (distance, self.shortest) {
            (Some(now), Some(shortest)) => now <= NEAR * shortest,
            _ => true,
        }
    }
}

/// Nanoseconds for a cache line there and back between the first two processors; `None` if there is only one, or if they are busy.
pub(crate) fn measure() -> Option<f64> {
    let [here, there] = processors()?;
    let (line, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(there);
            while !over.load(Ordering::Relaxed) {
                let value = line.load(Ordering::Acquire);
                if value % 2 == 1 {
                    line.store(value + 1, Ordering::Release);
                }
            }
        });
        let measured = scope.spawn(|| {
            pin(here);
            let deadline = Instant::now() + AT_MOST;
            let best = (0..MEASUREMENTS)
                .filter_map(|_| pass(&line, deadline))
                .min();
            over.store(true, Ordering::Relaxed);
            best
        });
        let best = measured.join().ok()??;
        Some(best.as_nanos() as f64 / f64::from(PASSES))
    })
}

#[cfg(target_os = "linux")]
fn processors() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut all = (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap_or(false));
    Some([all.next()?, all.next()?])
}

#[cfg(not(target_os = "linux"))]
fn processors() -> Option<[usize; 2]> {
    None
}

#[cfg(target_os = "linux")]
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    // If it fails, the result is that of wherever the thread runs.
    let _ = set.set(processor);
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

#[cfg(not(target_os = "linux"))]
fn pin(_: usize) {}

fn pass(line: &AtomicU64, deadline: Instant) -> Option<Duration> {
    let start = Instant::now();
    for _ in 0..PASSES {
        let value = line.load(Ordering::Relaxed);
        line.store(value + 1, Ordering::Release);
        let mut polls = 0_u32;
        while line.load(Ordering::Acquire) != value + 2 {
            polls = polls.wrapping_add(1);
            if polls % 1024 == 0 && Instant::now() >= deadline {
                return None;
            }
        }
    }
    Some(start.elapsed())
}

/// Tests which times count as near, compared to the times before.
pub(super) fn check() -> io::Result<()> {
    // Each time, and whether it is near once it is known.
    let script = [
        (None, true),
        (Some(300.0), true),
        (Some(600.0), true),
        (Some(601.0), false),
        (None, true),
        (Some(100.0), true),
        (Some(300.0), false),
        (Some(200.0), true),
    ];
    let mut times = script.iter().map(|(time, _)| *time);
    let mut distance = Distance::new(|| times.next().flatten());
    for (at, expected) in script.into_iter().enumerate() {
        let time = distance.look();
        let found = (time, distance.is_near(time));
        if found != expected {
            return Err(failure(format_args!(
                "time {at} and whether it is near: {found:?} instead of {expected:?}"
            )));
        }
    }
    Ok(())
}
