//! The port at which a leader is found by its followers: held open by a leader, watched by a follower. When it is closed,
//! the leader is gone.
//!
//! Nothing is replicated there. Nothing here blocks the caller: sockets do not wait, and names are looked up on threads of
//! their own.

use std::{net::SocketAddr, time::Duration};

use mio::{Registry, Token};
use quorum_cnx::Address;

use crate::{leader_listener::LeaderListener, leader_watch::LeaderWatch, names::Names};

/// What is to be told of the port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The leader is there.
    Reached,
    /// Nobody is there any more.
    Gone(String),
    /// This leader listens there.
    Listening(SocketAddr),
    /// Something is wrong on this side, and is tried again.
    Trouble(String),
}

pub(crate) struct LeaderPort {
    registry: Registry,
    token: Token,
    names: Names,
    /// True exactly when a leader listens on its port of all addresses of this machine.
    on_all_ips: bool,
    /// How long a leader waits for a follower to say something.
    patience: Duration,
    side: Side,
}

enum Side {
    Unused,
    /// This server leads.
    Leader(LeaderListener),
    /// It follows.
    Follower(LeaderWatch),
}

impl LeaderPort {
    /// Events come with this token.
    pub(crate) fn new(
        registry: Registry,
        token: Token,
        names: Names,
        on_all_ips: bool,
        patience: Duration,
    ) -> Self {
        Self {
            registry,
            token,
            names,
            on_all_ips,
            patience,
            side: Side::Unused,
        }
    }

    /// Opens the port: this server leads, and these are its own addresses.
    pub(crate) fn hold(&mut self, addresses: &[Address]) {
        self.leave();
        let listener = LeaderListener::new(addresses, self.on_all_ips, &mut self.names);
        self.side = Side::Leader(listener);
    }

    /// Watches the port of a leader at these addresses.
    pub(crate) fn watch(&mut self, addresses: Vec<Address>, now: Duration) {
        self.leave();
        self.side = Side::Follower(LeaderWatch::new(addresses, self.patience, now));
    }

    /// Closes everything.
    pub(crate) fn leave(&mut self) {
        self.side = Side::Unused;
    }

    /// When time alone changes something, if it does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.side {
            Side::Unused => None,
            Side::Leader(listener) => listener.deadline(),
            Side::Follower(watch) => watch.deadline(),
        }
    }

    /// Looks what has happened. Costs little when nothing has.
    pub(crate) fn look(&mut self, now: Duration) -> Vec<Word> {
        self.names.take_answers();
        let (poll, mut words) = ((&self.registry, self.token), Vec::new());
        match &mut self.side {
            Side::Unused => {}
            Side::Leader(listener) => listener.look(now, &mut self.names, poll, &mut words),
            Side::Follower(watch) => watch.look(now, &mut self.names, poll, &mut words),
        }
        if words.iter().any(|word| matches!(word, Word::Gone(_))) {
            self.leave();
        }
        words
    }
}
