//! Tests that the program `election` follows an ensemble of real servers with TLS whose members change: certificates are those of the
//! members as they are now.

use serde_json::json;

use crate::{
    certificates::Kind,
    deadlines::wait_until,
    server::Server,
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, ip, names},
    voter::{Voter, lists},
};

/// The servers at the start. All three real ones are needed for a quorum of four.
const MEMBERS: [i64; 4] = [1, 2, 3, 4];
/// Real servers have smaller and larger ids.
const OURS: i64 = 3;
const JOINER: i64 = 5;
/// The name that ours expects in the joiner's certificate. In those of the others it expects the hosts of their addresses.
const GIVEN_NAME: &str = "five.example";
/// Its ports are those to which a server moves.
const ELSEWHERE: i64 = 6;

/// The lines of a server whose certificate has these names.
fn lines(ensemble: &TlsEnsemble, sid: i64, names: &[String]) -> String {
    let stores = ensemble.stores(sid, Kind::Ecdsa, names);
    stores + TLS_ONLY + "fips-mode=false\nsslQuorumReloadCertFiles=true\n"
}

/// Three real servers, which have elected server 4, and ours, which follows it.
fn start(ensemble: &TlsEnsemble) -> ([Server; 3], Voter) {
    let servers = [1, 2, 4]
        .map(|sid| ensemble.start_member(sid, &MEMBERS, &lines(ensemble, sid, &names(sid))));
    servers[0].await_mode("follower");
    servers[1].await_mode("follower");
    servers[2].await_mode("leader");
    let file = ensemble.write_members(OURS, &MEMBERS, &lines(ensemble, OURS, &names(OURS)));
    let name = format!("{JOINER}={GIVEN_NAME}");
    let options = ["--verbose", "--admit", "0", "--tls-name", &name];
    let mut voter = Voter::start_with(&file.display().to_string(), OURS, &options);
    voter.await_event("reconfigured");
    voter.await_elected(4);
    voter.await_links(&[1, 2, 4]);
    (servers, voter)
}

/// Starts a real server that is no member yet.
fn start_joiner(ensemble: &TlsEnsemble) -> Server {
    let members = [&MEMBERS[..], &[JOINER]].concat();
    let joiner = ensemble.start_member(JOINER, &members, &lines(ensemble, JOINER, &names(JOINER)));
    joiner.await_in_log("LEADER ELECTION TOOK");
    joiner
}

/// Waits until ours has logged that a certificate is none of this server.
#[track_caller]
fn await_wrong_name(voter: &Voter, sid: i64) {
    let text = format!("which is no name of server {sid}");
    wait_until(&text, || voter.process.log_text().contains(&text));
}

pub(crate) fn our_voter_follows_servers_that_join_leave_and_move() {
    let ensemble = TlsEnsemble::new(6);
    let ([first, _second, mut leader], mut voter) = start(&ensemble);
    let joiner = start_joiner(&ensemble);
    leader.reconfigure("-add", &ensemble.server_text(JOINER, JOINER));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([JOINER]), &json!([]), &json!([])]);
    // Its certificate is valid, and one for its address.
    await_wrong_name(&voter, JOINER);
    voter.await_links(&[1, 2, 4]);
    let all = [names(JOINER), vec![GIVEN_NAME.to_owned()]].concat();
    lines(&ensemble, JOINER, &all);
    voter.await_links(&[1, 2, 4, 5]);
    record(
        "reconfig -add",
        &format!("election --tls-name 5={GIVEN_NAME}"),
        "WrongName until its certificate has that name, then linked",
    );

    leader.reconfigure("-remove", "2");
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([]), &json!([2]), &json!([])]);
    voter.await_links(&[1, 4, 5]);
    record("reconfig -remove", "election", "the others are linked");
    leader.reconfigure("-add", &ensemble.server_text(2, 2));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([2]), &json!([]), &json!([])]);
    voter.await_links(&[1, 2, 4, 5]);
    record("reconfig -add", "election", "linked");

    // Its certificate has its former address only.
    leader.reconfigure("-add", &ensemble.server_text(1, ELSEWHERE));
    let line = voter.await_event("reconfigured");
    assert_eq!(lists(&line), [&json!([]), &json!([]), &json!([1])]);
    await_wrong_name(&voter, 1);
    voter.await_links(&[2, 4, 5]);
    let both = [names(1), vec![ip(ELSEWHERE).to_string()]].concat();
    lines(&ensemble, 1, &both);
    voter.await_links(&[1, 2, 4, 5]);
    let elsewhere = ensemble.election(ELSEWHERE);
    first.await_in_log(&format!("my election bind port: /{elsewhere}"));
    record(
        "reconfig -add, an address changes",
        "election",
        "WrongName until its certificate has the new address, then linked",
    );

    // Of the members 1, 3, 4 and 5, three elect the next leader: ours is one of them.
    leader.reconfigure("-remove", "2");
    voter.await_event("reconfigured");
    voter.await_links(&[1, 4, 5]);
    leader.process.kill();
    voter.await_event("leader-lost");
    voter.await_elected(JOINER);
    joiner.await_in_log("LEADING - LEADER ELECTION TOOK");
    voter.await_links(&[1, 5]);
    assert_eq!(voter.stats()["malformed"], 0);
    voter.quit();
}
