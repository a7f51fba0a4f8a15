//! Those who are in one side's configuration only, or claim a sid that is taken.

use quorum_cnx::{
    CnxManager, ConfigBuilder, Event, InitialMessageVersion, Reason, SendError, Sid, Unknown,
};
use support::configure;

use crate::{
    patience::{PATIENCE, patiently},
    stage::{ABOVE, BELOW, JAVA, Stage, recv_until},
};

/// Servers that ZooKeeper's manager has never heard of, below and above it.
const UNHEARD_OF: [i64; 2] = [3, 77];

/// One of ours on a port of the stage, with any sid and any idea of who else there is.
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

/// Whom the next refused connection claimed to be from, and why it was refused.
#[track_caller]
fn await_rejected(manager: &CnxManager) -> (Option<Sid>, Reason) {
    loop {
        let event = manager.events().recv_timeout(PATIENCE);
        if let Event::Rejected { sid, reason, .. } = event.expect("it is refused in time") {
            return (sid, reason);
        }
    }
}

#[test]
fn a_zookeeper_that_we_do_not_know_is_refused() {
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
fn a_zookeeper_that_we_do_not_know_joins_when_that_is_allowed() {
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
fn we_join_a_zookeeper_that_does_not_know_us() {
    let mut stage = Stage::new();
    for sid in UNHEARD_OF {
        // With its address in the message, a smaller one is dialed back; a larger one is taken as it comes.
        let ours = manager(&stage, ABOVE, sid, &[(JAVA, JAVA)], |builder| builder);
        stage.exchange(&ours, "let me in", "welcome");
        assert_eq!(ours.linked_peers(), [Sid(JAVA)]);
        drop(ours);
        patiently("ZooKeeper notices", || stage.java.links().is_empty());
    }
}

#[test]
fn without_an_address_a_zookeeper_that_does_not_know_us_cannot_dial_us() {
    let stage = Stage::new();
    let [sid, _] = UNHEARD_OF;
    let bare = |builder: ConfigBuilder| builder.initial_message(InitialMessageVersion::Bare);
    let ours = manager(&stage, ABOVE, sid, &[(JAVA, JAVA)], bare);
    patiently("ZooKeeper says so", || {
        stage.java.process.said().contains("Invalid server id: 3")
    });
    // It knocks again and again, and keeps nothing open.
    patiently("we knock again", || ours.stats().dials >= 3);
    assert!(ours.stats().connections <= 1);
    assert_eq!(ours.linked_peers(), []);
}

#[test]
fn a_zookeeper_with_our_own_sid_is_refused() {
    let mut stage = Stage::new();
    // Both are 5; it believes that we are 2, or 9.
    for place in [BELOW, ABOVE] {
        let ours = manager(&stage, place, JAVA, &[], |builder| builder);
        stage.java.send(place, "I am you");
        assert_eq!(await_rejected(&ours), (Some(Sid(JAVA)), Reason::OwnSid));
        assert_eq!(ours.stats().received.frames, 0);
    }
}
