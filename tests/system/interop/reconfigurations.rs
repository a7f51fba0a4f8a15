//! Tests that the program `election` follows an ensemble of real servers whose members change while all of them run.

use serde_json::json;

use crate::{
    server::{Ensemble, Server},
    voter::{Voter, lists},
};

/// In ticks: longer than any test waits, so that a leader that lacks followers does not give up during a test.
const INIT_LIMIT: u32 = 60;

/// The servers at the start. All three real ones are needed for a quorum of four, so that each of them has all transactions.
const MEMBERS: [i64; 4] = [1, 2, 3, 4];
/// Real servers have smaller and larger ids.
const OURS: i64 = 3;
const JOINER: i64 = 5;
/// Its ports are those to which a server moves.
const ELSEWHERE: i64 = 6;

/// Three real servers, which have elected server 4, and ours, which follows it.
fn start() -> (Ensemble, [Server; 3], Voter) {
    let ensemble = Ensemble::with_init_limit(6, INIT_LIMIT);
    let servers = [1, 2, 4].map(|sid| {
        let file = ensemble.write_members(sid, &MEMBERS);
        ensemble.start_with(sid, &file)
    });
    servers[0].await_mode("follower");
    servers[1].await_mode("follower");
    servers[2].await_mode("leader");
    let file = ensemble.write_members(OURS, &MEMBERS).display().to_string();
    let options = ["--follow-leader-port", "--admit", "0"];
    let mut voter = Voter::start_with(&file, OURS, &options);
    // The first leader gives the configuration of the files its first version.
    let first = voter.await_event("reconfigured");
    assert_eq!(lists(&first), [&json!([]), &json!([]), &json!([])]);
    voter.await_elected(4);
    voter.await_links(&[1, 2, 4]);
    (ensemble, servers, voter)
}

#[test]
fn our_voter_follows_servers_that_join_leave_and_move() {
    let (ensemble, [first, _second, mut leader], mut voter) = start();
    let file = ensemble.write_members(JOINER, &[1, 2, 3, 4, JOINER]);
    let joiner = ensemble.start_with(JOINER, &file);
    joiner.await_in_log("LEADER ELECTION TOOK");
    leader.reconfigure("-add", &ensemble.server_text(JOINER, JOINER));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([JOINER]), &json!([]), &json!([])]);
    assert_eq!(line["voters"], json!([1, 2, 3, 4, 5]));
    voter.await_links(&[1, 2, 4, 5]);

    // The process of the removed server still runs.
    leader.reconfigure("-remove", "2");
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([]), &json!([2]), &json!([])]);
    voter.await_links(&[1, 4, 5]);

    leader.reconfigure("-add", &ensemble.server_text(1, ELSEWHERE));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([]), &json!([]), &json!([1])]);
    let elsewhere = ensemble.election(ELSEWHERE).address;
    first.await_in_log(&format!("my election bind port: /{elsewhere}"));
    voter.await_links(&[1, 4, 5]);

    // Of the members 1, 3, 4 and 5, three elect the next leader: ours is one of them.
    leader.process.kill();
    voter.await_event("leader-lost");
    voter.await_elected(JOINER);
    joiner.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.await_links(&[1, 5]);
    assert_eq!(voter.stats()["malformed"], 0);
    voter.quit();
}

#[test]
fn our_voter_is_removed_added_again_and_moved() {
    let (ensemble, [_first, second, mut leader], mut voter) = start();
    leader.reconfigure("-remove", &OURS.to_string());
    let line = voter.await_event("reconfigured");
    assert_eq!(
        (&line["role"], &line["voters"]),
        (&"observer".into(), &json!([1, 2, 4]))
    );
    // It learns the later configurations from the answers to its questions.
    leader.reconfigure("-add", &ensemble.server_text(OURS, OURS));
    let line = voter.await_event("reconfigured");
    assert_eq!(
        (&line["role"], &line["voters"]),
        (&"voter".into(), &json!([1, 2, 3, 4]))
    );
    leader.reconfigure("-add", &ensemble.server_text(OURS, ELSEWHERE));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([]), &json!([]), &json!([OURS])]);
    let elsewhere = ensemble.election(ELSEWHERE).address.to_string();
    voter.await_line("its new address", |line| {
        line["event"] == "listening" && line["addr"] == elsewhere
    });
    voter.await_links(&[1, 2, 4]);

    // Servers 1 and 2 are no quorum of four without ours.
    leader.process.kill();
    voter.await_event("leader-lost");
    voter.await_elected(2);
    second.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.quit();
}
