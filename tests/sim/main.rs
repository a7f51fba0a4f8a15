//! The real loop of several hosts on simulated machines, in virtual time, from one seed.
//!
//! - P1 once quiet, every pair of live, connected peers shares exactly one link, dialed by the larger sid, known to both
//! - P2 the newest frame put for a reachable peer is delivered at least once, in bounded time after healing
//! - P3 a receiver never sees an older frame of a sender after a newer one, nor a torn one
//! - P4 tables, sockets and dial rates stay inside their limits, and no loop spins
//! - P5 the account of frames balances, and so do those of links and of accepted connections
//! - P6 nothing that a stranger sends changes a member's live link if its connections are known to come from its own addresses,
//!   or if it brings bytes
//! - P7 halt always ends, with no socket left open
//!
//! `cargo test --test sim` runs 256 seeds. `SIM_SEEDS=n` and `SIM_FIRST=n` choose others, `SIM_SEED=n` runs one and prints
//! what happens in it. Many are best run with `cargo test --profile sim --test sim`, which keeps all assertions. A seed that
//! fails is shrunk (unless `SIM_SHRINK=0`): `SIM_ONLY` says what was left of it, see `only`. `mutants.sh` shows that the
//! properties catch what they are for.

#![allow(
    unreachable_pub,
    reason = "nothing is reachable from outside of a test"
)]

mod anything;
mod calls;
mod chance;
mod faults;
mod host;
mod kernel;
mod net;
mod only;
mod plan;
mod properties;
mod shrink;
mod stranger;
mod talk;
mod tcp;
mod trace;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use host::Failure;
use only::{Only, Size};
use shrink::{Shrunk, shrink};
use trace::{Trace, Words};
use world::{Outcome, World};

const SEEDS: u64 = 256;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// Runs one seed. A panic of the code under test is a failure like any other.
fn run(seed: u64, only: &Only, words: Option<Words>) -> Outcome {
    let run = || World::new(seed, only.clone(), Trace::new(words)).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Outcome {
            failure: Some(Failure {
                property: "panic",
                what: text.unwrap_or_default(),
            }),
            digest: 0,
            size: Size::default(),
        }
    })
}

/// Makes the world of a failed seed as small as it can be, tells its history, and gives up.
fn report(seed: u64, first: &Outcome) -> ! {
    let Some(Failure { property, what }) = &first.failure else {
        unreachable!("it has failed");
    };
    let line = format!("seed {seed}: {property}: {what}");
    let shrunk = if number("SIM_SHRINK") == Some(0) {
        Shrunk::default()
    } else {
        shrink(first, |only| run(seed, only, None))
    };
    let (only, words) = (shrunk.only.to_string(), Words::default());
    let last = run(seed, &shrunk.only, Some(words.clone())).failure;
    let last = last.map_or_else(
        || "nothing is wrong the second time".to_owned(),
        |last| format!("{}: {}", last.property, last.what),
    );
    panic!(
        "{line}\n\n{}\nThis is the history of the seed with only: {only}\n\
         ({} tries to make it smaller.) There: {last}\n\n{line}\n\
         replay: SIM_SEED={seed} SIM_ONLY='{only}' cargo test --test sim -- --nocapture all_properties",
        words.text(),
        shrunk.tries,
    );
}

#[test]
fn all_properties_hold_in_all_seeds() {
    if let Some(seed) = number("SIM_SEED") {
        let only = env::var("SIM_ONLY").unwrap_or_default();
        let only = only.parse().unwrap_or_else(|why| panic!("SIM_ONLY: {why}"));
        let outcome = run(seed, &only, Some(Words::printed()));
        if let Some(Failure { property, what }) = outcome.failure {
            panic!("seed {seed}: {property}: {what}");
        }
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            let outcome = run(seed, &Only::default(), None);
            if outcome.failure.is_some() {
                failed.store(true, Ordering::Relaxed);
                return Some((seed, outcome));
            }
        }
        None
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failed = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let seeds = workers
            .into_iter()
            .map(|worker| worker.join().expect("panics are caught"));
        seeds.flatten().min_by_key(|(seed, _)| *seed)
    });
    if let Some((seed, outcome)) = failed {
        report(seed, &outcome);
    }
}

#[test]
fn the_same_seed_has_the_same_history() {
    for seed in 0..8 {
        let all = Only::default();
        let (first, second) = (
            run(seed, &all, None),
            run(seed, &all, Some(Words::default())),
        );
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, run(seed + 1, &all, None).digest);
    }
}
