//! What all servers have seen, in one place and by one clock, and the promises that it is held against.
//!
//! Nothing here sends or receives. A promise is broken by the first thing seen against it, and stays broken.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    io, mem,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _, Bytes};
use quorum_cnx::{Event, Fault, Handle, Outgoing, Sid, Stats};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{SERVERS, VICTIM, sids};

/// What is promised, in the order of the summary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    Link,
    Newest,
    Order,
    Account,
    Return,
    Ports,
}

const PROMISES: [&str; Promise::Ports as usize + 1] = [
    "one link for each pair, dialed by the larger id at both ends",
    "everybody has everybody's last value",
    "no older value after a newer one",
    "every account balances",
    "the dead server was missed by all, and is linked with all again",
    "all have halted, and their ports are free",
];

/// What has become of a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Held,
    /// Why it was broken.
    Broken(String),
    /// Nobody has looked: the play was interrupted before.
    Unseen,
}

/// What has become of all.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) promises: Vec<(&'static str, Outcome)>,
    /// Sums, a line each.
    pub(crate) figures: [String; 2],
    pub(crate) figures_in_brief: [String; 2],
}

impl Verdict {
    /// Whether all promises held.
    pub(crate) fn is_good(&self) -> bool {
        self.promises
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Held)
    }
}

/// What a server is to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Order {
    #[default]
    Change,
    Freeze,
    Die,
    Halt,
}

/// One server, over all its lives.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// `None` until it is started.
    pub(crate) handle: Option<Handle>,
    pub(crate) order: Order,
    /// How often it was started.
    life: u64,
    /// The version of its own value, in this life.
    pub(crate) version: u64,
    /// What it was last told about each peer: up or down.
    pub(crate) links: BTreeMap<Sid, Event>,
    /// The newest value of each other server: its life and its version.
    values: BTreeMap<Sid, (u64, u64)>,
    /// True exactly when it has halted and its accounts are closed.
    pub(crate) is_over: bool,
    /// How long new values took in this second, and in the last whole one.
    second: Vec<Duration>,
    pub(crate) pace: Vec<Duration>,
}

impl Server {
    pub(crate) fn links_up(&self) -> usize {
        let is_up = |event: &&Event| matches!(event, Event::Up { .. });
        self.links.values().filter(is_up).count()
    }

    /// Whether its loop is gone without a halt.
    pub(crate) fn has_died(&self) -> bool {
        self.handle.as_ref().is_some_and(Handle::has_died)
    }

    /// Why there is nothing to show of it.
    pub(crate) fn absence(&self) -> Option<&'static str> {
        match &self.handle {
            Some(_) if self.has_died() => Some("dead"),
            handle => handle.as_ref()?.is_halted().then_some("halted"),
        }
    }
}

/// What all threads share.
pub(crate) struct Seen {
    state: Mutex<State>,
    /// Sockets that are bound to the servers' ports and never listen. On Linux a server can listen beside one, and no other
    /// process is given the port while nobody does.
    _ports: Vec<Socket>,
}

impl Seen {
    pub(crate) fn new(start: Instant) -> io::Result<Self> {
        let mut ports = sids().map(port).collect::<io::Result<Vec<_>>>()?;
        let mut servers = BTreeMap::<Sid, Server>::new();
        for (sid, port) in sids().zip(&ports) {
            let address = port.local_addr()?.as_socket();
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
            servers.entry(sid).or_default().address = address.to_string();
        }
        if !cfg!(target_os = "linux") {
            // Nobody else is given one so soon.
            ports.clear();
        }
        let state = State {
            start,
            servers,
            broken: Default::default(),
            looked: Default::default(),
            sent: Outgoing::default(),
            latencies: Vec::new(),
        };
        Ok(Self {
            state: Mutex::new(state),
            _ports: ports,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port for a server.
fn port(_: Sid) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // As the server's own: only such can be bound beside each other.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket)
}

pub(crate) struct State {
    /// Where the one clock begins.
    start: Instant,
    pub(crate) servers: BTreeMap<Sid, Server>,
    broken: [Option<String>; PROMISES.len()],
    /// True where a promise was looked at.
    looked: [bool; PROMISES.len()],
    /// The closed accounts.
    sent: Outgoing,
    latencies: Vec<Duration>,
}

impl State {
    pub(crate) fn server(&mut self, sid: Sid) -> &mut Server {
        self.servers.get_mut(&sid).expect("all servers are here")
    }

    /// A promise is broken. The first case says why.
    pub(crate) fn blame(&mut self, promise: Promise, why: String) {
        self.broken[promise as usize].get_or_insert(why);
    }

    /// A promise was looked at: it is broken by now, or it held.
    pub(crate) fn look_at(&mut self, promise: Promise) {
        self.looked[promise as usize] = true;
    }

    /// A second is over. Who has no new values keeps the figures of its last second.
    pub(crate) fn roll(&mut self) {
        for server in self.servers.values_mut() {
            let second = mem::take(&mut server.second);
            if server.order == Order::Change && server.absence().is_none() {
                server.pace = second;
            }
        }
    }

    pub(crate) fn order_all(&mut self, order: Order) {
        sids().for_each(|sid| self.server(sid).order = order);
    }

    /// A server begins a life, and knows nothing of a former one.
    pub(crate) fn begin(&mut self, own: Sid, handle: Handle) {
        let server = self.server(own);
        let former = mem::take(server);
        server.address = former.address;
        server.life = former.life + 1;
        server.handle = Some(handle);
        if let Some(stats) = former.handle.map(|handle| handle.stats()) {
            // Those of its links cannot balance: it died before it could count their ends.
            self.close(own, &stats, stats.sent.balances());
        }
    }

    /// Closes the accounts of a life. What waited must have been discarded.
    pub(crate) fn close(&mut self, own: Sid, stats: &Stats, balances: bool) {
        if !balances || stats.sent.waiting > 0 {
            self.blame(Promise::Account, format!("server {own}: {stats:?}"));
        }
        self.sent.accepted += stats.sent.accepted;
        self.sent.written += stats.sent.written;
        self.sent.superseded += stats.sent.superseded;
        self.sent.discarded += stats.sent.discarded;
    }

    /// A new value: the life, the version, and when it was made. Nothing if values change no more.
    pub(crate) fn next_value(&mut self, own: Sid) -> Option<Bytes> {
        let now = self.start.elapsed();
        let server = self.server(own);
        if server.order != Order::Change {
            return None;
        }
        server.version += 1;
        let mut value = Vec::new();
        value.put_u64(server.life);
        value.put_u64(server.version);
        value.put_u64(now.as_nanos() as u64);
        Some(value.into())
    }

    /// A frame has come. A value may come twice, since the last one is sent again over a new link, but never after a newer
    /// one, not even one of a former life.
    pub(crate) fn note_frame(&mut self, own: Sid, from: Sid, mut value: &[u8]) {
        if value.len() != 24 {
            return self.blame(Promise::Order, format!("a frame of {from} is torn"));
        }
        let came = (value.get_u64(), value.get_u64());
        let made = Duration::from_nanos(value.get_u64());
        let newest = self.server(own).values.entry(from).or_default();
        match came.cmp(newest) {
            Ordering::Equal => {}
            Ordering::Less => {
                let why = format!("{from} sent {newest:?} to {own}, and then {came:?}");
                self.blame(Promise::Order, why);
            }
            Ordering::Greater => {
                *newest = came;
                let latency = self.start.elapsed().saturating_sub(made);
                self.server(own).second.push(latency);
                self.latencies.push(latency);
            }
        }
    }

    pub(crate) fn note_event(&mut self, own: Sid, event: &Event) {
        if let Event::Up { sid, .. } | Event::Down { sid, .. } = event {
            self.server(own).links.insert(*sid, event.clone());
        }
        if let Event::Up { sid, dialed, .. } = event {
            if *dialed != (*sid < own) {
                let why = format!("{own} says that the smaller of it and {sid} has dialed");
                self.blame(Promise::Link, why);
            }
        }
    }

    /// Whether each pair has its link at both ends, and nobody has any other connection.
    pub(crate) fn is_linked(&self) -> bool {
        let is_only = |handle: &Handle| handle.stats().connections == SERVERS as u64 - 1;
        self.servers.values().all(|server| {
            server.links_up() == SERVERS - 1 && server.handle.as_ref().is_some_and(is_only)
        })
    }

    /// Why the others think that the link of the victim has ended, unless they have ended it themselves.
    pub(crate) fn obituaries(&self) -> impl Iterator<Item = String> {
        let links = self.servers.values();
        links.filter_map(|server| match server.links.get(&VICTIM) {
            Some(Event::Down { reason, .. }) if reason.fault() != Fault::Ours => {
                Some(reason.to_string())
            }
            _ => None,
        })
    }

    /// Whether everybody has everybody's newest value.
    pub(crate) fn is_settled(&self) -> bool {
        self.servers.iter().all(|(sid, server)| {
            let newest = (server.life, server.version);
            let mut others = self.servers.iter().filter(|(other, _)| *other != sid);
            others.all(|(_, other)| other.values.get(sid) == Some(&newest))
        })
    }

    /// Closes the accounts of who is dead and never came back.
    pub(crate) fn close_dead(&mut self) {
        let dead = self.servers.iter().filter(|(_, server)| server.has_died());
        let stats = dead.filter_map(|(own, server)| Some((*own, server.handle.as_ref()?.stats())));
        for (own, stats) in Vec::from_iter(stats) {
            self.close(own, &stats, stats.sent.balances());
        }
    }

    /// What has become of the promises, and what it took.
    pub(crate) fn verdict(&self) -> Verdict {
        let outcome = |(broken, looked): (&Option<String>, &bool)| match broken {
            Some(why) => Outcome::Broken(why.clone()),
            None if *looked => Outcome::Held,
            None => Outcome::Unseen,
        };
        let outcomes = self.broken.iter().zip(&self.looked).map(outcome);
        let Outgoing {
            accepted,
            written,
            superseded,
            discarded,
            ..
        } = self.sent;
        let rest = format!("{written} written + {superseded} superseded + {discarded} discarded");
        let ([p50, p99], count) = (micros(&self.latencies), self.latencies.len());
        Verdict {
            promises: PROMISES.into_iter().zip(outcomes).collect(),
            figures: [
                format!("frames: {accepted} accepted = {rest}"),
                format!(
                    "latency from thread to thread, of {count} new values: p50 {p50} us, p99 {p99} us"
                ),
            ],
            figures_in_brief: [
                format!("frames: {accepted} = {rest}"),
                format!("latency: p50 {p50} us, p99 {p99} us"),
            ],
        }
    }
}

/// The median and the 99th percentile.
pub(crate) fn micros(latencies: &[Duration]) -> [u128; 2] {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100);
    [50, 99].map(|percent| at(percent).map_or(0, Duration::as_micros))
}
