//! Tests an ensemble of real servers whose voter of ours is killed, paused or cut off, and comes back.

use support::proxy::{PathState, Proxy};

use crate::{server::Ensemble, voter::Voter};

/// In ticks: longer than any test waits, so that a leader does not give up during a test.
const INIT_LIMIT: u32 = 60;

#[test]
fn restarted_voter_rejoins_a_running_ensemble() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    let servers = ensemble.start_two(1, 3);
    let mut voter = Voter::start(&ensemble, 2, &["--follow-leader-port"]);
    voter.await_elected(3);
    let elections = servers[0].count_in_log("LEADER ELECTION TOOK");

    // It is killed and started again twice.
    for _ in 0..2 {
        voter.process.kill();
        voter = Voter::start(&ensemble, 2, &["--follow-leader-port"]);
        let elected = voter.await_elected(3);
        assert_eq!(elected["by"], "told");
        voter.await_event("leader-reached");
    }
    servers[0].await_mode("follower");
    servers[1].await_mode("leader");
    assert_eq!(servers[0].count_in_log("LEADER ELECTION TOOK"), elections);
    voter.quit();
}

#[test]
fn ensemble_waits_for_our_paused_voter_and_recovers() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    let [other, mut leader] = ensemble.start_two(1, 3);
    let voter = Voter::start(&ensemble, 2, &["--follow-leader-port"]);
    voter.await_elected(3);
    // The leader dies while our voter is paused: the remaining server alone is no quorum.
    voter.process.pause();
    leader.process.kill();
    other.await_in_log("Notification time out: 800 ms");
    assert_eq!(other.count_in_log("LEADING - LEADER ELECTION TOOK"), 0);
    voter.process.resume();
    voter.await_event("leader-lost");
    voter.await_elected(1);
    other.await_in_log("LEADING - LEADER ELECTION TOOK");

    // The third server joins them.
    let third = ensemble.start(3);
    third.await_mode("follower");
    other.await_mode("leader");
    voter.quit();
}

#[test]
fn vote_of_a_reconnected_voter_completes_the_quorum() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    // They have a leader before ours starts, and so have more data.
    let [other, mut leader] = ensemble.start_two(1, 2);
    // The server with the largest sid dials all others: every connection goes through the proxies.
    let proxies = [1, 2].map(|sid| Proxy::start(&ensemble.election(sid).address.to_string()));
    let set = |path| proxies.iter().for_each(|proxy| proxy.set(path));
    let address = |sid: i64| match proxies.get(sid as usize - 1) {
        Some(proxy) => proxy.address.parse().unwrap(),
        None => ensemble.election(sid).address,
    };
    let file = ensemble.write_configuration_with(3, address);
    let voter = Voter::start_with(&file.display().to_string(), 3, &[]);
    voter.await_elected(2);

    set(PathState::Stalled);
    let lost = voter.await_event("leader-lost");
    assert!(lost["why"].as_str().unwrap().contains("has not answered"));
    // The others keep their leader.
    leader.await_mode("leader");
    other.await_mode("follower");
    set(PathState::Open);
    assert_eq!(voter.await_elected(2)["by"], "told");

    set(PathState::Stalled);
    leader.process.kill();
    other.await_in_log("Notification time out: 800 ms");
    assert_eq!(other.count_in_log("LEADING - LEADER ELECTION TOOK"), 0);
    set(PathState::Open);
    voter.await_elected(1);
    other.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.quit();
}
