//! Tests elections of real servers in which the program `election` is one of the voters.

use std::time::Duration;

use quorum_cnx::{CnxManager, Sid};
use support::configure;

use crate::{
    deadlines::wait_until,
    notification::{Format, Notification, State, Vote},
    server::Ensemble,
    voter::Voter,
};

/// In ticks: longer than any test waits, so that a leader does not give up during a test.
const INIT_LIMIT: u32 = 60;

/// The answer to `srvr` of a server that neither leads nor follows.
const NOT_SERVING: &str = "not currently serving requests";

#[test]
fn vote_of_our_voter_lets_a_single_real_server_lead() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    let server = ensemble.start(2);
    // It gets no answer, and repeats its vote.
    server.await_in_log("Notification time out: 800 ms");
    assert!(server.ask("srvr").unwrap().contains(NOT_SERVING));
    assert_eq!(server.count_in_log("LEADER ELECTION TOOK"), 0);
    let mut voter = Voter::start(&ensemble, 1, &["--follow-leader-port"]);
    assert_eq!(voter.await_elected(2)["by"], "votes");
    server.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.await_event("leader-reached");
    assert_eq!(voter.stats()["malformed"], 0);
    voter.quit();
}

#[test]
fn real_server_accepts_both_notification_formats() {
    for format in ["28", "40"] {
        let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
        let server = ensemble.start(2);
        let voter = Voter::start(&ensemble, 1, &["--format", format]);
        voter.await_elected(2);
        server.await_in_log("LEADING - LEADER ELECTION TOOK");
    }
}

#[test]
fn our_vote_elects_the_other_server_after_the_leader_dies() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    let [server, mut leader] = ensemble.start_two(2, 3);
    let voter = Voter::start(&ensemble, 1, &["--follow-leader-port"]);
    voter.await_elected(3);
    voter.await_event("leader-reached");

    leader.process.kill();
    voter.await_event("leader-lost");
    assert_eq!(voter.await_elected(2)["by"], "votes");
    server.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.quit();
}

#[test]
fn largest_sid_with_a_smaller_zxid_follows() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    {
        // They reach an epoch and a transaction that the third server lacks.
        let [_follower, leader] = ensemble.start_two(1, 2);
        leader.log_a_transaction();
        let late = Voter::start(&ensemble, 3, &[]);
        assert_eq!(late.await_elected(2)["by"], "told");
    }
    // Now all of them are LOOKING. Ours has that epoch, but not that transaction.
    let last = ["--zxid", "0x100000000", "--follow-leader-port"];
    let voter = Voter::start(&ensemble, 3, &last);
    voter.await_line("its own vote", |line| {
        line["event"] == "vote" && line["leader"] == 3
    });
    // Both real servers have the same data. The second one starts first: otherwise the first one and ours would elect each
    // other.
    let second = ensemble.start(2);
    let elected = voter.await_elected(2);
    assert_eq!(
        (&elected["by"], &elected["epoch"]),
        (&"votes".into(), &1.into())
    );
    assert_ne!(elected["zxid"], "0x100000000");
    second.await_in_log("LEADING - LEADER ELECTION TOOK");
    let first = ensemble.start(1);
    first.await_mode("follower");
    second.await_mode("leader");
    voter.quit();
}

/// The messages of `FLEMalformedNotificationMessageTest`, and all prefixes of a valid one.
fn malformed(vote: &Notification, config: &str) -> Vec<Vec<u8>> {
    let whole = vote.write(Format::V2, config);
    let config_length = |length: i32| {
        let mut bytes = whole.clone();
        bytes[40..44].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let mut all = vec![
        config_length(-123),
        config_length(10_000),
        vote.write(Format::V2, "my very invalid config string"),
    ];
    let is_invalid = |length: &usize| ![28, 36].contains(length);
    let prefixes = (1..whole.len()).filter(is_invalid);
    all.extend(prefixes.map(|length| whole[..length].to_vec()));
    all
}

#[test]
fn malformed_notifications_are_counted_and_ignored() {
    let ensemble = Ensemble::new(3);
    let mut voter = Voter::start(&ensemble, 2, &["--zxid", "0"]);
    let listener = ensemble.election(3).listen();
    let builder = configure(3, &ensemble.elections()).listener(listener);
    let ours = CnxManager::start(builder.build().unwrap()).unwrap();
    wait_until("the two are linked", || ours.connected_to_peer(Sid(2)));
    // A vote of server 3 for itself that is worse than the voter's own. It changes nothing.
    let config = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
    let mut notification = Notification {
        state: State::Looking,
        vote: Vote {
            leader: Sid(3),
            zxid: 0,
            round: 1,
            epoch: -1,
        },
        version: 2,
    };
    let all = malformed(&notification, config);
    for (count, bytes) in (1..).zip(&all) {
        ours.to_send(Sid(2), bytes.clone()).unwrap();
        let line = voter.await_event("malformed");
        assert_eq!((&line["count"], &line["from"]), (&count.into(), &3.into()));
        assert!(!line["why"].as_str().unwrap().is_empty());
    }
    notification.vote.epoch = 0;
    let vote = notification.write(Format::V2, config);
    ours.to_send(Sid(2), vote.clone()).unwrap();
    voter.await_elected(3);
    assert_eq!(voter.stats()["malformed"], all.len());
    // Its answer says that it follows, too.
    ours.to_send(Sid(2), vote).unwrap();
    wait_until("the answer arrives", || {
        let Ok(message) = ours.recv_timeout(Duration::from_millis(1)) else {
            return false;
        };
        let (answer, _) = Notification::read(&message.payload).unwrap();
        (answer.state, answer.vote.leader, answer.version) == (State::Following, Sid(3), 2)
    });
    voter.quit();
}
