//! The fixture of the tests with a pair of managers: one of ZooKeeper, and one of ours with a smaller or a larger sid.

use std::net::SocketAddr;

use quorum_cnx::{CnxManager, ConfigBuilder, Event, Reason, ReasonKind, Sid};
use support::{
    configure,
    sockets::{Connection, established},
};

use crate::{
    cnx_peer::CnxPeer,
    deadlines::{DEADLINE, wait_until},
    port::Port,
};

/// The sid of ZooKeeper's manager, and two sids for ours: a smaller and a larger one.
pub(crate) const JAVA: i64 = 5;
pub(crate) const BELOW: i64 = 2;
pub(crate) const ABOVE: i64 = 9;

/// ZooKeeper's manager, and reserved ports for it and for ours.
pub(crate) struct Fixture {
    pub(crate) ports: [Port; 3],
    pub(crate) java: CnxPeer,
}

impl Fixture {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with_options(&[])
    }

    #[track_caller]
    pub(crate) fn with_options(options: &[&str]) -> Self {
        let ports = [Port::new(), Port::new(), Port::new()];
        let java = CnxPeer::start(JAVA, &servers(&ports), options);
        Self { ports, java }
    }

    /// Starts ZooKeeper's manager again, on the same port.
    #[track_caller]
    pub(crate) fn restart_java(&mut self) {
        self.java = CnxPeer::start(JAVA, &servers(&self.ports), &[]);
    }

    /// Starts ours with this sid. Its only peer is ZooKeeper's manager.
    pub(crate) fn ours(
        &self,
        sid: i64,
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> CnxManager {
        self.manager(sid, sid, &[(JAVA, JAVA)], shape)
    }

    /// Starts ours with any sid, on the port of `port_of`. `others` are its other servers, each with the owner of its port.
    pub(crate) fn manager(
        &self,
        port_of: i64,
        sid: i64,
        others: &[(i64, i64)],
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> CnxManager {
        let servers = [(sid, port_of)].into_iter().chain(others.iter().copied());
        let servers = servers.map(|(sid, of)| (sid, self.port(of).address.to_string()));
        let builder = configure(sid, &servers.collect::<Vec<_>>());
        let builder = shape(builder).listener(self.port(port_of).listen());
        CnxManager::start(builder.build().unwrap()).unwrap()
    }

    /// The same as `ours`, after one message in each direction: the last message of ours is `ours`, that of ZooKeeper's `theirs`.
    #[track_caller]
    pub(crate) fn linked(&mut self, sid: i64) -> CnxManager {
        let ours = self.ours(sid, |builder| builder);
        self.exchange(&ours, "ours", "theirs");
        ours
    }

    /// Sends a message in each direction, and waits for both.
    #[track_caller]
    pub(crate) fn exchange(&mut self, manager: &CnxManager, ours: &str, theirs: &str) {
        let sid = manager.sid().0;
        manager.to_send(Sid(JAVA), ours.to_owned()).unwrap();
        self.java.recv_until(sid, ours);
        self.java.send(sid, theirs);
        recv_until(manager, theirs);
    }

    /// Waits until the last messages of [`linked`](Self::linked) arrive again, over exactly one connection.
    #[track_caller]
    pub(crate) fn await_resent(&mut self, manager: &CnxManager) {
        assert_eq!(self.java.recv(), (manager.sid().0, b"ours".to_vec()));
        recv_until(manager, "theirs");
        self.await_one_connection(manager);
    }

    pub(crate) fn port(&self, sid: i64) -> &Port {
        &self.ports[[BELOW, JAVA, ABOVE]
            .iter()
            .position(|at| *at == sid)
            .unwrap()]
    }

    /// Waits until exactly one connection joins the two, as reported by both and by the kernel.
    #[track_caller]
    pub(crate) fn await_one_connection(&mut self, manager: &CnxManager) {
        let sid = manager.sid().0;
        // The one with the larger sid has dialed the other.
        let (accepting, dialing) = if sid < JAVA { (sid, JAVA) } else { (JAVA, sid) };
        let (accepting, dialing) = (self.port(accepting).address, self.port(dialing).address);
        wait_until("exactly one connection joins the two", || {
            (established_at(accepting), established_at(dialing)) == (1, 0)
                && manager.linked_peers() == [Sid(JAVA)]
                && manager.stats().connections == 1
                && self.java.linked_peers() == [sid]
                && self.java.thread_count() == 2
        });
        let [(_, own, other)] = self.java.links()[..] else {
            panic!("the link has ended")
        };
        let (at_java, at_ours) = (
            self.port(JAVA).address.port(),
            self.port(sid).address.port(),
        );
        assert!(if sid < JAVA {
            other == at_ours
        } else {
            own == at_java
        });
    }
}

fn servers(ports: &[Port; 3]) -> Vec<(i64, SocketAddr)> {
    [BELOW, JAVA, ABOVE]
        .into_iter()
        .zip(ports.iter().map(|port| port.address))
        .collect()
}

/// Waits for this message of ZooKeeper's manager, and skips those before it: a new link repeats the last message.
#[track_caller]
pub(crate) fn recv_until(manager: &CnxManager, payload: impl AsRef<[u8]>) {
    loop {
        let message = manager
            .recv_timeout(DEADLINE)
            .expect("a message arrives in time");
        assert_eq!(message.from, Sid(JAVA));
        if message.payload == payload.as_ref() {
            return;
        }
    }
}

/// The reason of the next end of the link to ZooKeeper's manager, except a replacement: if it is slow to answer a knock, it gets
/// two, and answers both.
#[track_caller]
pub(crate) fn await_down(manager: &CnxManager) -> Reason {
    loop {
        match await_any_down(manager) {
            Reason::Replaced => {}
            reason => return reason,
        }
    }
}

/// The reason of the next end of the link to ZooKeeper's manager, also a replacement.
#[track_caller]
pub(crate) fn await_any_down(manager: &CnxManager) -> Reason {
    loop {
        let event = manager.events().recv_timeout(DEADLINE);
        match event.expect("the link ends in time") {
            Event::Down { sid, reason, .. } if sid == Sid(JAVA) => return reason,
            _ => {}
        }
    }
}

/// Checks that no link has ended except by a replacement.
#[track_caller]
pub(crate) fn assert_never_down(manager: &CnxManager) {
    let downs = manager.stats().downs;
    let replaced = ReasonKind::Replaced;
    assert!(downs.keys().all(|reason| *reason == replaced), "{downs:?}");
}

/// The number of established connections with this local address.
pub(crate) fn established_at(address: SocketAddr) -> usize {
    let connections = established(std::process::id());
    let is_here = |connection: &&Connection| SocketAddr::V4(connection.local) == address;
    connections.iter().filter(is_here).count()
}
