//! Tests that every halt ends within a second, under any condition and by any caller, frees the port, and leaves nothing behind.
//!
//! The test fails only after a longer time: the times are printed, and written to `target/figures`. Some conditions use up the
//! descriptors or block the resolver of the whole process, so this is one test in a process of its own.

#![cfg(target_os = "linux")]

mod callers;
mod conditions;
mod resources;
mod setup;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use support::{eventually, figures::ResultTable, process, within};

use callers::{CALLERS, Caller};
use conditions::{CONDITIONS, Condition};
use setup::Setup;

/// The goal on an otherwise idle machine.
const GOAL: Duration = Duration::from_secs(1);

/// A halt that takes longer fails the test.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn halt_is_fast_under_any_condition_from_any_caller() {
    if resources::do_lookups_hang_here() {
        halt_in_all_conditions();
    } else {
        resources::run_again_with_hanging_lookups(
            "halt_is_fast_under_any_condition_from_any_caller",
        );
    }
}

fn halt_in_all_conditions() {
    let titles = CALLERS.iter().map(|caller| caller.title());
    let columns: Vec<&str> = ["ms until halted"].into_iter().chain(titles).collect();
    let mut figures = ResultTable::new("halt", &columns);
    let mut longest = Duration::ZERO;
    for condition in CONDITIONS {
        let times = CALLERS.map(|caller| halt(condition, caller));
        longest = longest.max(times.into_iter().flatten().max().unwrap_or_default());
        let millis = |time: Duration| time.as_millis().to_string();
        let shown = times.map(|time| time.map(millis).unwrap_or_else(|| "-".into()));
        figures.row([condition.name.to_owned()].into_iter().chain(shown));
    }
    figures.tell();
    println!("the longest took {longest:?}; the goal is {GOAL:?}");
}

/// Halts once. Returns how long it took, or `None` if the condition does not apply to the caller.
fn halt(condition: &Condition, caller: Caller) -> Option<Duration> {
    if !(condition.is_for)(caller) {
        return None;
    }
    let title = format!("{}, {}", condition.name, caller.title());
    let before = process::ProcessResources::own();
    let start = Instant::now();
    let mut setup = Setup::new(caller);
    (condition.set_up)(&mut setup);
    let set_up_time = start.elapsed();
    let handle = setup.handle();
    let (address, ends) = (setup.address().to_owned(), setup.take_ends());
    let (subject, resources) = setup.into_parts();
    let took = within(&title, move || caller.halt(subject));
    println!("{title}: set up in {set_up_time:.1?}, halted in {took:.1?}");
    assert!(took < LIMIT, "{title}: took {took:?}");
    // All far ends, strangers and threads still exist.
    assert!(TcpListener::bind(&address).is_ok(), "{title}: {address}");
    assert!(handle.is_halted() && !handle.has_died(), "{title}");
    assert_eq!(
        (handle.listening(), handle.linked_peers()),
        (vec![], vec![])
    );
    let stats = handle.stats();
    assert_eq!((stats.connections, stats.pending), (0, 0), "{title}");
    assert!(stats.balances(), "{title}: {stats:#?}");
    eventually("the loop's thread has ended", || resources::loops() == 0);
    for mut end in ends {
        end.wait_closed();
    }
    drop((resources, handle));
    process::wait_descriptors(before);
    Some(took)
}
