//! Tests links that end, at either end and in several ways, and what is sent over the next link.

use std::time::Duration;

use quorum_cnx::{Fault, Reason, Sid};

use crate::{
    deadlines::wait_until,
    fixture::{ABOVE, BELOW, Fixture, JAVA, await_any_down, await_down, recv_until},
};

/// After how long an unanswered knock is repeated.
const RETRY: Duration = Duration::from_millis(100);

#[test]
fn restarted_zookeeper_gets_our_last_frame() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        fixture.java.process.kill();
        let reason = await_down(&ours);
        assert_eq!((reason.fault(), &reason), (Fault::Peer, &Reason::Closed));
        fixture.restart_java();
        assert_eq!(fixture.java.recv(), (sid, b"ours".to_vec()));
        // Counted after it is written, when it may have arrived already.
        wait_until("it is counted", || ours.stats().sent.resent >= 1);
        fixture.exchange(&ours, "again", "again, too");
        fixture.await_one_connection(&ours);
    }
}

#[test]
fn restarted_manager_gets_the_last_message_of_zookeeper() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        ours.halt();
        fixture.java.await_no_link();
        let ours = fixture.ours(sid, |builder| builder);
        recv_until(&ours, "theirs");
        fixture.exchange(&ours, "again", "again, too");
        fixture.await_one_connection(&ours);
    }
}

#[test]
fn both_last_messages_are_resent_after_a_dropped_link() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        ours.soft_halt();
        assert_eq!(await_down(&ours), Reason::Dropped);
        fixture.await_resent(&ours);
        for command in [format!("drop {sid}"), "drop-all".into()] {
            fixture.java.command(&command);
            assert_eq!(await_down(&ours), Reason::Closed);
            fixture.await_resent(&ours);
        }
    }
}

#[test]
fn connection_initiated_by_us_replaces_the_link() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        ours.initiate_connection(Sid(JAVA)).unwrap();
        // A larger one dials. A smaller one knocks: the other side closes the link and dials, and either may be seen first.
        let reason = await_any_down(&ours);
        let was_closed = sid < JAVA && reason == Reason::Closed;
        assert!(was_closed || reason == Reason::Replaced, "{reason}");
        fixture.await_resent(&ours);
    }
}

#[test]
fn connection_initiated_by_zookeeper_replaces_the_link() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        // The smaller ZooKeeper knocks. A knock that crosses a new link is ignored: hence repeated.
        let mut again = None;
        wait_until("the link is replaced", || {
            fixture.java.command(&format!("initiate {sid}"));
            again = fixture.java.recv_within(RETRY);
            again.is_some()
        });
        assert_eq!(again, Some((sid, b"ours".to_vec())));
        recv_until(&ours, "theirs");
        fixture.await_one_connection(&ours);
    }
}
