//! Runs a mesh of five processes under random faults for a configurable time: members are killed and restarted, stopped and
//! continued; connections are cut, stalled and refused; members are removed, taken back and given another address; output is not read;
//! there are bursts of frames of all sizes, and strangers of every kind. Whenever the faults pause, the test checks that the mesh is complete and all counters balance.
//!
//! The faults follow from one seed; their effects also depend on the speed of the machine. `SOAK_SECONDS=n` sets the duration
//! (15), `SOAK_SEED=n` repeats the faults; `tests/soak.sh HOURS` runs it for hours.

#![cfg(target_os = "linux")]

mod faults;
mod frame_checker;
mod log;
mod member;
mod mesh;
mod strangers;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{faults::Faults, log::Log, mesh::Mesh};
use support::rng::Rng;

/// Default duration.
const SECONDS: u64 = 15;

/// A year.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

/// Longest time between two checks.
const FAULTS_MAX: Duration = Duration::from_secs(60);

#[test]
fn mesh_recovers_from_random_faults() {
    let seconds = number("SOAK_SECONDS").unwrap_or(SECONDS);
    let range = 1..=SECONDS_MAX;
    assert!(
        range.contains(&seconds),
        "SOAK_SECONDS={seconds} is not in {range:?}"
    );
    let seed = number("SOAK_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let log = Log::begin();
    log.note(format!("SOAK_SECONDS={seconds} SOAK_SEED={seed}"));
    let (mut rng, whole) = (Rng::new(seed), Duration::from_secs(seconds));
    let mut mesh = Mesh::start(log, whole);
    let end = Instant::now() + whole;
    // Later snapshots may hold no more than this first one.
    run_faults(&mut mesh, &mut rng, FAULTS_MAX.min(whole / 5));
    let first = mesh.snapshot();
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        run_faults(&mut mesh, &mut rng, FAULTS_MAX.min(left));
        mesh.snapshot().compare(&first);
    }
    mesh.end();
}

/// Runs faults and strangers for this time, and ends all of them.
fn run_faults(mesh: &mut Mesh, rng: &mut Rng, time: Duration) {
    let strangers = strangers::start(mesh.addresses(), rng.fork());
    let mut faults = Faults::new(rng.fork());
    let end = Instant::now() + time;
    while Instant::now() < end {
        faults.step(mesh);
    }
    faults.undo_all(mesh);
    drop(strangers);
    let count = strangers::COUNT.load(Ordering::Relaxed);
    mesh.log().note(format!("{count} strangers so far"));
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
