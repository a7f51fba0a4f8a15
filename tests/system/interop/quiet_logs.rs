//! That the program `election` does not fill the logs of healthy real servers.

use crate::{
    server::{Ensemble, Times},
    voter::Voter,
};

const TIMES: Times = Times {
    tick_ms: 500,
    init_limit: 4,
    sync_limit: 4,
};

#[test]
fn a_leader_that_is_watched_logs_no_error() {
    let ensemble = Ensemble::with_times(3, TIMES);
    let servers = [ensemble.start(1), ensemble.start(3)];
    servers[0].await_mode("follower");
    servers[1].await_mode("leader");
    let voter = Voter::start(&ensemble, 2, &["--follow-leader-port"]);
    voter.await_elected(3);
    voter.await_event("leader-reached");
    // It asks its leader every second tick or more seldom: the time in which a leader hangs up on who is silent, three
    // times.
    for _ in 0..6 {
        voter.await_line("a question", |line| {
            assert_ne!(line["event"], "leader-lost");
            assert_ne!(line["event"], "leader-reached", "the leader has hung up");
            line["event"] == "sent" && line["question"] == true
        });
    }
    for server in &servers {
        for complaint in [
            "Unexpected exception in LearnerHandler",
            "non-cluster member",
        ] {
            assert_eq!(server.count_said(complaint), 0, "{complaint}");
        }
    }
    voter.quit();
}

#[test]
fn a_server_that_looks_logs_no_warning_of_who_asks() {
    let ensemble = Ensemble::with_times(3, TIMES);
    let server = ensemble.start(2);
    let onlooker = Voter::start(&ensemble, 1, &["--observe"]);
    for _ in 0..3 {
        onlooker.await_line("an answer", |line| {
            line["event"] == "received" && line["state"] == "looking"
        });
    }
    assert_eq!(server.count_said("non-cluster member"), 0);
    assert_eq!(server.count_said("LEADER ELECTION TOOK"), 0);
    onlooker.quit();
}
