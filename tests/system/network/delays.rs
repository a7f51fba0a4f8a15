//! Tests networks that lose, duplicate, delay and reorder packets.

use std::time::Duration;

use crate::{
    cable::DelayRange,
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, PacketRule, between},
};

const PACE: Duration = Duration::from_millis(50);

/// The default. With the shortest allowed time, one lost probe would end an idle link.
const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(5);

fn start(lan: Lan) -> Quorum {
    Quorum::start_as(lan, PACE, DEFAULT_DEAD_AFTER, |_| {})
}

/// Applies rules for some seconds. The promises must hold afterwards.
fn disturb(quorum: &Quorum, fault: &str, rules: &[PacketRule], seconds: f64) {
    quorum.lan.set_rules(rules);
    run_time::pass(Duration::from_secs_f64(seconds));
    quorum.lan.set_rules(&[]);
    let recovery = quorum.wait_recovered(&quorum.all(), run_time::now());
    quorum.record(fault, None, recovery);
}

pub(crate) fn promises_hold_with_lost_and_duplicated_packets() {
    let quorum = start(Lan::new(rounds::members(5)));
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        let rules: Vec<PacketRule> = [
            between(&all, &all, Fate::Lose(15)),
            between(&all, &all, Fate::Double(20)),
        ]
        .concat();
        let fault = "15 % lost, 20 % duplicated, for 4 s";
        disturb(&quorum, fault, &rules, 4.0);
        // One direction only: that loses the acknowledgements of the other direction.
        let mut one_way = between(&all[..1], &all[1..], Fate::Lose(40));
        one_way.retain(|way| way.from == all[0]);
        let fault = "40 % of one member lost, for 3 s";
        disturb(&quorum, fault, &one_way, 3.0);
    }
}

pub(crate) fn promises_hold_with_delayed_and_reordered_packets() {
    let delay_range = DelayRange {
        at_least_ms: 5,
        at_most_ms: 25,
    };
    let quorum = start(Lan::with_delay(5, delay_range));
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        run_time::pass(Duration::from_secs(2));
        quorum.wait_recovered(&all, run_time::now());
        quorum.lan.set_rules(&between(&all, &all, Fate::Double(20)));
        run_time::pass(Duration::from_secs(2));
        quorum.wait_recovered(&all, run_time::now());
        let fault = "all reset, packets delayed by 10 to 50 ms";
        disturb(&quorum, fault, &between(&all, &all, Fate::Reset), 0.3);
    }
}
