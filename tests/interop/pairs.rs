//! One manager of ZooKeeper's and one of ours.

use std::net::SocketAddr;

use quorum_cnx::{Challenge, CnxManager, ConfigBuilder, Dial, Sid};

use crate::{
    cnx_peer::CnxPeer,
    common::{LONG, configure, eventually},
    port::Port,
};

/// The sid of ZooKeeper's manager, and ours below and above it.
const JAVA: i64 = 5;
const BELOW: i64 = 2;
const ABOVE: i64 = 9;

/// Servers that know each other: one of ZooKeeper's, and a place below and one above it for ours.
struct Stage {
    ports: [Port; 3],
    java: CnxPeer,
}

impl Stage {
    #[track_caller]
    fn new(options: &[&str]) -> Self {
        let ports = [Port::new(), Port::new(), Port::new()];
        let java = CnxPeer::with_options(JAVA, &servers(&ports), options);
        Self { ports, java }
    }

    /// Ours, in one of its places. It knows ZooKeeper's only.
    fn ours(&self, sid: i64, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> CnxManager {
        let servers: Vec<(i64, String)> = servers(&self.ports)
            .into_iter()
            .filter(|(other, _)| [sid, JAVA].contains(other))
            .map(|(sid, at)| (sid, at.to_string()))
            .collect();
        let port = &self.ports[if sid == BELOW { 0 } else { 2 }];
        let builder = shape(configure(sid, &servers)).listener(port.listen());
        CnxManager::start(builder.build().unwrap()).unwrap()
    }
}

fn servers(ports: &[Port; 3]) -> Vec<(i64, SocketAddr)> {
    [BELOW, JAVA, ABOVE]
        .into_iter()
        .zip(ports.iter().map(|port| port.address))
        .collect()
}

/// Waits for this message of ZooKeeper's manager, and skips those before it: a new link begins with the last message.
#[track_caller]
fn recv_until(manager: &CnxManager, payload: &[u8]) {
    loop {
        let message = manager.recv_timeout(LONG).expect("a message comes in time");
        assert_eq!(message.from, Sid(JAVA));
        if message.payload == payload {
            return;
        }
    }
}

#[test]
fn whoever_is_larger_and_whoever_speaks_first_both_are_heard() {
    let mut stage = Stage::new(&[]);
    for sid in [BELOW, ABOVE] {
        for form in [Challenge::Bare, Challenge::V1, Challenge::V2] {
            for we_first in [true, false] {
                let case = format!("{sid} {form:?} {we_first}");
                println!("{case}");
                // On demand: the first to speak is the first to dial.
                let shape = |builder: ConfigBuilder| builder.challenge(form).dial(Dial::OnDemand);
                let ours = stage.ours(sid, shape);
                let (ping, pong) = (format!("{case} ping"), format!("{case} pong"));
                if we_first {
                    ours.to_send(Sid(JAVA), ping.clone()).unwrap();
                    stage.java.recv_until(sid, &ping);
                    stage.java.send(sid, &pong);
                    recv_until(&ours, pong.as_bytes());
                } else {
                    stage.java.send(sid, &ping);
                    recv_until(&ours, ping.as_bytes());
                    ours.to_send(Sid(JAVA), pong.clone()).unwrap();
                    stage.java.recv_until(sid, &pong);
                }
                assert_eq!(ours.linked_peers(), [Sid(JAVA)]);
                drop(ours);
                // What ZooKeeper sends before it has noticed is lost with the old link, and it never tries again.
                eventually("ZooKeeper notices", || stage.java.links().is_empty());
            }
        }
    }
}
