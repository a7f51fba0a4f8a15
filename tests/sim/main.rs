//! A deterministic simulator: runs the event loops of several hosts on simulated machines, in virtual time, from one seed.
//!
//! A run has three parts: the mesh starts, faults happen (the *storm*), and all faults are undone. It checks these properties:
//!
//! - P1 after the storm, every pair of hosts shares exactly one link, dialed by the larger sid, and both hosts know it;
//!   a dial brings one link at most; pings over it are answered
//! - P2 the newest frame for a reachable peer is delivered at least once, in bounded time after the storm
//! - P3 a receiver never gets an older frame of a sender after a newer one, nor a torn frame
//! - P4 tables, sockets and dial rates stay within their limits, and no loop spins
//! - P5 the counters of frames, links and accepted connections balance
//! - P6 nothing that a stranger sends changes a member's live link, if the member's connections are known to come from its own
//!   addresses, or if the link brings bytes
//! - P7 every halt ends, and leaves no socket open
//! - P8 in a layered mesh and in one with TLS, every link is one to the server whose key the far end has: no frame comes from another one or goes to it
//! - P9 a frame that `have_delivered` has confirmed arrives, even if its sender halts at once, if nothing is sent to that sender
//! - P10 with TLS, a host whose certificate was revoked loses its links at once and gets no frame, no stranger gets one, and no link
//!   ends because of TLS if nothing was damaged and all certificates are believed
//! - P11 with lanes, a frame of the slot does not wait for the queue: at most one run of later frames comes before it
//! - P12 what was meant for a member that was removed is not sent to the one that has its sid later
//! - P13 if nothing happens to the links but renewals, and all are native, a queue loses no frame
//! - P14 a loop that shuts down, with time enough, halts, and its peers have read all frames of it, also if they send to it
//! - P15 a host whose own addresses change closes its old sockets when the new ones are open, and never listens nowhere meanwhile
//!
//! In a quarter of the seeds the mesh is *layered*: something that behaves like TLS lies between TCP and the loops, see `layer`. With
//! the feature `tls`, half of the seeds use the real TLS of the library instead, see `secure`.
//!
//! `cargo test --test sim` runs 256 seeds. `SIM_SEEDS=n` and `SIM_FIRST=n` choose others, `SIM_SEED=n` runs one and prints
//! what happens in it. `cargo test --profile sim --test sim` is faster, and keeps all assertions. A seed that fails is shrunk,
//! unless `SIM_SHRINK=0`: `SIM_ONLY` says which parts of the run are left, see `only`. `mutants.sh` checks that the properties
//! find bugs.

#![allow(
    unreachable_pub,
    reason = "nothing is reachable from outside of a test"
)]

mod application_calls;
mod calls;
mod faults;
mod kernel;
mod layer;
mod layer_records;
mod members;
mod net;
mod only;
mod oracle;
mod own_addresses;
mod plan;
mod properties;
mod random_calls;
mod rng;
mod secure;
mod shrink;
mod simulation;
mod stranger;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod trace;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use only::{Only, Size};
use oracle::Failure;
use shrink::{Shrunk, shrink};
use simulation::{Outcome, Simulation};
use trace::{Trace, TraceLines};

const SEEDS: u64 = 256;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// Runs one seed. A panic of the code under test counts as a failure.
fn run(seed: u64, only: &Only, lines: Option<TraceLines>) -> Outcome {
    let run = || Simulation::new(seed, only.clone(), Trace::new(lines)).run();
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

/// Shrinks the run of a failed seed, prints its trace, and panics.
fn report(seed: u64, first: &Outcome) -> ! {
    let Some(Failure { property, what }) = &first.failure else {
        unreachable!("only a failed run is reported");
    };
    let line = format!("seed {seed}: {property}: {what}");
    let shrunk = if number("SIM_SHRINK") == Some(0) {
        Shrunk::default()
    } else {
        shrink(first, |only| run(seed, only, None))
    };
    let (only, lines) = (shrunk.only.to_string(), TraceLines::default());
    let last = run(seed, &shrunk.only, Some(lines.clone())).failure;
    let last = last.map_or_else(
        || "the second run has not failed".to_owned(),
        |last| format!("{}: {}", last.property, last.what),
    );
    panic!(
        "{line}\n\n{}\nThis is the trace of the seed with SIM_ONLY='{only}'\n\
         ({} attempts to shrink it). This run: {last}\n\n{line}\n\
         replay: SIM_SEED={seed} SIM_ONLY='{only}' cargo test --test sim -- --nocapture all_properties",
        lines.text(),
        shrunk.tries,
    );
}

#[test]
fn all_properties_hold_in_all_seeds() {
    if let Some(seed) = number("SIM_SEED") {
        let only = env::var("SIM_ONLY").unwrap_or_default();
        let only = only.parse().unwrap_or_else(|why| panic!("SIM_ONLY: {why}"));
        let outcome = run(seed, &only, Some(TraceLines::printed()));
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
fn same_seed_gives_the_same_run() {
    for seed in 0..8 {
        let all = Only::default();
        let (first, second) = (
            run(seed, &all, None),
            run(seed, &all, Some(TraceLines::default())),
        );
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, run(seed + 1, &all, None).digest);
    }
}
