//! Members that are killed, stand still, or are started anew, one after the other or at once.

use std::time::Duration;

use crate::{
    lan::Lan,
    quorum::{DEAD_AFTER, Quorum},
    rounds, run_time,
    table::record,
};

const PACE: Duration = Duration::from_millis(25);

pub(crate) fn a_member_that_is_killed_is_missed_at_once_and_welcome_again() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        let start = quorum.aged();
        quorum.kill(victim);
        let noticed = quorum.notice(&live, &[victim], start);
        quorum.settle(&live, run_time::now());
        // Those who dial it in vain wait ever longer.
        run_time::pass(Duration::from_secs(1));
        quorum.launch(victim);
        let recovery = quorum.settle(&all, run_time::now());
        record(
            "a member killed, started later",
            all.len(),
            Some(noticed),
            recovery,
        );
        let restart = run_time::now();
        quorum.kill(victim);
        quorum.launch(victim);
        let recovery = quorum.settle(&all, restart);
        let noticed = quorum.notice(&live, &[victim], restart);
        record(
            "a member killed, started at once",
            all.len(),
            Some(noticed),
            recovery,
        );
        quorum.undisturbed(&live, start);
    }
}

/// Its kernel answers for it, so it is not dead; what is for it waits, and the others do not.
pub(crate) fn a_member_that_stands_still_holds_nobody_up_and_goes_on() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        let start = quorum.aged();
        quorum.stop(victim, true);
        run_time::pass(DEAD_AFTER + Duration::from_secs(1));
        quorum.settle(&live, run_time::now());
        quorum.stop(victim, false);
        let recovery = quorum.settle(&all, run_time::now());
        quorum.undisturbed(&live, start);
        record("a member stopped for 3 s", all.len(), None, recovery);
    }
}

pub(crate) fn all_are_restarted_one_after_the_other_in_both_orders() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        for backwards in [false, true] {
            let mut order = all.clone();
            if backwards {
                order.reverse();
            }
            let fault = if backwards {
                "restart of each, largest first"
            } else {
                "restart of each, smallest first"
            };
            for victim in order {
                let live = quorum.all_but(&[victim]);
                let start = quorum.aged();
                quorum.quit(victim);
                let noticed = quorum.notice(&live, &[victim], start);
                let launch = run_time::now();
                quorum.launch(victim);
                let recovery = quorum.settle(&all, launch);
                quorum.undisturbed(&live, start);
                record(fault, all.len(), Some(noticed), recovery);
            }
        }
    }
}
