//! An address to listen on: what it resolves to, and when it is tried.
//!
//! Nothing here opens a socket or looks up a name.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::proto::Address;

/// An address to listen on, as configured.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) address: Address,
    /// The configured port, or the port that the kernel chose in place of 0.
    pub(super) port: u16,
    pub(super) stage: Stage,
    /// True exactly when connections to one of its addresses are accepted, possibly by the socket of another own address.
    pub(super) is_open: bool,
    /// Tries in a row in which none of its addresses could be bound. Once one is open, tries in a row in which another one failed.
    pub(super) tries: u32,
    /// The addresses of its name at the last lookup. The ports have no meaning.
    pub(super) known: Vec<SocketAddr>,
    /// Why the last lookup without an address gave none.
    pub(super) said: String,
    /// True exactly when its name is being looked up, possibly for an earlier try: one lookup may last for several tries.
    pub(super) asking: bool,
    /// True exactly when the addresses of this server have changed and this is none of them. It is closed when the others are open.
    pub(super) is_retired: bool,
}

/// The state of an address to listen on.
///
/// ```text
///   Waiting --> Looking --> Waiting          (a name)
///   Waiting --> Settled                      (what needs no lookup)
///      each of the first two --tries are used up--> Lost
/// ```
#[derive(Debug)]
pub(super) enum Stage {
    /// It is tried at this time.
    Waiting { until: Instant },
    /// Its name is being looked up. At this time it is tried with the addresses known before.
    Looking { until: Instant },
    /// It is open, and is not tried again: it is not a name.
    Settled,
    /// All tries have failed.
    Lost,
    /// It is none of the addresses any more. Its place is free.
    Closed,
}

impl Own {
    pub(super) fn new(address: Address, stage: Stage) -> Self {
        Self {
            port: address.port(),
            address,
            stage,
            is_open: false,
            tries: 0,
            known: Vec::new(),
            said: String::new(),
            asking: false,
            is_retired: false,
        }
    }

    /// Whether it may still be opened, and none of its addresses is open.
    pub(super) fn is_awaited(&self) -> bool {
        !self.is_open && !matches!(self.stage, Stage::Closed | Stage::Lost)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } | Stage::Looking { until } => Some(until),
            Stage::Settled | Stage::Lost | Stage::Closed => None,
        }
    }

    /// The addresses to bind. The ports have no meaning. Wildcards come first: an address that they take needs no socket.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self.address.ip() {
            Some(ip) => vec![SocketAddr::new(ip, 0)],
            None => {
                let mut addresses = self.known.clone();
                addresses.sort_by_key(|at| rank(at.ip()));
                addresses
            }
        }
    }

    /// One of its addresses, for a report. A literal is spelled as configured.
    pub(super) fn spell(&self, mut at: SocketAddr) -> Address {
        if self.address.ip().is_some() {
            return self.address.clone();
        }
        at.set_port(self.port);
        literal(at)
    }
}

/// `::`, which takes IPv4 as well, comes first, then `0.0.0.0`, then all others.
pub(super) fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() => 0,
        IpAddr::V4(ip) if ip.is_unspecified() => 1,
        _ => 2,
    }
}

pub(super) fn literal(at: SocketAddr) -> Address {
    let host = match at {
        SocketAddr::V6(at) if at.scope_id() != 0 => format!("{}%{}", at.ip(), at.scope_id()),
        at => at.ip().to_string(),
    };
    Address::new(host, at.port())
}
