//! Halting a manager whatever is going on, whoever asks for it, and how often: it is over within a second, the port is
//! free, and nothing is left.
//!
//! Nothing here depends on the second: how long it took is printed, and kept in `target/figures`. Some conditions take
//! the descriptors or the resolver of the whole process, so this is one test, in a process of its own.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod callers;
mod conditions;
mod scene;
mod things;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use callers::{CALLERS, Caller};
use common::{eventually, figures::Figures, process, within};
use conditions::{CONDITIONS, Condition};
use scene::Scene;

/// What is promised, on a machine that is not busy with something else.
const GOAL: Duration = Duration::from_secs(1);

/// What fails.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn halt_is_over_soon_whatever_is_going_on_and_whoever_asks() {
    if things::are_names_slow_here() {
        halt_in_all_conditions();
    } else {
        things::run_again_where_names_are_slow(
            "halt_is_over_soon_whatever_is_going_on_and_whoever_asks",
        );
    }
}

fn halt_in_all_conditions() {
    let titles = CALLERS.iter().map(|caller| caller.title());
    let columns: Vec<&str> = ["ms until halted"].into_iter().chain(titles).collect();
    let mut figures = Figures::new("halt", &columns);
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

/// Halts once. How long it took, if this can be done under this condition.
fn halt(condition: &Condition, caller: Caller) -> Option<Duration> {
    if !condition.is_for(caller) {
        return None;
    }
    let title = format!("{}, {}", condition.name, caller.title());
    let before = process::Holdings::own();
    let laying = Instant::now();
    let mut scene = Scene::new(caller);
    (condition.lay)(&mut scene);
    let laid = laying.elapsed();
    let handle = scene.handle();
    let (address, ends) = (scene.address().to_owned(), scene.take_ends());
    let (subject, props) = scene.part();
    let took = within(&title, move || caller.halt(subject));
    println!("{title}: laid in {laid:.1?}, halted in {took:.1?}");
    assert!(took < LIMIT, "{title}: took {took:?}");
    // With all far ends, strangers and threads still there.
    assert!(TcpListener::bind(&address).is_ok(), "{title}: {address}");
    assert!(handle.is_halted() && !handle.has_died(), "{title}");
    assert_eq!(
        (handle.listening(), handle.linked_peers()),
        (vec![], vec![])
    );
    let stats = handle.stats();
    assert_eq!((stats.connections, stats.pending), (0, 0), "{title}");
    assert!(stats.balances(), "{title}: {stats:#?}");
    eventually("the loop's thread has ended", || things::loops() == 0);
    for mut end in ends {
        end.wait_closed();
    }
    drop((props, handle));
    process::wait_descriptors(before);
    Some(took)
}
