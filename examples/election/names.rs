//! The addresses behind names, looked up off the loop.
//!
//! `getaddrinfo(3)` blocks for as long as it likes and cannot be given up: each lookup has a thread of its own, one at a time
//! for each name. The names are those of the configuration, which bounds the threads. Nothing here waits for an answer.

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

/// Addresses of one name; a name with more is that of a whole service.
const PLACES_MAX: usize = 32;

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// Its addresses, with the port: those of the last lookup that found any.
    Known(Vec<SocketAddr>),
    /// None yet, and a lookup is under way.
    Pending,
    /// None, for this reason.
    Unknown(String),
}

pub(crate) struct Names {
    hosts: BTreeMap<String, Host>,
    answers: (Sender<Answer>, Receiver<Answer>),
    waker: Arc<Waker>,
    start: Start,
}

/// Begins a lookup and does not wait for its answer; an error when that is not possible now.
pub(crate) type Start = Box<dyn FnMut(Lookup) -> io::Result<()> + Send>;

/// A name that is to be looked up, and where the answer goes.
pub(crate) struct Lookup {
    pub(crate) host: String,
    answers: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Lookup {
    /// Gives the addresses, with ports that mean nothing.
    pub(crate) fn answer(self, found: io::Result<Vec<SocketAddr>>) {
        let host = self.host;
        // Fails when nobody wants to know any more.
        let _ = self.answers.send(Answer { host, found });
        let _ = self.waker.wake();
    }
}

#[derive(Default)]
struct Host {
    known: Vec<SocketAddr>,
    /// True exactly when a lookup is under way.
    is_asked: bool,
    /// Why the last lookup found nothing, if so.
    failure: Option<String>,
}

struct Answer {
    host: String,
    found: io::Result<Vec<SocketAddr>>,
}

impl Names {
    /// Asks the system, and wakes this when a lookup has ended.
    pub(crate) fn of_the_system(waker: Arc<Waker>) -> Self {
        let start = |lookup: Lookup| {
            let ask = move || {
                let found = (lookup.host.as_str(), 0).to_socket_addrs();
                let found = found.map(|places| places.take(PLACES_MAX).collect());
                lookup.answer(found);
            };
            let thread = thread::Builder::new().name("election-lookup".into());
            let started = thread.spawn(ask).map(drop);
            started.map_err(|error| {
                io::Error::new(error.kind(), format!("no thread to look it up: {error}"))
            })
        };
        Self::new(waker, Box::new(start))
    }

    /// Asks whoever is asked by `start`.
    pub(crate) fn new(waker: Arc<Waker>, start: Start) -> Self {
        Self {
            hosts: BTreeMap::new(),
            answers: channel(),
            waker,
            start,
        }
    }

    /// Begins to look a name up, unless that is under way. An IP literal needs none.
    pub(crate) fn look_up(&mut self, address: &Address) {
        if address.ip().is_some() {
            return;
        }
        let name = address.host().to_owned();
        let host = self.hosts.entry(name.clone()).or_default();
        if host.is_asked {
            return;
        }
        let lookup = Lookup {
            host: name,
            answers: self.answers.0.clone(),
            waker: Arc::clone(&self.waker),
        };
        match (self.start)(lookup) {
            Ok(()) => host.is_asked = true,
            Err(error) => host.failure = Some(error.to_string()),
        }
    }

    /// Takes in what was found since the last time.
    pub(crate) fn take_answers(&mut self) {
        while let Ok(Answer { host, found }) = self.answers.1.try_recv() {
            let host = self.hosts.entry(host).or_default();
            host.is_asked = false;
            match found {
                Ok(found) if !found.is_empty() => {
                    host.known.clear();
                    for place in found {
                        if !host.known.contains(&place) {
                            host.known.push(place);
                        }
                    }
                    host.failure = None;
                }
                Ok(_) => host.failure = Some("its name has no address".into()),
                Err(error) => host.failure = Some(error.to_string()),
            }
        }
    }

    /// Where this is, as far as it is known.
    pub(crate) fn places(&self, address: &Address) -> Places {
        if let Some(ip) = address.ip() {
            return Places::Known(vec![SocketAddr::new(ip, address.port())]);
        }
        let with_port = |place: &SocketAddr| {
            let mut place = *place;
            place.set_port(address.port());
            place
        };
        match self.hosts.get(address.host()) {
            None => Places::Unknown("its name was not looked up".into()),
            Some(host) if !host.known.is_empty() => {
                Places::Known(host.known.iter().map(with_port).collect())
            }
            Some(host) if host.is_asked => Places::Pending,
            Some(host) => {
                let failure = host.failure.as_deref();
                Places::Unknown(failure.unwrap_or("its name has no address").into())
            }
        }
    }
}
