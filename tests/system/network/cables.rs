//! Tests pulled cables, and packets that are dropped in both directions or in one.

use std::time::Duration;

use crate::{
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, PacketRule, around},
    table::record,
};

const PACE: Duration = Duration::from_millis(25);

pub(crate) fn pulled_cable_is_noticed_and_the_member_is_relinked() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    for victim in rounds::victims(&quorum.all()) {
        let live = quorum.all_but(&[victim]);
        for silent in [false, true] {
            let fault = if silent {
                "all packets of a cable dropped"
            } else {
                "a cable pulled"
            };
            let start = quorum.let_links_age();
            if silent {
                quorum.lan.set_rules(&around(victim, &quorum.all()));
            } else {
                quorum.lan.pull(victim);
            }
            let noticed = quorum.wait_noticed(&live, &[victim], start);
            let noticed_by_victim = quorum.wait_noticed(&[victim], &live, start);
            quorum.assert_no_link_ended(&live, start);
            quorum.wait_recovered(&live, run_time::now());
            if silent {
                quorum.lan.set_rules(&[]);
            } else {
                quorum.lan.plug(victim);
            }
            let recovery = quorum.wait_recovered(&quorum.all(), run_time::now());
            quorum.assert_no_link_ended(&live, start);
            record(
                fault,
                quorum.all().len(),
                Some(noticed.max(noticed_by_victim)),
                recovery,
            );
        }
    }
}

pub(crate) fn member_cut_off_in_one_direction_is_noticed_and_relinked() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    for victim in rounds::victims(&quorum.all()) {
        let live = quorum.all_but(&[victim]);
        for (fault, is_receiver) in [
            ("a member that sends no packets", false),
            ("a member that receives no packets", true),
        ] {
            let ways: Vec<PacketRule> = if is_receiver {
                let to = |from: &i64| PacketRule {
                    from: *from,
                    to: Some(victim),
                    fate: Fate::Drop,
                };
                live.iter().map(to).collect()
            } else {
                vec![PacketRule {
                    from: victim,
                    to: None,
                    fate: Fate::Drop,
                }]
            };
            let start = quorum.let_links_age();
            quorum.lan.set_rules(&ways);
            let noticed = quorum.wait_noticed(&live, &[victim], start);
            let noticed_by_victim = quorum.wait_noticed(&[victim], &live, start);
            quorum.wait_recovered(&live, run_time::now());
            quorum.lan.set_rules(&[]);
            let recovery = quorum.wait_recovered(&quorum.all(), run_time::now());
            quorum.assert_no_link_ended(&live, start);
            record(
                fault,
                quorum.all().len(),
                Some(noticed.max(noticed_by_victim)),
                recovery,
            );
        }
    }
}
