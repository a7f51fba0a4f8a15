//! The leader's side of its port: listening sockets at all addresses of its own, and the connections of its followers.
//!
//! Nothing that followers say is listened to, and nothing is answered. An address at which it cannot listen does not keep it
//! from the others, and is tried again for as long as it leads.

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
    leader_port::Word,
    names::{Names, Places},
};

/// Until an address at which it could not listen is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Followers whose connections are held; when one more comes, the oldest goes, and will come again.
const HELD_MAX: usize = 64;

/// Connections that are accepted before other things get their turn.
const ACCEPTS_MAX: usize = 64;

/// Those that may wait to be accepted.
const BACKLOG: i32 = 128;

pub(crate) struct LeaderListener {
    ports: Vec<Port>,
    followers: VecDeque<TcpStream>,
    /// True exactly when the last look did not come to an end.
    unaccepted: bool,
}

/// One configured address.
struct Port {
    address: Address,
    open: Vec<(SocketAddr, TcpListener)>,
    /// When it is tried next; `None` when it is open at all addresses of its name.
    next_at: Option<Duration>,
    /// What was told last of why not.
    told: String,
}

impl LeaderListener {
    /// Is going to listen on these, or on the same ports of all addresses of this machine.
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
            told: String::new(),
        };
        Self {
            ports: addresses.into_iter().map(port).collect(),
            followers: VecDeque::new(),
            unaccepted: false,
        }
    }

    /// When time alone changes something, if it does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.unaccepted {
            return Some(Duration::ZERO);
        }
        self.ports.iter().filter_map(|port| port.next_at).min()
    }

    /// Opens what is to be opened now, and accepts who has come.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        names: &mut Names,
        (registry, token): (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        for port in &mut self.ports {
            let is_due = port.next_at.is_some_and(|at| at <= now);
            let is_answered = port.open.is_empty() && port.next_at.is_some();
            if is_due || (is_answered && port.is_found(names)) {
                port.listen(now, names, (registry, token), words);
            }
        }
        self.accept();
    }

    fn accept(&mut self) {
        let mut left = ACCEPTS_MAX;
        for (_, listener) in self.ports.iter().flat_map(|port| &port.open) {
            // Anything that is wrong with a connection, or with descriptors, leaves the port open all the same.
            while left > 0 {
                let Ok((follower, _)) = listener.accept() else {
                    break;
                };
                left -= 1;
                self.followers.push_back(follower);
                if self.followers.len() > HELD_MAX {
                    self.followers.pop_front();
                }
            }
        }
        self.unaccepted = left == 0;
    }
}

impl Port {
    /// Whether its name was looked up, and the answer was not used yet.
    fn is_found(&self, names: &Names) -> bool {
        self.told.is_empty() && matches!(names.places(&self.address), Places::Known(_))
    }

    /// Opens what is not open yet.
    fn listen(
        &mut self,
        now: Duration,
        names: &mut Names,
        (registry, token): (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        let mut failures = Vec::new();
        match names.places(&self.address) {
            Places::Pending => {
                self.next_at = Some(now + PAUSE);
                return;
            }
            Places::Unknown(why) => failures.push(format!("{}: {why}", self.address)),
            Places::Known(places) => {
                for place in places {
                    if self.open.iter().any(|(at, _)| *at == place) {
                        continue;
                    }
                    match open(place, registry, token) {
                        Ok((at, listener)) => {
                            words.push(Word::Listening(at));
                            self.open.push((place, listener));
                        }
                        Err(error) => failures.push(format!("{place}: {error}")),
                    }
                }
            }
        }
        if failures.is_empty() {
            self.next_at = None;
            return;
        }
        self.next_at = Some(now + PAUSE);
        // By then it may have moved.
        names.look_up(&self.address);
        let failures = failures.join(", ");
        if self.told != failures {
            let message = format!("cannot listen as leader on {failures}; will try again");
            words.push(Word::Trouble(message));
            self.told = failures;
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
    // Or a server that has started again would wait for its old connections to be forgotten.
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        // `::` takes IPv4 as well, as Java's wildcard address does.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    registry.register(&mut listener, token, Interest::READABLE)?;
    Ok((listener.local_addr()?, listener))
}

/// One wildcard address for each distinct port, as the library listens with `quorumListenOnAllIPs`.
fn wildcards(own: &[Address]) -> Vec<Address> {
    let is_v4 = |address: &Address| matches!(address.ip(), Some(IpAddr::V4(_)));
    // A name may point to either kind, and to another one tomorrow.
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
