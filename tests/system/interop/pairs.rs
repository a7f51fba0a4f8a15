//! Tests a pair of one manager of ZooKeeper and one of ours: which of them dials, and the bytes of the initial message.

use quorum_cnx::{ConfigBuilder, Dial, InitialMessageVersion, Sid};
use support::{Puppet, V1, V2};

use crate::{
    patience::patiently,
    stage::{ABOVE, BELOW, JAVA, Stage, recv_until},
};

#[test]
fn frames_arrive_for_each_sid_order_version_and_first_sender() {
    let mut stage = Stage::new();
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
                let ours = stage.ours(sid, shape);
                let (ping, pong) = (format!("{case} ping"), format!("{case} pong"));
                if we_first {
                    ours.to_send(Sid(JAVA), ping.clone()).unwrap();
                    stage.java.recv_until(sid, &ping);
                    stage.java.send(sid, &pong);
                    recv_until(&ours, &pong);
                } else {
                    stage.java.send(sid, &ping);
                    recv_until(&ours, &ping);
                    ours.to_send(Sid(JAVA), pong.clone()).unwrap();
                    stage.java.recv_until(sid, &pong);
                }
                stage.await_one_connection(&ours);
                drop(ours);
                // A frame that ZooKeeper sends before it has noticed the end is lost with the old link, and never repeated.
                patiently("ZooKeeper has no link", || stage.java.links().is_empty());
            }
        }
    }
}

#[test]
fn eager_manager_links_without_a_frame() {
    let mut stage = Stage::new();
    for sid in [BELOW, ABOVE] {
        let ours = stage.ours(sid, |builder| builder);
        stage.await_one_connection(&ours);
        assert_eq!(ours.stats().sent.accepted, 0);
        drop(ours);
        patiently("ZooKeeper has no link", || stage.java.links().is_empty());
    }
}

#[test]
fn both_initial_message_versions_of_zookeeper_are_read() {
    for (options, version) in [(&[][..], V1), (&["--multi-address"][..], V2)] {
        let mut stage = Stage::with_options(options);
        // The bytes of its initial message.
        let listener = stage.port(BELOW).listen();
        stage.java.send(BELOW, "first");
        let mut connection = Puppet::accept(&listener);
        let message = connection.hello();
        assert_eq!((message.version, message.sid), (Some(version), JAVA));
        assert_eq!(message.addresses, stage.port(JAVA).address.to_string());
        assert_eq!(connection.recv(), b"first");
        drop((connection, listener));
        patiently("ZooKeeper has no link", || stage.java.links().is_empty());

        for sid in [BELOW, ABOVE] {
            let ours = stage.linked(sid);
            stage.await_one_connection(&ours);
            drop(ours);
            patiently("ZooKeeper has no link", || stage.java.links().is_empty());
        }
    }
}
