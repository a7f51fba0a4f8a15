//! A host that is gone without a word and comes back somewhere else, behind the same name.

use std::time::Duration;

use crate::{lan::Lan, quorum::Quorum, rounds, run_time, switch::around, table::record};

pub(crate) fn a_host_that_returns_with_another_address_is_found_by_its_name() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), Duration::from_millis(25));
    let all = quorum.all();
    for victim in rounds::victims(&all) {
        let live = quorum.all_but(&[victim]);
        for is_missed in [true, false] {
            let start = quorum.aged();
            quorum.lan.treat(&around(victim, &all));
            // Whatever its kernel says for it is not heard.
            quorum.kill(victim);
            let noticed = is_missed.then(|| quorum.notice(&live, &[victim], start));
            quorum.lan.readdress(victim);
            quorum.lan.treat(&[]);
            let launch = run_time::now();
            quorum.launch(victim);
            let recovery = quorum.settle(&all, launch);
            quorum.undisturbed(&live, start);
            let fault = if is_missed {
                "a host back with another address"
            } else {
                "the same, before it is missed"
            };
            record(fault, all.len(), noticed, recovery);
        }
    }
}
