//! Elections of real servers in which the program `election` is one of the voters, and elections of nobody else.

use crate::{server::Ensemble, voter::Voter};

/// In ticks: longer than any test waits, so that a leader is still one when somebody looks.
const INIT_LIMIT: u32 = 60;

#[test]
fn a_lone_real_server_leads_by_the_vote_of_our_voter() {
    let ensemble = Ensemble::with_init_limit(3, INIT_LIMIT);
    let server = ensemble.start(2);
    // Nobody answers it, and it tells so again and again.
    server.await_said("Notification time out: 800 ms");
    assert!(!server.process.said().contains("LEADER ELECTION TOOK"));
    let mut voter = Voter::start(&ensemble, 1, &["--follow-leader-port"]);
    let elected = voter.await_elected(2);
    assert_eq!(elected["by"], "votes");
    server.await_said("LEADING - LEADER ELECTION TOOK");
    voter.await_event("leader-reached");
    assert_eq!(voter.stats()["malformed"], 0);
    voter.quit();
}
