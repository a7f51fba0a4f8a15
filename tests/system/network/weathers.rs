//! Networks that lose, repeat, delay and reorder packets, all the time.

use std::time::Duration;

use crate::{
    cable::Weather,
    lan::Lan,
    quorum::Quorum,
    rounds, run_time,
    switch::{Fate, Way, between},
    table::record,
};

const PACE: Duration = Duration::from_millis(50);

/// The default: with the shortest time that is allowed, one lost probe ends an idle link.
const PATIENT: Duration = Duration::from_secs(5);

pub(crate) fn promises_hold_while_packets_are_lost_and_come_twice() {
    let quorum = Quorum::start_as(Lan::new(rounds::members(5)), PACE, PATIENT, |_| {});
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        let bad: Vec<Way> = [
            between(&all, &all, Fate::Lose(15)),
            between(&all, &all, Fate::Double(20)),
        ]
        .concat();
        quorum.lan.treat(&bad);
        run_time::pass(Duration::from_secs(4));
        quorum.lan.treat(&[]);
        let recovery = quorum.settle(&all, run_time::now());
        record("15 % lost, 20 % twice, for 4 s", all.len(), None, recovery);
        // One way only, where it hurts acknowledgements as much as frames.
        let mut one_way = between(&all[..1], &all[1..], Fate::Lose(40));
        one_way.retain(|way| way.from == all[0]);
        quorum.lan.treat(&one_way);
        run_time::pass(Duration::from_secs(3));
        quorum.lan.treat(&[]);
        let recovery = quorum.settle(&all, run_time::now());
        record(
            "40 % of one member lost, for 3 s",
            all.len(),
            None,
            recovery,
        );
    }
}

pub(crate) fn promises_hold_while_packets_are_late_and_overtake_each_other() {
    let weather = Weather {
        at_least_ms: 5,
        at_most_ms: 25,
    };
    let quorum = Quorum::start_as(Lan::with_weather(5, weather), PACE, PATIENT, |_| {});
    let all = quorum.all();
    for _ in 0..rounds::rounds() {
        run_time::pass(Duration::from_secs(2));
        quorum.settle(&all, run_time::now());
        quorum.lan.treat(&between(&all, &all, Fate::Double(20)));
        run_time::pass(Duration::from_secs(2));
        quorum.settle(&all, run_time::now());
        quorum.lan.treat(&between(&all, &all, Fate::Reset));
        run_time::pass(Duration::from_millis(300));
        quorum.lan.treat(&[]);
        let recovery = quorum.settle(&all, run_time::now());
        record(
            "all reset, each way 10 to 50 ms late",
            all.len(),
            None,
            recovery,
        );
    }
}
