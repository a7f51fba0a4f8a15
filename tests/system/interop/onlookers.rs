//! The program `election` as an onlooker of a real election: that it shows every vote, and changes none.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    patience::patiently,
    server::{Ensemble, Server},
    voter::Voter,
};

/// Who votes in which round for whom.
type Vote = (i64, i64, i64);

/// The votes that a real server says in its log to have heard of servers that look.
fn heard_by(server: &Server) -> BTreeSet<Vote> {
    let said = server.process.said();
    let lines = said.lines().filter(|line| line.contains("Notification:"));
    lines
        .filter(|line| line.contains("n.state:LOOKING"))
        .filter_map(|line| {
            let field = |name: &str| {
                let (_, rest) = line.split_once(name)?;
                let digits = rest.trim_start_matches("0x");
                let end = digits.find([',', ' ', ';']).unwrap_or(digits.len());
                i64::from_str_radix(&digits[..end], 16).ok()
            };
            Some((field("n.sid:")?, field("n.round:")?, field("n.leader:")?))
        })
        .collect()
}

fn shown(line: &Value, votes: &mut BTreeSet<Vote>, decided: &mut BTreeSet<(i64, String, i64)>) {
    let (Some(from), Some(leader)) = (line["from"].as_i64(), line["leader"].as_i64()) else {
        return;
    };
    if line["event"] != "received" {
        return;
    }
    match line["state"].as_str() {
        Some("looking") => drop(votes.insert((from, line["round"].as_i64().unwrap(), leader))),
        Some(state) => drop(decided.insert((from, state.to_owned(), leader))),
        None => {}
    }
}

#[test]
fn an_onlooker_shows_all_votes_of_a_real_election_and_casts_none() {
    // Four are configured, so that the three make a quorum without the onlooker.
    let ensemble = Ensemble::new(4);
    let onlooker = Voter::start(&ensemble, 4, &["--observe"]);
    let mut servers: Vec<_> = [1, 2, 3].map(|sid| ensemble.start(sid)).into();
    let (mut votes, mut decided) = (BTreeSet::new(), BTreeSet::new());
    for sid in 1..=3 {
        servers[sid - 1].await_said("LEADER ELECTION TOOK");
    }
    servers[2].await_mode("leader");
    servers[0].await_mode("follower");
    servers[1].await_mode("follower");
    let mut has_leader = false;
    let mut watch = |votes: &mut _, decided: &mut BTreeSet<_>| {
        let all = [(1, "following", 3), (2, "following", 3), (3, "leading", 3)];
        let all = all.map(|(sid, state, leader)| (sid, state.to_owned(), leader));
        patiently("it shows what they have decided", || {
            while let Some(line) = onlooker.program.event_within(Duration::ZERO) {
                shown(&line, votes, decided);
                assert_ne!(line["event"], "vote");
                assert!(
                    line["event"] != "sent" || line["question"] == true,
                    "{line}"
                );
                if line["event"] == "elected" {
                    let what = (&line["leader"], &line["state"]);
                    assert_eq!(what, (&3.into(), &"observing".into()));
                    has_leader = true;
                }
            }
            has_leader && all.iter().all(|one| decided.contains(one))
        });
        has_leader = false;
    };
    watch(&mut votes, &mut decided);

    // The leader starts again; until it does nobody has a quorum, and everybody votes.
    let round = votes.iter().map(|(_, round, _)| *round).max().unwrap();
    servers[2].process.kill();
    for server in &servers[..2] {
        patiently("the others look", || {
            let heard = heard_by(server);
            heard.iter().any(|(_, later, _)| *later > round)
        });
    }
    // With the old one goes its log.
    drop(servers.pop());
    servers.push(ensemble.start(3));
    decided.clear();
    servers[2].await_mode("leader");
    watch(&mut votes, &mut decided);

    // What is replaced by a better vote before it leaves is nobody's vote any more; all others are shown.
    let heard: BTreeSet<Vote> = servers.iter().flat_map(heard_by).collect();
    let heard: Vec<&Vote> = heard.iter().filter(|(sid, ..)| *sid != 4).collect();
    assert!(heard.len() >= 8, "{heard:?}");
    for vote @ (sid, round, leader) in heard {
        let is_it = |(from, of, better): &Vote| from == sid && of == round && better >= leader;
        assert!(votes.iter().any(is_it), "{vote:?} is not among {votes:?}");
    }
    // They never heard of any vote of the onlooker: what it asks is of a round before all others.
    let foreign = servers
        .iter()
        .flat_map(heard_by)
        .find(|(sid, round, _)| *sid == 4 && *round >= 0);
    assert_eq!(foreign, None);
    for server in &servers {
        assert_eq!(server.count_said("non-cluster member"), 0);
    }
    onlooker.quit();
}
