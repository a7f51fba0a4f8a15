//! A mesh of five processes that stays up for as long as it is asked to, under random faults: members killed and started
//! again, stopped and continued, connections cut, stalled and refused, readers that do not read, bursts of frames of all
//! sizes, strangers of every kind. Whenever it is left in peace, everything is as it should be.
//!
//! What it does follows from one number, but for how fast the machine is. `SOAK_SECONDS=n` is for how long (15),
//! `SOAK_SEED=n` does the same faults again; `tests/soak.sh HOURS` does both.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

#[path = "../sim/chance.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the simulator draws more from it"
)]
mod chance;

mod account;
mod diary;
mod faults;
mod judge;
mod member;
mod mesh;
mod proxy;
mod strangers;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use crate::{chance::Rng, diary::Diary, faults::Faults, mesh::Mesh, strangers::Strangers};

/// How long it lasts unless it is told.
const SECONDS: u64 = 15;

/// A year.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

/// Longest time without a look at everybody.
const STORM_MAX: Duration = Duration::from_secs(60);

#[test]
fn the_mesh_outlives_random_faults() {
    let seconds = number("SOAK_SECONDS").unwrap_or(SECONDS);
    let range = 1..=SECONDS_MAX;
    assert!(
        range.contains(&seconds),
        "SOAK_SECONDS={seconds}: {range:?} is possible"
    );
    let seed = number("SOAK_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let diary = Diary::begin();
    diary.note(format!("SOAK_SECONDS={seconds} SOAK_SEED={seed}"));
    let (mut rng, whole) = (Rng::new(seed), Duration::from_secs(seconds));
    let mut mesh = Mesh::start(&diary, whole);
    let end = Instant::now() + whole;
    // What everybody has after a first part is what everybody may have at any time later.
    rage(&mut mesh, &mut rng, STORM_MAX.min(whole / 5));
    let first = mesh.look();
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        rage(&mut mesh, &mut rng, STORM_MAX.min(left));
        mesh.look().compare(&first);
    }
    mesh.end();
}

/// Faults and strangers for so long; when this returns, there are none left.
fn rage(mesh: &mut Mesh, rng: &mut Rng, storm: Duration) {
    let strangers = Strangers::let_loose(mesh.addresses(), rng.fork(), mesh.diary());
    let mut faults = Faults::new(rng.fork());
    let end = Instant::now() + storm;
    while Instant::now() < end {
        faults.step(mesh);
    }
    faults.undo_all(mesh);
    drop(strangers);
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
