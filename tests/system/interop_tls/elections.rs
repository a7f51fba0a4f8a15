//! Tests that a real server is elected by votes that arrive over TLS.

use crate::{
    certificates::Kind,
    deadlines::{DEADLINE, wait_until},
    member::Member,
    notification::State,
    server::Server,
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, names},
};

const LED: &str = "LEADING - LEADER ELECTION TOOK";

/// The lines of a server of three.
fn lines(ensemble: &TlsEnsemble, sid: i64) -> String {
    ensemble.stores(sid, Kind::Ecdsa, &names(sid)) + TLS_ONLY + "fips-mode=false\n"
}

/// Votes for whom the real server votes, until that one leads.
#[track_caller]
fn elect(voter: &Member, real: &Server) {
    wait_until("our vote elects the real server", || {
        let proposal = voter.recv().filter(|proposal| {
            proposal.state == State::Looking && proposal.vote.leader.0 == voter.real
        });
        if let Some(proposal) = proposal {
            voter.send(State::Looking, proposal.vote);
        }
        real.count_in_log(LED) > 0
    });
}

fn check(real: i64, ours: i64) {
    let ensemble = TlsEnsemble::new(3);
    // Both read one file and the same stores: the certificate has the names of both.
    let all = [names(real), names(ours)].concat();
    let lines = ensemble.stores(real, Kind::Ecdsa, &all) + TLS_ONLY + "fips-mode=false\n";
    let server = ensemble.start(real, &lines, &[]);
    let file = ensemble.zoo_cfg(real);
    let voter = ensemble.ours_of(ours, &file, real, |builder| builder);
    assert_eq!(voter.await_up(), ours > real);
    assert_eq!(server.count_in_log(LED), 0);
    elect(&voter, &server);
    voter.assert_down_by_knocks_only();
    let order = if ours > real { "we dial" } else { "they dial" };
    record(
        "one of three, alone",
        &format!("same zoo.cfg and stores, votes, {order}"),
        "it is elected by our vote",
    );
}

pub(crate) fn vote_of_a_smaller_sid_elects_a_real_server() {
    check(2, 1);
}

pub(crate) fn vote_of_a_larger_sid_elects_a_real_server() {
    check(2, 3);
}

pub(crate) fn our_vote_elects_after_the_leader_dies() {
    let ensemble = TlsEnsemble::new(3);
    let [follower, mut leader] = [2, 3].map(|sid| ensemble.start(sid, &lines(&ensemble, sid), &[]));
    follower.await_mode("follower");
    leader.await_mode("leader");
    let voter = ensemble.ours(1, &[2, 3], &lines(&ensemble, 1), |builder| builder);
    assert!(voter.manager.wait_linked(2, DEADLINE));
    leader.process.kill();
    elect(&voter, &follower);
    record(
        "leader of three is killed",
        "votes, they dial",
        "the other one is elected by our vote",
    );
}
