//! Tests pulled cables, and packets that are dropped in both directions or in one.

use std::time::Duration;

use crate::{
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{PacketRule, around, drop_packets},
};

const PACE: Duration = Duration::from_millis(25);

/// Cuts a member off, and connects it again. All ends of its links must be noticed, and no other link may end.
fn cut_off(quorum: &Quorum, victim: i64, fault: &str, cut: impl Fn(&Lan), mend: impl Fn(&Lan)) {
    let live = quorum.all_but(&[victim]);
    let start = quorum.let_links_age();
    cut(&quorum.lan);
    let noticed = quorum.wait_noticed(&live, &[victim], start);
    let noticed_by_victim = quorum.wait_noticed(&[victim], &live, start);
    quorum.assert_no_link_ended(&live, start);
    quorum.wait_recovered(&live, run_time::now());
    mend(&quorum.lan);
    let recovery = quorum.wait_recovered(&quorum.all(), run_time::now());
    quorum.assert_no_link_ended(&live, start);
    quorum.record(fault, Some(noticed.max(noticed_by_victim)), recovery);
}

/// The same by dropping the packets to which these rules apply.
fn cut_off_by(quorum: &Quorum, victim: i64, fault: &str, rules: &[PacketRule]) {
    let (cut, mend) = (
        |lan: &Lan| lan.set_rules(rules),
        |lan: &Lan| lan.set_rules(&[]),
    );
    cut_off(quorum, victim, fault, cut, mend);
}

pub(crate) fn pulled_cable_is_noticed_and_the_member_is_relinked() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let (cut, mend) = (|lan: &Lan| lan.pull(victim), |lan: &Lan| lan.plug(victim));
        cut_off(&quorum, victim, "a cable pulled", cut, mend);
        let fault = "all packets of a cable dropped";
        cut_off_by(&quorum, victim, fault, &around(victim, &all));
    }
}

pub(crate) fn member_cut_off_in_one_direction_is_noticed_and_relinked() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    for victim in rounds::victims(&quorum.all()) {
        let fault = "a member that sends no packets";
        cut_off_by(&quorum, victim, fault, &[drop_packets(victim, None)]);
        let to_victim = quorum.all_but(&[victim]).into_iter();
        let to_victim: Vec<_> = to_victim
            .map(|from| drop_packets(from, Some(victim)))
            .collect();
        let fault = "a member that receives no packets";
        cut_off_by(&quorum, victim, fault, &to_victim);
    }
}
