//! The quorum port, at which followers connect to their leader. A leader keeps it open, and a follower watches it. When it is
//! closed, the leader is gone.
//!
//! Nothing is replicated over it. Nothing here blocks: sockets are non-blocking, and names are looked up on threads of their own.

use std::{net::SocketAddr, time::Duration};

use mio::{Registry, Token};
use quorum_cnx::Address;

use crate::{leader_listener::LeaderListener, leader_watch::LeaderWatch, names::Names};

/// An event of the port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PortEvent {
    /// This follower is connected to the leader.
    Reached,
    /// The leader is gone, for this reason.
    Gone(String),
    /// This leader listens at this address.
    Listening(SocketAddr),
    /// A failure on this side. The operation is tried again.
    Trouble(String),
}

pub(crate) struct LeaderPort {
    registry: Registry,
    token: Token,
    names: Names,
    /// True exactly when a leader listens at all addresses of this machine.
    on_all_ips: bool,
    /// How long a leader waits for bytes of a follower.
    follower_timeout: Duration,
    side: Side,
}

enum Side {
    Unused,
    /// This server leads.
    Leader(LeaderListener),
    /// This server follows.
    Follower(LeaderWatch),
}

impl LeaderPort {
    /// Registers its sockets with this token.
    pub(crate) fn new(
        registry: Registry,
        token: Token,
        names: Names,
        on_all_ips: bool,
        follower_timeout: Duration,
    ) -> Self {
        Self {
            registry,
            token,
            names,
            on_all_ips,
            follower_timeout,
            side: Side::Unused,
        }
    }

    /// Listens at these addresses, since this server leads.
    pub(crate) fn hold(&mut self, addresses: &[Address]) {
        self.leave();
        let listener = LeaderListener::new(addresses, self.on_all_ips, &mut self.names);
        self.side = Side::Leader(listener);
    }

    /// Watches the port of a leader at these addresses.
    pub(crate) fn watch(&mut self, addresses: Vec<Address>, now: Duration) {
        self.leave();
        self.side = Side::Follower(LeaderWatch::new(addresses, self.follower_timeout, now));
    }

    /// Closes everything.
    pub(crate) fn leave(&mut self) {
        self.side = Side::Unused;
    }

    /// When [`look`](Self::look) must be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.side {
            Side::Unused => None,
            Side::Leader(listener) => listener.deadline(),
            Side::Follower(watch) => watch.deadline(),
        }
    }

    /// Handles socket events, answers of lookups, and deadlines.
    pub(crate) fn look(&mut self, now: Duration) -> Vec<PortEvent> {
        self.names.take_answers();
        let (poll, mut events) = ((&self.registry, self.token), Vec::new());
        match &mut self.side {
            Side::Unused => {}
            Side::Leader(listener) => listener.look(now, &mut self.names, poll, &mut events),
            Side::Follower(watch) => watch.look(now, &mut self.names, poll, &mut events),
        }
        if events
            .iter()
            .any(|event| matches!(event, PortEvent::Gone(_)))
        {
            self.leave();
        }
        events
    }
}
