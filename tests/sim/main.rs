//! The real loop of several hosts on simulated machines, in virtual time, from one seed.
//!
//! - P1 once quiet, every pair of live, connected peers shares exactly one link, dialed by the larger sid, known to both
//! - P2 the newest frame put for a reachable peer is delivered at least once, in bounded time after healing
//! - P3 a receiver never sees an older frame of a sender after a newer one, nor a torn one
//! - P4 tables, sockets and dial rates stay inside their limits, and no loop spins
//! - P5 the account of frames balances, and so do those of links and of accepted connections
//! - P6 nothing that a stranger sends changes a member's live link
//! - P7 halt always ends, with no socket left open
//!
//! `cargo test --test sim` runs 256 seeds. `SIM_SEEDS=n` and `SIM_FIRST=n` choose others, `SIM_SEED=n` runs one and prints
//! what happens in it. `mutants.sh` shows that the properties catch what they are for.

#![allow(
    unreachable_pub,
    reason = "nothing is reachable from outside of a test"
)]

mod calls;
mod chance;
mod faults;
mod host;
mod kernel;
mod net;
mod plan;
mod properties;
mod stranger;
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
use trace::Trace;
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
fn run(seed: u64, print: bool, words: bool) -> Outcome {
    let run = || World::new(seed, Trace::new(words, print)).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Outcome {
        failure: Some(Failure {
            property: "panic",
            what: "see above".into(),
        }),
        digest: 0,
        trace: String::new(),
    })
}

/// Runs a failed seed once more, in words, and gives up.
fn report(seed: u64) -> ! {
    let outcome = run(seed, false, true);
    let Failure { property, what } = outcome.failure.unwrap_or_else(|| Failure {
        property: "determinism",
        what: "the seed fails only sometimes".into(),
    });
    panic!(
        "seed {seed}: {property}: {what}\n\n{}\n\nseed {seed}: {property}: {what}\nreplay: SIM_SEED={seed} cargo test --test sim -- --nocapture seeds",
        outcome.trace
    );
}

#[test]
fn all_properties_hold_in_all_seeds() {
    if let Some(seed) = number("SIM_SEED") {
        let outcome = run(seed, true, true);
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
            if run(seed, false, false).failure.is_some() {
                failed.store(true, Ordering::Relaxed);
                return Some(seed);
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
        seeds.flatten().min()
    });
    if let Some(seed) = failed {
        report(seed);
    }
}

#[test]
fn the_same_seed_has_the_same_history() {
    for seed in 0..8 {
        let (first, second) = (run(seed, false, false), run(seed, false, true));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, run(seed + 1, false, false).digest);
    }
}
