//! Tests which servers vote, and which sets of them are a quorum.

use std::collections::BTreeSet;

use quorum_cnx::{Sid, ZooCfg};

use crate::quorum::Quorum;

/// The quorum of servers 1 to `servers` with these additional lines.
fn parse(servers: i64, lines: &str) -> Result<Quorum, String> {
    let servers = (1..=servers).map(|sid| format!("server.{sid}=zk{sid}:1:2\n"));
    let text = servers.collect::<String>() + lines;
    Quorum::of(&ZooCfg::parse(&text).unwrap())
}

fn is_met(quorum: &Quorum, sids: &[i64]) -> bool {
    quorum.is_met_by(&sids.iter().copied().map(Sid).collect::<BTreeSet<Sid>>())
}

#[test]
fn more_than_half_of_the_voters_are_a_majority() {
    for (servers, enough) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
        let quorum = parse(servers, "").unwrap();
        assert!(!quorum.is_hierarchical());
        for present in 0..=servers {
            let sids: Vec<i64> = (1..=present).collect();
            assert_eq!(
                is_met(&quorum, &sids),
                present >= enough,
                "{present} of {servers}"
            );
        }
    }
}

#[test]
fn observers_add_nothing_to_a_quorum() {
    let quorum = parse(3, "server.4=zk4:1:2:observer\nserver.5=zk5:1:2:observer").unwrap();
    assert_eq!(
        quorum.voters().collect::<Vec<_>>(),
        [Sid(1), Sid(2), Sid(3)]
    );
    assert!(quorum.is_voter(Sid(3)) && !quorum.is_voter(Sid(4)));
    assert!(!is_met(&quorum, &[1, 4, 5, 6, 7]));
    assert!(is_met(&quorum, &[1, 2]));
}

#[test]
fn hierarchy_needs_majorities_in_a_majority_of_groups() {
    let three = "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9";
    let quorum = parse(9, three).unwrap();
    assert!(quorum.is_hierarchical());
    // Four of nine are enough, and six of nine are not.
    assert!(is_met(&quorum, &[1, 2, 4, 5]));
    assert!(!is_met(&quorum, &[1, 2, 3, 4, 7]));
    assert!(!is_met(&quorum, &[1, 4, 7]));
    // A group without weight does not count: both of the other two must agree.
    let weights = "weight.7=0\nweight.8=0\nweight.9=0\nweight.1=3";
    let quorum = parse(9, &format!("{three}\n{weights}")).unwrap();
    assert!(!quorum.has_weight(Sid(7)) && quorum.has_weight(Sid(2)));
    assert!(is_met(&quorum, &[1, 4, 5]));
    assert!(!is_met(&quorum, &[2, 3, 4, 5, 7, 8, 9]));
    assert!(!is_met(&quorum, &[1, 2, 3, 7, 8, 9]));
    // Half of the weight is not a majority.
    let quorum = parse(2, "group.1=1:2\nweight.1=2\nweight.2=2").unwrap();
    assert!(!is_met(&quorum, &[1]) && is_met(&quorum, &[1, 2]));
}

#[test]
fn configuration_without_a_possible_quorum_is_refused() {
    for (lines, expected) in [
        ("weight.1=2", "no `group.N` line"),
        ("group.1=1:2", "server 3 votes and is in no `group.N` line"),
        (
            "group.1=1:2:3:9",
            "group.1: server 9 does not vote and has no `weight.9` line",
        ),
        (
            "group.1=1:2:3\nweight.1=0\nweight.2=0\nweight.3=0",
            "no group has any weight",
        ),
    ] {
        let why = parse(3, lines).unwrap_err();
        assert!(why.contains(expected), "{lines}: {why}");
    }
    assert!(parse(0, "").unwrap_err().contains("no server votes"));
    let observers = parse(0, "server.1=zk1:1:2:observer").unwrap_err();
    assert!(observers.contains("all are observers"));
}
