//! Measures the latency between healthy members while others are dead or their packets are dropped, alternating with times
//! without faults. The figures are printed, and never fail the test.

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

/// The duration of each measurement.
const PERIOD: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    NoFault,
    BlackHole,
    Dead,
}

pub(crate) fn latency_of_healthy_members_beside_dead_ones() {
    let quorum = Quorum::start(Lan::new(5), Duration::from_millis(10));
    let all = quorum.all();
    let (healthy, others) = all.split_at(3);
    let mut histograms =
        [(); 3].map(|()| Histogram::<u64>::new_with_max(LONG.as_micros() as u64, 3).unwrap());
    // Each fault follows a period without one, so that drift affects both.
    let periods = [
        Phase::NoFault,
        Phase::BlackHole,
        Phase::NoFault,
        Phase::Dead,
    ];
    let start = run_time::now();
    for phase in periods
        .iter()
        .cycle()
        .take(periods.len() * (rounds::rounds() + 1))
    {
        // In all periods the same frames are sent, so that only the faults differ.
        quorum.leave_out(others);
        match phase {
            Phase::NoFault => {}
            Phase::BlackHole => quorum.lan.set_rules(&between(others, &all, Fate::Drop)),
            Phase::Dead => others.iter().for_each(|member| quorum.kill(*member)),
        }
        quorum.ledger().time(true);
        run_time::pass(PERIOD);
        for (from, to, took) in quorum.ledger().time(false) {
            if healthy.contains(&from) && healthy.contains(&to) {
                let micros = u64::try_from(took.as_micros()).unwrap();
                histograms[*phase as usize].saturating_record(micros);
            }
        }
        match phase {
            Phase::NoFault => {}
            Phase::BlackHole => quorum.lan.set_rules(&[]),
            Phase::Dead => others.iter().for_each(|member| quorum.launch(*member)),
        }
        quorum.leave_out(&[]);
        quorum.wait_recovered(&all, run_time::now());
    }
    quorum.assert_no_link_ended(healthy, start);
    let [no_fault, black_hole, dead] = histograms.map(|histogram| {
        (
            histogram.value_at_quantile(0.5),
            histogram.value_at_quantile(0.99),
            histogram.len(),
        )
    });
    let summary = |name: &str, (median, p99, count): (u64, u64, u64)| {
        let ratio = p99 as f64 / no_fault.1 as f64;
        format!("{name}: median {median} us, p99 {p99} us ({ratio:.2} x no fault), {count} frames")
    };
    note(format!(
        "From the driver through two programs and back, between the 3 healthy of 5 members, in periods of {} ms: {}; {}; {}.",
        PERIOD.as_millis(),
        summary("no fault", no_fault),
        summary("packets of the others dropped", black_hole),
        summary("others dead", dead)
    ));
}
