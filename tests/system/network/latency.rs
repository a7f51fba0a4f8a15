//! How long frames take between the healthy while others are dead or behind a black hole: measured against quiet times, in
//! turns, and told; no figure fails a test.

use std::time::Duration;

use hdrhistogram::Histogram;
use support::LONG;

use crate::{
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, between},
    table::note,
};

/// How long each turn lasts.
const TURN: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Quiet,
    BlackHole,
    Dead,
}

pub(crate) fn the_healthy_are_as_fast_while_others_are_dead() {
    let quorum = Quorum::start(Lan::new(5), Duration::from_millis(10));
    let all = quorum.all();
    let (healthy, others) = all.split_at(3);
    let mut histograms =
        [(); 3].map(|()| Histogram::<u64>::new_with_max(LONG.as_micros() as u64, 3).unwrap());
    // Each after quiet times, whatever drifts.
    let turns = [Times::Quiet, Times::BlackHole, Times::Quiet, Times::Dead];
    let start = run_time::now();
    for times in turns
        .iter()
        .cycle()
        .take(turns.len() * (rounds::rounds() + 1))
    {
        // In all turns the same is given to the same, so that nothing else makes a difference.
        quorum.leave_out(others);
        match times {
            Times::Quiet => {}
            Times::BlackHole => quorum.lan.treat(&between(others, &all, Fate::Drop)),
            Times::Dead => others.iter().for_each(|member| quorum.kill(*member)),
        }
        quorum.ledger().time(true);
        run_time::pass(TURN);
        for (from, to, took) in quorum.ledger().time(false) {
            if healthy.contains(&from) && healthy.contains(&to) {
                let micros = u64::try_from(took.as_micros()).unwrap();
                histograms[*times as usize].saturating_record(micros);
            }
        }
        match times {
            Times::Quiet => {}
            Times::BlackHole => quorum.lan.treat(&[]),
            Times::Dead => others.iter().for_each(|member| quorum.launch(*member)),
        }
        quorum.leave_out(&[]);
        quorum.settle(&all, run_time::now());
    }
    quorum.undisturbed(healthy, start);
    let [quiet, hole, dead] = histograms.map(|times| {
        (
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            times.len(),
        )
    });
    let tell = |name: &str, (half, most, count): (u64, u64, u64)| {
        let times = most as f64 / quiet.1 as f64;
        format!("{name}: median {half} us, p99 {most} us ({times:.2} x quiet), {count} frames")
    };
    note(format!(
        "From the driver through two programs and back, between the 3 healthy of 5, in turns of {} ms: {}; {}; {}.",
        TURN.as_millis(),
        tell("quiet", quiet),
        tell("others behind a black hole", hole),
        tell("others dead", dead)
    ));
}
