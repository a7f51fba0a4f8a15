//! Tests servers that are in the configuration of one side only, or have the sid of the other side.

use quorum_cnx::{
    CnxManager, ConfigBuilder, Event, InitialMessageVersion, Reason, SendError, Sid, Unknown,
};
use support::configure;

use crate::{
    patience::{PATIENCE, patiently},
    stage::{ABOVE, BELOW, JAVA, Stage, recv_until},
};

/// Sids that are not in the configuration of ZooKeeper's manager, smaller and larger than its own.
const UNCONFIGURED: [i64; 2] = [3, 77];

/// One of ours with any sid, on the port of `port_of`. `others` are its other servers, each with the owner of its port.
fn manager(
    stage: &Stage,
    port_of: i64,
    sid: i64,
    others: &[(i64, i64)],
    shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> CnxManager {
    let at = |of: i64| stage.port(of).address.to_string();
    let mut servers = vec![(sid, at(port_of))];
    servers.extend(others.iter().map(|(sid, of)| (*sid, at(*of))));
    let builder = shape(configure(sid, &servers)).listener(stage.port(port_of).listen());
    CnxManager::start(builder.build().unwrap()).unwrap()
}

/// The claimed sid of the next refused connection, and the reason.
#[track_caller]
fn await_rejected(manager: &CnxManager) -> (Option<Sid>, Reason) {
    loop {
        let event = manager.events().recv_timeout(PATIENCE);
        if let Event::Rejected { sid, reason, .. } = event.expect("a connection is refused in time")
        {
            return (sid, reason);
        }
    }
}

#[test]
fn unknown_zookeeper_is_refused() {
    let mut stage = Stage::new();
    for sid in [BELOW, ABOVE] {
        let ours = manager(&stage, sid, sid, &[], |builder| builder);
        stage.java.send(sid, "let me in");
        let refused = (Some(Sid(JAVA)), Reason::UnknownSid(Sid(JAVA)));
        assert_eq!(await_rejected(&ours), refused);
        let unknown = Err(SendError::UnknownPeer(Sid(JAVA)));
        assert_eq!(ours.to_send(Sid(JAVA), "who are you?"), unknown);
        assert_eq!(ours.stats().received.frames, 0);
    }
}

#[test]
fn unknown_zookeeper_is_admitted_if_allowed() {
    let mut stage = Stage::new();
    for sid in [BELOW, ABOVE] {
        let admit = Unknown::Admit { max: 1 };
        let ours = manager(&stage, sid, sid, &[], |builder| builder.unknown(admit));
        stage.java.send(sid, "let me in");
        recv_until(&ours, "let me in");
        stage.exchange(&ours, "welcome", "thank you");
        stage.await_one_connection(&ours);
    }
}

#[test]
fn we_join_a_zookeeper_that_is_not_configured_for_us() {
    let mut stage = Stage::new();
    for sid in UNCONFIGURED {
        // A smaller one is dialed back at the address in its initial message. The connection of a larger one is kept.
        let ours = manager(&stage, ABOVE, sid, &[(JAVA, JAVA)], |builder| builder);
        stage.exchange(&ours, "let me in", "welcome");
        assert_eq!(ours.linked_peers(), [Sid(JAVA)]);
        drop(ours);
        patiently("ZooKeeper has no link", || stage.java.links().is_empty());
    }
}

#[test]
fn zookeeper_cannot_dial_us_without_an_advertised_address() {
    let stage = Stage::new();
    let [sid, _] = UNCONFIGURED;
    let bare = |builder: ConfigBuilder| builder.initial_message(InitialMessageVersion::Bare);
    let ours = manager(&stage, ABOVE, sid, &[(JAVA, JAVA)], bare);
    patiently("ZooKeeper logs it", || {
        stage
            .java
            .process
            .log_text()
            .contains("Invalid server id: 3")
    });
    // Ours knocks again and again, and keeps no connection open.
    patiently("we knock again", || ours.stats().dials >= 3);
    assert!(ours.stats().connections <= 1);
    assert_eq!(ours.linked_peers(), []);
}

#[test]
fn zookeeper_with_our_sid_is_refused() {
    let mut stage = Stage::new();
    // Both have sid 5. In ZooKeeper's configuration ours is 2, or 9.
    for sid in [BELOW, ABOVE] {
        let ours = manager(&stage, sid, JAVA, &[], |builder| builder);
        stage.java.send(sid, "from your sid");
        assert_eq!(await_rejected(&ours), (Some(Sid(JAVA)), Reason::OwnSid));
        assert_eq!(ours.stats().received.frames, 0);
    }
}
