//! Cables that are pulled, and packets that vanish without a word, both ways and one way.

use std::time::Duration;

use crate::{
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, Way, around},
    table::record,
};

const PACE: Duration = Duration::from_millis(25);

pub(crate) fn a_cable_that_is_pulled_is_noticed_and_put_back_brings_the_member_back() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    for victim in rounds::victims(&quorum.all()) {
        let live = quorum.all_but(&[victim]);
        for silent in [false, true] {
            let fault = if silent {
                "a cable that carries nothing"
            } else {
                "a cable pulled"
            };
            let start = quorum.aged();
            if silent {
                quorum.lan.treat(&around(victim, &quorum.all()));
            } else {
                quorum.lan.pull(victim);
            }
            let noticed = quorum.notice(&live, &[victim], start);
            let alone = quorum.notice(&[victim], &live, start);
            quorum.undisturbed(&live, start);
            quorum.settle(&live, run_time::now());
            if silent {
                quorum.lan.treat(&[]);
            } else {
                quorum.lan.plug(victim);
            }
            let recovery = quorum.settle(&quorum.all(), run_time::now());
            quorum.undisturbed(&live, start);
            record(
                fault,
                quorum.all().len(),
                Some(noticed.max(alone)),
                recovery,
            );
        }
    }
}

pub(crate) fn a_member_that_is_not_heard_or_does_not_hear_is_no_member_until_it_is() {
    let quorum = Quorum::start(Lan::new(rounds::members(5)), PACE);
    for victim in rounds::victims(&quorum.all()) {
        let live = quorum.all_but(&[victim]);
        for (fault, deaf) in [
            ("a member not heard", false),
            ("a member that hears nothing", true),
        ] {
            let ways: Vec<Way> = if deaf {
                let to = |from: &i64| Way {
                    from: *from,
                    to: Some(victim),
                    fate: Fate::Drop,
                };
                live.iter().map(to).collect()
            } else {
                vec![Way {
                    from: victim,
                    to: None,
                    fate: Fate::Drop,
                }]
            };
            let start = quorum.aged();
            quorum.lan.treat(&ways);
            let noticed = quorum.notice(&live, &[victim], start);
            let alone = quorum.notice(&[victim], &live, start);
            quorum.settle(&live, run_time::now());
            quorum.lan.treat(&[]);
            let recovery = quorum.settle(&quorum.all(), run_time::now());
            quorum.undisturbed(&live, start);
            record(
                fault,
                quorum.all().len(),
                Some(noticed.max(alone)),
                recovery,
            );
        }
    }
}
