//! Tests the program `election` as an observer of a real election: it shows every vote, and casts none.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    deadlines::wait_until,
    server::{Ensemble, Server},
    voter::Voter,
};

/// A vote: sender, round, leader.
type Vote = (i64, i64, i64);

/// The votes of LOOKING servers that a real server has received, from its log.
fn votes_received_by(server: &Server) -> BTreeSet<Vote> {
    let log = server.process.log_text();
    let lines = log.lines().filter(|line| line.contains("Notification:"));
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

/// Adds the content of a line to the votes or the decisions.
fn collect(line: &Value, votes: &mut BTreeSet<Vote>, decided: &mut BTreeSet<(i64, String, i64)>) {
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
fn observer_shows_all_votes_of_an_election_and_casts_none() {
    // Four servers are configured, so that three are a quorum without the observer.
    let ensemble = Ensemble::new(4);
    let observer = Voter::start(&ensemble, 4, &["--observe"]);
    let mut servers: Vec<_> = [1, 2, 3].map(|sid| ensemble.start(sid)).into();
    let (mut votes, mut decided) = (BTreeSet::new(), BTreeSet::new());
    for sid in 1..=3 {
        servers[sid - 1].await_in_log("LEADER ELECTION TOOK");
    }
    servers[2].await_mode("leader");
    servers[0].await_mode("follower");
    servers[1].await_mode("follower");
    let mut has_leader = false;
    let mut watch = |votes: &mut _, decided: &mut BTreeSet<_>| {
        let all = [(1, "following", 3), (2, "following", 3), (3, "leading", 3)];
        let all = all.map(|(sid, state, leader)| (sid, state.to_owned(), leader));
        wait_until("the observer shows the decisions", || {
            while let Some(line) = observer.line_within(Duration::ZERO) {
                collect(&line, votes, decided);
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

    // The leader is killed and restarted. Until it is back there is no quorum, and the others vote.
    let round = votes.iter().map(|(_, round, _)| *round).max().unwrap();
    servers[2].process.kill();
    for server in &servers[..2] {
        wait_until("the others are LOOKING", || {
            let received = votes_received_by(server);
            received.iter().any(|(_, later, _)| *later > round)
        });
    }
    // Removes the log of the old process.
    drop(servers.pop());
    servers.push(ensemble.start(3));
    decided.clear();
    servers[2].await_mode("leader");
    watch(&mut votes, &mut decided);

    // All votes are shown, except those that a better vote of the same server superseded before they were sent.
    let received: BTreeSet<Vote> = servers.iter().flat_map(votes_received_by).collect();
    let received: Vec<&Vote> = received.iter().filter(|(sid, ..)| *sid != 4).collect();
    assert!(received.len() >= 8, "{received:?}");
    for vote @ (sid, round, leader) in received {
        let matches = |(from, of, better): &Vote| from == sid && of == round && better >= leader;
        assert!(votes.iter().any(matches), "{vote:?} is not among {votes:?}");
    }
    // The servers received no vote of the observer: its questions are of an earlier round than every vote.
    let vote_of_observer = servers
        .iter()
        .flat_map(votes_received_by)
        .find(|(sid, round, _)| *sid == 4 && *round >= 0);
    assert_eq!(vote_of_observer, None);
    for server in &servers {
        assert_eq!(server.count_in_log("non-cluster member"), 0);
    }
    observer.quit();
}
