//! Tests members that are killed, stopped or restarted, one after the other or at once.

use std::time::Duration;

use crate::{
    lan::Lan,
    quorum::{DEAD_AFTER, Quorum},
    rounds, run_time,
};

const PACE: Duration = Duration::from_millis(25);

pub(crate) fn killed_member_is_noticed_at_once_and_relinked() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        let start = quorum.let_links_age();
        quorum.kill(victim);
        let noticed = quorum.wait_noticed(&live, &[victim], start);
        quorum.wait_recovered(&live, run_time::now());
        // Meanwhile the backoff of the members that dial it grows.
        run_time::pass(Duration::from_secs(1));
        quorum.launch(victim);
        let recovery = quorum.wait_recovered(&all, run_time::now());
        quorum.record("a member killed, started later", Some(noticed), recovery);
        let restart = run_time::now();
        quorum.kill(victim);
        quorum.launch(victim);
        let recovery = quorum.wait_recovered(&all, restart);
        let noticed = quorum.wait_noticed(&live, &[victim], restart);
        quorum.record("a member killed, started at once", Some(noticed), recovery);
        quorum.assert_no_link_ended(&live, start);
    }
}

/// Its kernel acknowledges, so that its links stay up. Frames for it wait, and the other members do not.
pub(crate) fn stopped_member_delays_no_other_and_continues() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        let start = quorum.let_links_age();
        quorum.stop(victim, true);
        run_time::pass(DEAD_AFTER + Duration::from_secs(1));
        quorum.wait_recovered(&live, run_time::now());
        quorum.stop(victim, false);
        let recovery = quorum.wait_recovered(&all, run_time::now());
        quorum.assert_no_link_ended(&live, start);
        quorum.record("a member stopped for 3 s", None, recovery);
    }
}

pub(crate) fn rolling_restart_in_both_orders() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        let backwards = all.iter().rev().copied().collect();
        for (fault, order) in [
            ("restart of each, smallest first", all.clone()),
            ("restart of each, largest first", backwards),
        ] {
            for victim in order {
                let live = quorum.all_but(&[victim]);
                let start = quorum.let_links_age();
                quorum.quit(victim);
                let noticed = quorum.wait_noticed(&live, &[victim], start);
                let launch = run_time::now();
                quorum.launch(victim);
                let recovery = quorum.wait_recovered(&all, launch);
                quorum.assert_no_link_ended(&live, start);
                quorum.record(fault, Some(noticed), recovery);
            }
        }
    }
}
