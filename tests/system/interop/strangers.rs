//! Tests servers that are in the configuration of one side only, or have the sid of the other side.

use quorum_cnx::{
    CnxManager, ConfigBuilder, Event, InitialMessageVersion, Reason, SendError, Sid, Unknown,
};

use crate::{
    deadlines::{DEADLINE, wait_until},
    fixture::{ABOVE, BELOW, Fixture, JAVA, recv_until},
};

/// Sids that are not in the configuration of ZooKeeper's manager, smaller and larger than its own.
const UNCONFIGURED: [i64; 2] = [3, 77];

/// The claimed sid of the next refused connection, and the reason.
#[track_caller]
fn await_rejected(manager: &CnxManager) -> (Option<Sid>, Reason) {
    loop {
        let event = manager.events().recv_timeout(DEADLINE);
        if let Event::Rejected { sid, reason, .. } = event.expect("a connection is refused in time")
        {
            return (sid, reason);
        }
    }
}

#[test]
fn unknown_zookeeper_is_refused() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.manager(sid, sid, &[], |builder| builder);
        fixture.java.send(sid, "let me in");
        let refused = (Some(Sid(JAVA)), Reason::UnknownSid(Sid(JAVA)));
        assert_eq!(await_rejected(&ours), refused);
        let unknown = Err(SendError::UnknownPeer(Sid(JAVA)));
        assert_eq!(ours.to_send(Sid(JAVA), "who are you?"), unknown);
        assert_eq!(ours.stats().received.frames, 0);
    }
}

#[test]
fn unknown_zookeeper_is_admitted_if_allowed() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let admit = Unknown::admit(1);
        let ours = fixture.manager(sid, sid, &[], |builder| builder.unknown(admit));
        fixture.java.send(sid, "let me in");
        recv_until(&ours, "let me in");
        fixture.exchange(&ours, "welcome", "thank you");
        fixture.await_one_connection(&ours);
    }
}

#[test]
fn we_join_a_zookeeper_that_is_not_configured_for_us() {
    let mut fixture = Fixture::new();
    for sid in UNCONFIGURED {
        // A smaller one is dialed back at the address in its initial message. The connection of a larger one is kept.
        let ours = fixture.manager(ABOVE, sid, &[(JAVA, JAVA)], |builder| builder);
        fixture.exchange(&ours, "let me in", "welcome");
        assert_eq!(ours.linked_peers(), [Sid(JAVA)]);
        drop(ours);
        fixture.java.await_no_link();
    }
}

#[test]
fn zookeeper_cannot_dial_us_without_an_advertised_address() {
    let fixture = Fixture::new();
    let [sid, _] = UNCONFIGURED;
    let bare = |builder: ConfigBuilder| builder.initial_message(InitialMessageVersion::Bare);
    let ours = fixture.manager(ABOVE, sid, &[(JAVA, JAVA)], bare);
    wait_until("ZooKeeper logs it", || {
        fixture
            .java
            .process
            .log_text()
            .contains("Invalid server id: 3")
    });
    // Ours knocks again and again, and keeps no connection open.
    wait_until("we knock again", || ours.stats().dials >= 3);
    assert!(ours.stats().connections <= 1);
    assert_eq!(ours.linked_peers(), []);
}

#[test]
fn zookeeper_with_our_sid_is_refused() {
    let mut fixture = Fixture::new();
    // Both have sid 5. In ZooKeeper's configuration ours is 2, or 9.
    for sid in [BELOW, ABOVE] {
        let ours = fixture.manager(sid, JAVA, &[], |builder| builder);
        fixture.java.send(sid, "from your sid");
        assert_eq!(await_rejected(&ours), (Some(Sid(JAVA)), Reason::OwnSid));
        assert_eq!(ours.stats().received.frames, 0);
    }
}
