//! Looks up the addresses of names on threads of their own. Nothing here blocks.
//!
//! `getaddrinfo(3)` blocks without a limit and cannot be cancelled. So each lookup has a thread of its own, one at a time for each
//! name. The names are those of the configuration, which bounds the number of threads.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use mio::Waker;
use quorum_cnx::Address;

/// Addresses of one name that are used. No single server has more.
const ADDRESSES_MAX: usize = 32;

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// Its addresses, with the port: those of the last lookup that found any.
    Known(Vec<SocketAddr>),
    /// No address is known yet, and a lookup is under way.
    Pending,
    /// No address is known, for this reason.
    Unknown(String),
}

pub(crate) struct Names {
    hosts: BTreeMap<String, Host>,
    answers: (Sender<Answer>, Receiver<Answer>),
    waker: Arc<Waker>,
    start: Start,
}

/// Begins a lookup and does not wait for its answer. An error means that no lookup could be started.
pub(crate) type Start = Box<dyn FnMut(Lookup) -> io::Result<()> + Send>;

/// A name to look up, and the channel for the answer.
pub(crate) struct Lookup {
    pub(crate) host: String,
    answers: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Lookup {
    /// Ends the lookup with these addresses, whose ports are ignored.
    pub(crate) fn answer(self, found: io::Result<Vec<SocketAddr>>) {
        let host = self.host;
        // Fails when the `Names` are gone.
        let _ = self.answers.send(Answer { host, found });
        let _ = self.waker.wake();
    }
}

#[derive(Default)]
struct Host {
    known: Vec<SocketAddr>,
    /// True exactly when a lookup is under way.
    is_pending: bool,
    /// Why the last lookup found nothing, if it did not.
    failure: Option<String>,
}

struct Answer {
    host: String,
    found: io::Result<Vec<SocketAddr>>,
}

impl Names {
    /// Uses the resolver of the system, and wakes `waker` when a lookup has ended.
    pub(crate) fn with_system_resolver(waker: Arc<Waker>) -> Self {
        let start = |lookup: Lookup| {
            let run = move || {
                let found = (lookup.host.as_str(), 0).to_socket_addrs();
                let found = found.map(|addrs| addrs.take(ADDRESSES_MAX).collect());
                lookup.answer(found);
            };
            let thread = thread::Builder::new().name("election-lookup".into());
            let started = thread.spawn(run).map(drop);
            started.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot start a lookup thread: {error}"),
                )
            })
        };
        Self::new(waker, Box::new(start))
    }

    /// Uses `start` as the resolver.
    pub(crate) fn new(waker: Arc<Waker>, start: Start) -> Self {
        Self {
            hosts: BTreeMap::new(),
            answers: channel(),
            waker,
            start,
        }
    }

    /// Begins a lookup of the host's name, unless one is under way. An IP literal needs none.
    pub(crate) fn look_up(&mut self, address: &Address) {
        if address.ip().is_some() {
            return;
        }
        let name = address.host().to_owned();
        let host = self.hosts.entry(name.clone()).or_default();
        if host.is_pending {
            return;
        }
        let lookup = Lookup {
            host: name,
            answers: self.answers.0.clone(),
            waker: Arc::clone(&self.waker),
        };
        match (self.start)(lookup) {
            Ok(()) => host.is_pending = true,
            Err(error) => host.failure = Some(error.to_string()),
        }
    }

    /// Stores the answers that have arrived since the last call.
    pub(crate) fn take_answers(&mut self) {
        while let Ok(Answer { host, found }) = self.answers.1.try_recv() {
            let host = self.hosts.entry(host).or_default();
            host.is_pending = false;
            match found {
                Ok(found) if !found.is_empty() => {
                    host.known.clear();
                    for addr in found {
                        if !host.known.contains(&addr) {
                            host.known.push(addr);
                        }
                    }
                    host.failure = None;
                }
                Ok(_) => host.failure = Some("its name has no address".into()),
                Err(error) => host.failure = Some(error.to_string()),
            }
        }
    }

    /// The known addresses of a host.
    pub(crate) fn resolved(&self, address: &Address) -> Resolved {
        if let Some(ip) = address.ip() {
            return Resolved::Known(vec![SocketAddr::new(ip, address.port())]);
        }
        let with_port = |addr: &SocketAddr| {
            let mut addr = *addr;
            addr.set_port(address.port());
            addr
        };
        match self.hosts.get(address.host()) {
            None => Resolved::Unknown("its name was not looked up".into()),
            Some(host) if !host.known.is_empty() => {
                Resolved::Known(host.known.iter().map(with_port).collect())
            }
            Some(host) if host.is_pending => Resolved::Pending,
            Some(host) => {
                let failure = host.failure.as_deref();
                Resolved::Unknown(failure.unwrap_or("its name has no address").into())
            }
        }
    }
}
