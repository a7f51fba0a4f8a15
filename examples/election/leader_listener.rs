//! The leader's side of the quorum port: listening sockets at all its own addresses, and the connections of followers.
//!
//! Nothing is read from followers or written to them. An address at which the leader cannot listen is tried again while it leads;
//! the other addresses are not affected.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use quorum_cnx::Address;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    leader_port::PortEvent,
    names::{Names, Resolved},
};

/// Time until a failed address is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections of followers that are kept. When one more arrives, the oldest one is closed; that follower connects again.
const FOLLOWERS_MAX: usize = 64;

/// Connections that are accepted in one call of [`look`](LeaderListener::look).
const ACCEPTS_MAX: usize = 64;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

pub(crate) struct LeaderListener {
    ports: Vec<Port>,
    followers: VecDeque<TcpStream>,
    /// True exactly when more connections may wait to be accepted.
    maybe_more: bool,
}

/// One configured address.
struct Port {
    address: Address,
    open: Vec<(SocketAddr, TcpListener)>,
    /// When listening is tried next; `None` when the leader listens at all addresses of the name.
    next_at: Option<Duration>,
    /// The last failure that was reported.
    reported: String,
}

impl LeaderListener {
    /// For these addresses, or for the same ports of all addresses of this machine. [`look`](Self::look) opens the sockets.
    pub(crate) fn new(addresses: &[Address], on_all_ips: bool, names: &mut Names) -> Self {
        let addresses = match on_all_ips {
            true => wildcards(addresses),
            false => addresses.to_vec(),
        };
        addresses.iter().for_each(|address| names.look_up(address));
        let port = |address| Port {
            address,
            open: Vec::new(),
            next_at: Some(Duration::ZERO),
            reported: String::new(),
        };
        Self {
            ports: addresses.into_iter().map(port).collect(),
            followers: VecDeque::new(),
            maybe_more: false,
        }
    }

    /// When [`look`](Self::look) must be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.maybe_more {
            return Some(Duration::ZERO);
        }
        self.ports.iter().filter_map(|port| port.next_at).min()
    }

    /// Opens the sockets that are due, and accepts connections.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        names: &mut Names,
        (registry, token): (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        for port in &mut self.ports {
            let is_due = port.next_at.is_some_and(|at| at <= now);
            let is_new = port.open.is_empty() && port.next_at.is_some();
            if is_due || (is_new && port.is_found(names)) {
                port.listen(now, names, (registry, token), events);
            }
        }
        self.accept();
    }

    fn accept(&mut self) {
        let mut left = ACCEPTS_MAX;
        for (_, listener) in self.ports.iter().flat_map(|port| &port.open) {
            // After any error of `accept` the socket keeps listening.
            while left > 0 {
                let Ok((follower, _)) = listener.accept() else {
                    break;
                };
                left -= 1;
                self.followers.push_back(follower);
                if self.followers.len() > FOLLOWERS_MAX {
                    self.followers.pop_front();
                }
            }
        }
        self.maybe_more = left == 0;
    }
}

impl Port {
    /// Whether the name was looked up, and the answer was not used yet.
    fn is_found(&self, names: &Names) -> bool {
        self.reported.is_empty() && matches!(names.resolved(&self.address), Resolved::Known(_))
    }

    /// Listens at the addresses at which it does not listen yet.
    fn listen(
        &mut self,
        now: Duration,
        names: &mut Names,
        (registry, token): (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        let mut failures = Vec::new();
        match names.resolved(&self.address) {
            Resolved::Pending => {
                self.next_at = Some(now + PAUSE);
                return;
            }
            Resolved::Unknown(why) => failures.push(format!("{}: {why}", self.address)),
            Resolved::Known(addrs) => {
                for addr in addrs {
                    if self.open.iter().any(|(at, _)| *at == addr) {
                        continue;
                    }
                    match open(addr, registry, token) {
                        Ok((at, listener)) => {
                            events.push(PortEvent::Listening(at));
                            self.open.push((addr, listener));
                        }
                        Err(error) => failures.push(format!("{addr}: {error}")),
                    }
                }
            }
        }
        if failures.is_empty() {
            self.next_at = None;
            return;
        }
        self.next_at = Some(now + PAUSE);
        // The name may have other addresses by then.
        names.look_up(&self.address);
        let failures = failures.join(", ");
        if self.reported != failures {
            let message = format!("cannot listen as leader on {failures}; will try again");
            events.push(PortEvent::Trouble(message));
            self.reported = failures;
        }
    }
}

fn open(
    at: SocketAddr,
    registry: &Registry,
    token: Token,
) -> io::Result<(SocketAddr, TcpListener)> {
    let new = |at| Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP));
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()));
    let (socket, at) = match new(at) {
        // Without IPv6 in the kernel, all addresses are those of IPv4.
        Err(_) if at.is_ipv6() && at.ip().is_unspecified() => (new(any_v4)?, any_v4),
        socket => (socket?, at),
    };
    // Without it, a restarted server could not bind while its old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        // `::` accepts IPv4 as well, as Java's wildcard address does.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    registry.register(&mut listener, token, Interest::READABLE)?;
    Ok((listener.local_addr()?, listener))
}

/// One wildcard address for each distinct port, as the library does for `quorumListenOnAllIPs`.
fn wildcards(own: &[Address]) -> Vec<Address> {
    let is_v4 = |address: &Address| matches!(address.ip(), Some(IpAddr::V4(_)));
    // A name may have addresses of either kind, and they may change.
    let host = if own.iter().all(is_v4) {
        "0.0.0.0"
    } else {
        "::"
    };
    let mut ports: Vec<u16> = own.iter().map(Address::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let wildcard = |port| Address::new(host, port);
    ports.into_iter().map(wildcard).collect()
}
