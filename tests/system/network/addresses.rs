//! Tests a host that dies silently and comes back with another address and the same name.

use std::time::Duration;

use crate::{lan::Lan, quorum::Quorum, rounds, run_time, switch::around};

pub(crate) fn host_with_a_new_address_is_found_by_its_name() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), Duration::from_millis(25));
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        for is_noticed in [true, false] {
            let start = quorum.let_links_age();
            quorum.lan.set_rules(&around(victim, &all));
            // The packets of its kernel are dropped, too.
            quorum.kill(victim);
            let noticed = is_noticed.then(|| quorum.wait_noticed(&live, &[victim], start));
            quorum.lan.readdress(victim);
            quorum.lan.set_rules(&[]);
            let launch = run_time::now();
            quorum.launch(victim);
            let recovery = quorum.wait_recovered(&all, launch);
            quorum.assert_no_link_ended(&live, start);
            let fault = if is_noticed {
                "a host back with another address"
            } else {
                "the same, before its death is noticed"
            };
            quorum.record(fault, noticed, recovery);
        }
    }
}
