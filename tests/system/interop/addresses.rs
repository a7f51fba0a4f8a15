//! Tests a ZooKeeper with `multiAddress.enabled=true` of whose addresses the first one does not answer.

use std::time::Duration;

use quorum_cnx::{CnxManager, Sid};
use support::{black_hole::BlackHole, configure};

use crate::fixture::{ABOVE, BELOW, Fixture, JAVA};

/// A manager of ours that knows two addresses of ZooKeeper, the dead one first. A dial of one address does not end by itself in the time
/// of the test (the kernel ends it after `peer_dead_after`), so that the link comes from an attempt at the other address beside it.
fn start(fixture: &Fixture, sid: i64, dead: &BlackHole) -> CnxManager {
    let both = format!("{}|{}", dead.address, fixture.port(JAVA).address);
    let own = fixture.port(sid);
    let servers = [(sid, own.address.to_string()), (JAVA, both)];
    let never = Duration::from_secs(3600);
    let builder = configure(sid, &servers)
        .connect_timeout(never)
        .peer_dead_after(never)
        .listener(own.listen());
    CnxManager::start(builder.build().unwrap()).unwrap()
}

#[test]
fn dead_first_address_holds_up_neither_a_dial_nor_a_knock() {
    let mut fixture = Fixture::with_options(&["--multi-address"]);
    let dead = BlackHole::new();
    for sid in [BELOW, ABOVE] {
        let ours = start(&fixture, sid, &dead);
        fixture.exchange(&ours, "ours", "theirs");
        fixture.await_one_connection(&ours);
        // The address that has answered is the first one of the next dial.
        ours.initiate_connection(Sid(JAVA)).unwrap();
        fixture.await_resent(&ours);
        drop(ours);
        fixture.java.await_no_link();
    }
}
