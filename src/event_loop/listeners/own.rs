//! An address to listen on: what it means, and when it is tried.
//!
//! Nothing here opens anything or looks a name up.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::proto::Address;

/// An address to listen on, as it was configured.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) address: Address,
    /// The configured port, or the one that the kernel chose in place of 0.
    pub(super) port: u16,
    pub(super) stage: Stage,
    /// True exactly when connections to one of its addresses are accepted, be it by a socket of another own address.
    pub(super) is_open: bool,
    /// How often in a row none of its addresses could be bound; once one is open, how often others could not.
    pub(super) tries: u32,
    /// Where its name pointed to when it was last looked up, with ports that mean nothing.
    pub(super) known: Vec<SocketAddr>,
    /// What the resolver said instead, the last time.
    pub(super) said: String,
    /// True exactly when its name is being looked up, be it for an earlier try: a lookup may outlast several.
    pub(super) asking: bool,
}

/// What becomes of an address to listen on.
///
/// ```text
///   Waiting --> Looking --> Waiting          (a name)
///   Waiting --> Settled                      (what needs no lookup)
///      each of the first two --tries are used up--> Lost
/// ```
#[derive(Debug)]
pub(super) enum Stage {
    /// To be tried at this time.
    Waiting { until: Instant },
    /// Its name is being looked up; at this time it is tried with what was known before.
    Looking { until: Instant },
    /// It is open, and no name can change that.
    Settled,
    /// The tries are used up.
    Lost,
}

impl Own {
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } | Stage::Looking { until } => Some(until),
            Stage::Settled | Stage::Lost => None,
        }
    }

    /// What is to be bound, with ports that mean nothing. Wildcards come first: what they take needs no socket.
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

    /// One of its addresses, as text: a literal is spelled as it was configured.
    pub(super) fn spell(&self, mut at: SocketAddr) -> Address {
        if self.address.ip().is_some() {
            return self.address.clone();
        }
        at.set_port(self.port);
        literal(at)
    }
}

/// `::`, which takes IPv4 as well, then `0.0.0.0`, then all others.
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
