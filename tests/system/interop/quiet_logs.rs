//! Tests that the program `election` does not fill the logs of healthy real servers.

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
fn watched_leader_logs_no_error() {
    let ensemble = Ensemble::with_times(3, TIMES);
    let servers = ensemble.start_two(1, 3);
    let voter = Voter::start(&ensemble, 2, &["--follow-leader-port"]);
    voter.await_elected(3);
    voter.await_event("leader-reached");
    // It asks its leader at most every second tick. Six questions take three times as long as a leader waits for a silent
    // connection.
    for _ in 0..6 {
        voter.await_line("a question", |line| {
            assert_ne!(line["event"], "leader-lost");
            assert_ne!(
                line["event"], "leader-reached",
                "the leader has closed the connection"
            );
            line["event"] == "sent" && line["question"] == true
        });
    }
    for server in &servers {
        for message in [
            "Unexpected exception in LearnerHandler",
            "non-cluster member",
        ] {
            assert_eq!(server.count_in_log(message), 0, "{message}");
        }
    }
    voter.quit();
}

#[test]
fn looking_server_logs_no_warning_about_a_question() {
    let ensemble = Ensemble::with_times(3, TIMES);
    let server = ensemble.start(2);
    let observer = Voter::start(&ensemble, 1, &["--observe"]);
    for _ in 0..3 {
        observer.await_line("an answer", |line| {
            line["event"] == "received" && line["state"] == "looking"
        });
    }
    assert_eq!(server.count_in_log("non-cluster member"), 0);
    assert_eq!(server.count_in_log("LEADER ELECTION TOOK"), 0);
    observer.quit();
}
