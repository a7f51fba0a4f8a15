//! The endpoints of one peer, and the state of the dial to it.
//!
//! Nothing here reads the clock, and no deadline is kept here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    limits::{NAME_ADDRESSES_MAX, NO_ADDRESS_BYTES_MAX},
    net::{NO_ADDRESS, cut, words_of},
    proto::{Address, ConnectionKey, Reason},
};

#[derive(Debug)]
pub(super) struct PeerEndpoints {
    pub(super) endpoints: Vec<Endpoint>,
    /// When the names were last looked up because a connection from an unknown address claimed to be this peer.
    pub(super) inquired: Option<Instant>,
    /// The address of the last link that was proven, with whatever port the far end had. A dial tries it first.
    pub(super) proven: Option<SocketAddr>,
    pub(super) dial: Dial,
    /// The connections that are underway, and their addresses. At most
    /// [`DIALS_AT_ONCE`](crate::limits::DIALS_AT_ONCE).
    pub(super) underway: Vec<(ConnectionKey, SocketAddr)>,
    /// The addresses that the current dial has tried, without those that lost to another one. If none is underway, those of the last
    /// dial.
    pub(super) tried: Vec<SocketAddr>,
    /// The last failure among these: the last one that [lasts](Reason::is_lasting), if one does.
    pub(super) failed: Option<(SocketAddr, Reason)>,
    /// True exactly when an outstanding answer may show that the dial went to an old address of the peer.
    pub(super) unsure: bool,
    /// True exactly when the next dial is made because of such an answer.
    pub(super) corrects: bool,
}

/// One configured address, and the last good answer for its name.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// The ports have no meaning.
    pub(super) known: Vec<SocketAddr>,
    /// Why the last lookup without an address gave none.
    pub(super) said: String,
    pub(super) asking: bool,
}

/// The state of a dial.
///
/// ```text
///   Idle --> Connecting --failed, late--> Connecting    while an address is untried or underway
///     |          `--connected--> Connected --failed--> Connecting
///     `--> Looking --answer--> Connecting
///          Connecting --failed--> Looking               while names are being looked up
///   each of them --Exhausted, finish--> Idle
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) enum Dial {
    Idle,
    /// All known addresses were tried and have failed, and names are being looked up.
    Looking,
    /// Addresses are being connected, the last one since `since`.
    Connecting {
        since: Instant,
    },
    /// One of them is connected, and the others were given up. What follows decides whether the dial has succeeded.
    Connected,
}

/// What a dial needs next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::event_loop) enum Step {
    /// Connections are underway, or answers are outstanding, or there is no dial.
    Wait,
    /// Connect to this address.
    Connect(SocketAddr),
    /// No address is left to try. The last one that has failed, and why: see [`PeerEndpoints::failed`].
    Exhausted(Option<SocketAddr>, Reason),
}

impl PeerEndpoints {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            inquired: None,
            dial: Dial::Idle,
            underway: Vec::new(),
            tried: Vec::new(),
            proven: None,
            failed: None,
            unsure: false,
            corrects: false,
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.asking)
    }

    pub(super) fn is_home(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_there = |known: &SocketAddr| known.ip().to_canonical() == ip;
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.known.iter().any(is_there))
    }

    pub(super) fn has(&self, addr: SocketAddr) -> bool {
        let is_there = |known: &SocketAddr| known.ip().to_canonical() == addr.ip().to_canonical();
        self.endpoints.iter().any(|endpoint| {
            endpoint.address.port() == addr.port() && endpoint.known.iter().any(is_there)
        })
    }

    /// The known address that this dial tries next, if it may try one more: at first that of the last proven link, then as configured,
    /// but with the families of addresses interleaved, since often all of one family fail (RFC 8305, section 4).
    pub(super) fn untried(&self) -> Option<SocketAddr> {
        let known = || {
            self.endpoints.iter().flat_map(|endpoint| {
                // The answers of the resolver have no port: it comes from the address that has the name.
                let at = |mut addr: SocketAddr| {
                    addr.set_port(endpoint.address.port());
                    addr
                };
                endpoint.known.iter().copied().map(at)
            })
        };
        let untried = || known().filter(|addr| !self.tried.contains(addr));
        if self.tried.len() >= NAME_ADDRESSES_MAX {
            return None;
        }
        let is_v4 = |addr: &SocketAddr| addr.ip().to_canonical().is_ipv4();
        let preferred = match (self.tried.last(), self.proven) {
            (Some(last), _) => untried().find(|addr| is_v4(addr) != is_v4(last)),
            (None, Some(proven)) => untried().find(|addr| *addr == proven).or_else(|| {
                // The port of a link that the peer has dialed has no meaning.
                untried().find(|addr| addr.ip().to_canonical() == proven.ip().to_canonical())
            }),
            (None, None) => None,
        };
        preferred.or_else(|| untried().next())
    }

    /// Ends a dial that has no address left to try.
    pub(super) fn exhaust(&mut self) -> Step {
        self.dial = Dial::Idle;
        match self.failed.take() {
            Some((addr, reason)) => Step::Exhausted(Some(addr), reason),
            None => Step::Exhausted(None, Reason::NoAddress(self.explain())),
        }
    }

    /// The names, and what the resolver reported for each.
    fn explain(&self) -> String {
        let explain = |endpoint: &Endpoint| {
            let said = match &*endpoint.said {
                "" => "no answer in time",
                said => said,
            };
            format!("{} ({said})", endpoint.address.host())
        };
        let names: Vec<String> = self.endpoints.iter().map(explain).collect();
        cut(&names.join(", "), NO_ADDRESS_BYTES_MAX)
    }
}

impl Endpoint {
    pub(super) fn new(address: &Address) -> Self {
        let literal = address.ip().map(|ip| SocketAddr::new(ip, 0));
        Self {
            address: address.clone(),
            known: literal.into_iter().collect(),
            said: String::new(),
            asking: false,
        }
    }

    /// The name was looked up. An answer without an address removes none.
    pub(super) fn learn(&mut self, answer: &io::Result<Vec<SocketAddr>>) {
        self.asking = false;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                self.said = words_of(error);
                return;
            }
        };
        // The unspecified address would mean this machine.
        let can_be_dialed = |address: &&SocketAddr| !address.ip().is_unspecified();
        // A name can have thousands of addresses.
        let dialable = found.iter().filter(can_be_dialed).copied();
        let known: Vec<SocketAddr> = dialable.take(NAME_ADDRESSES_MAX).collect();
        match (found.first(), known.is_empty()) {
            (_, false) => self.known = known,
            (Some(any), true) => {
                self.said = format!("it means {}, which cannot be dialed", any.ip())
            }
            (None, true) => self.said = NO_ADDRESS.to_owned(),
        }
    }
}
