//! Tests partitions that heal, and links that flap.

use std::time::Duration;

use support::rng::Rng;

use crate::{
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, PacketRule, between},
};

pub(crate) fn mesh_recovers_after_a_partition() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), Duration::from_millis(25));
    let all = quorum.all();
    for round in 0..rounds::rounds() {
        let mut here = all.clone();
        let split = (all.len() / 2 + round) % (all.len() - 1) + 1;
        let there = here.split_off(split);
        let start = quorum.let_links_age();
        quorum.lan.set_rules(&between(&here, &there, Fate::Drop));
        let noticed = quorum.wait_noticed(&here, &there, start);
        let noticed = noticed.max(quorum.wait_noticed(&there, &here, start));
        for part in [&here, &there] {
            quorum.wait_recovered(part, run_time::now());
        }
        quorum.lan.set_rules(&[]);
        let recovery = quorum.wait_recovered(&all, run_time::now());
        for part in [&here, &there] {
            quorum.assert_no_link_ended(part, start);
        }
        quorum.record("a partition", Some(noticed), recovery);
    }
}

/// Every link is reset while frames are sent, and again before it is proven.
pub(crate) fn mesh_recovers_after_every_pair_flaps() {
    let quorum = Quorum::start(Lan::new(9), Duration::from_millis(60));
    let all = quorum.all();
    for round in 0..rounds::rounds() {
        let mut rng = Rng::new(round as u64);
        for _ in 0..6 {
            quorum.lan.set_rules(&between(&all, &all, Fate::Reset));
            run_time::pass(rng.millis(100, 300));
            quorum.lan.set_rules(&[]);
            run_time::pass(rng.millis(100, 600));
        }
        let recovery = quorum.wait_recovered(&all, run_time::now());
        quorum.record("every pair reset, 6 times", None, recovery);
        for _ in 0..6 {
            let cut: Vec<PacketRule> = between(&all, &all, Fate::Drop)
                .into_iter()
                .filter(|_| rng.percent(50))
                .collect();
            quorum.lan.set_rules(&cut);
            run_time::pass(rng.millis(200, 1000));
        }
        quorum.lan.set_rules(&[]);
        let recovery = quorum.wait_recovered(&all, run_time::now());
        quorum.record("random directions cut, 6 times", None, recovery);
    }
}
