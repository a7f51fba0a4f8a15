//! Tests a pair of one manager of ZooKeeper and one of ours: which of them dials, and the bytes of the initial message.

use quorum_cnx::{ConfigBuilder, Dial, InitialMessageVersion, Sid};
use support::{TestConnection, V1, V2};

use crate::fixture::{ABOVE, BELOW, Fixture, JAVA, recv_until};

#[test]
fn frames_arrive_for_each_sid_order_version_and_first_sender() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        for form in [
            InitialMessageVersion::Bare,
            InitialMessageVersion::V1,
            InitialMessageVersion::V2,
        ] {
            for we_first in [true, false] {
                let case = format!("{sid} {form:?} {we_first}");
                println!("{case}");
                // On demand: the first sender is the first to dial.
                let shape =
                    |builder: ConfigBuilder| builder.initial_message(form).dial(Dial::OnDemand);
                let ours = fixture.ours(sid, shape);
                let (ping, pong) = (format!("{case} ping"), format!("{case} pong"));
                if we_first {
                    ours.to_send(Sid(JAVA), ping.clone()).unwrap();
                    fixture.java.recv_until(sid, &ping);
                    fixture.java.send(sid, &pong);
                    recv_until(&ours, &pong);
                } else {
                    fixture.java.send(sid, &ping);
                    recv_until(&ours, &ping);
                    ours.to_send(Sid(JAVA), pong.clone()).unwrap();
                    fixture.java.recv_until(sid, &pong);
                }
                fixture.await_one_connection(&ours);
                drop(ours);
                // A frame that ZooKeeper sends before it has noticed the end is lost with the old link, and never repeated.
                fixture.java.await_no_link();
            }
        }
    }
}

#[test]
fn eager_manager_links_without_a_frame() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.ours(sid, |builder| builder);
        fixture.await_one_connection(&ours);
        assert_eq!(ours.stats().sent.accepted, 0);
        drop(ours);
        fixture.java.await_no_link();
    }
}

#[test]
fn both_initial_message_versions_of_zookeeper_are_read() {
    for (options, version) in [(&[][..], V1), (&["--multi-address"][..], V2)] {
        let mut fixture = Fixture::with_options(options);
        // The bytes of its initial message.
        let listener = fixture.port(BELOW).listen();
        fixture.java.send(BELOW, "first");
        let mut connection = TestConnection::accept(&listener);
        let message = connection.read_initial_message();
        assert_eq!((message.version, message.sid), (Some(version), JAVA));
        assert_eq!(message.addresses, fixture.port(JAVA).address.to_string());
        assert_eq!(connection.recv(), b"first");
        drop((connection, listener));
        fixture.java.await_no_link();

        for sid in [BELOW, ABOVE] {
            let ours = fixture.linked(sid);
            fixture.await_one_connection(&ours);
            drop(ours);
            fixture.java.await_no_link();
        }
    }
}
