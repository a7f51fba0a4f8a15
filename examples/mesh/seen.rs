//! Collects what all servers observe, by one clock, and checks the promises against it.
//!
//! Nothing here sends or receives. A promise that is broken once stays broken.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    io, mem,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _, Bytes};
use quorum_cnx::{Event, Fault, Handle, ReasonKind, SendStats, Sid, Stats};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    SERVERS, VICTIM,
    secure::{Certificates, DIALED},
    sids,
};

/// The promises, in the order of the summary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    Link,
    Newest,
    Order,
    Account,
    Return,
    Ports,
    /// Only with TLS.
    Strangers,
}

const PROMISES: [&str; Promise::Strangers as usize + 1] = [
    "one link for each pair, dialed by the larger id at both ends",
    "every server has the last value of every other",
    "no older value after a newer one",
    "the counters of every server balance",
    "all others noticed the death of the server, and are linked with it again",
    "all servers have halted, and their ports are free",
    "strangers without a server's own certificate are refused, and no link notices",
];

/// Whether a promise held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Held,
    /// Why it was broken.
    Broken(String),
    /// Not checked: an interrupt came before.
    Unchecked,
}

/// The outcomes of all promises.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) promises: Vec<(&'static str, Outcome)>,
    /// Totals, one line each.
    pub(crate) figures: [String; 2],
    pub(crate) figures_in_brief: [String; 2],
}

impl Verdict {
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

/// One server, over all its starts.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// `None` until it is started.
    pub(crate) handle: Option<Handle>,
    pub(crate) order: Order,
    /// How often it was started.
    starts: u64,
    /// The version of its own value since the last start.
    pub(crate) version: u64,
    /// The last event of each peer's link: up or down.
    pub(crate) links: BTreeMap<Sid, Event>,
    /// The newest value of each other server: its start and its version.
    values: BTreeMap<Sid, (u64, u64)>,
    /// True exactly when it has halted and its counters are summed up.
    pub(crate) is_over: bool,
    /// Latencies of new values in the current second.
    second: Vec<Duration>,
    /// The same in the last complete second.
    pub(crate) last_second: Vec<Duration>,
}

impl Server {
    pub(crate) fn links_up(&self) -> usize {
        let is_up = |event: &&Event| matches!(event, Event::Up { .. });
        self.links.values().filter(is_up).count()
    }

    /// Whether its loop ended without a halt.
    pub(crate) fn has_died(&self) -> bool {
        self.handle.as_ref().is_some_and(Handle::has_died)
    }

    /// Why the server does not run; `None` while it does.
    pub(crate) fn absence(&self) -> Option<&'static str> {
        match &self.handle {
            Some(_) if self.has_died() => Some("dead"),
            handle => handle.as_ref()?.is_halted().then_some("halted"),
        }
    }
}

/// The state that all threads share.
pub(crate) struct Seen {
    state: Mutex<State>,
    /// `None` if the servers speak plaintext.
    pub(crate) certificates: Option<Certificates>,
    /// Sockets that are bound to the servers' ports and never listen. They reserve the ports while no server listens on them; on
    /// Linux a server can listen on the same port at the same time.
    _ports: Vec<Socket>,
}

impl Seen {
    pub(crate) fn new(start: Instant, certificates: Option<Certificates>) -> io::Result<Self> {
        let mut ports = sids().map(port).collect::<io::Result<Vec<_>>>()?;
        let mut servers = BTreeMap::<Sid, Server>::new();
        for (sid, port) in sids().zip(&ports) {
            let address = port.local_addr()?.as_socket();
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
            servers.entry(sid).or_default().address = address.to_string();
        }
        if !cfg!(target_os = "linux") {
            // There a server could not bind. The system does not assign a free port again so soon.
            ports.clear();
        }
        let state = State {
            start,
            is_secure: certificates.is_some(),
            servers,
            refusals: BTreeMap::new(),
            broken: Default::default(),
            checked: Default::default(),
            sent: SendStats::default(),
            latencies: Vec::new(),
        };
        Ok(Self {
            state: Mutex::new(state),
            certificates,
            _ports: ports,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reserves a port for a server.
fn port(_: Sid) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Only sockets that all have this option can be bound to the same port.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket)
}

pub(crate) struct State {
    /// Time zero of all times here.
    start: Instant,
    /// True exactly when the servers speak TLS.
    pub(crate) is_secure: bool,
    pub(crate) servers: BTreeMap<Sid, Server>,
    /// Why the server that strangers dial has refused connections, in words.
    pub(crate) refusals: BTreeMap<ReasonKind, String>,
    broken: [Option<String>; PROMISES.len()],
    /// True for each promise that was checked.
    checked: [bool; PROMISES.len()],
    /// Sum of the counters of all servers that have ended.
    sent: SendStats,
    latencies: Vec<Duration>,
}

impl State {
    pub(crate) fn server(&mut self, sid: Sid) -> &mut Server {
        self.servers.get_mut(&sid).expect("all servers are here")
    }

    /// Marks a promise as broken. The first reason is kept.
    pub(crate) fn break_promise(&mut self, promise: Promise, why: String) {
        self.broken[promise as usize].get_or_insert(why);
    }

    /// Marks a promise as checked: it is broken by now, or it held.
    pub(crate) fn check(&mut self, promise: Promise) {
        self.checked[promise as usize] = true;
    }

    /// Ends the current second. A server that sends no new values keeps the figures of its last one.
    pub(crate) fn end_second(&mut self) {
        for server in self.servers.values_mut() {
            let second = mem::take(&mut server.second);
            if server.order == Order::Change && server.absence().is_none() {
                server.last_second = second;
            }
        }
    }

    pub(crate) fn order_all(&mut self, order: Order) {
        sids().for_each(|sid| self.server(sid).order = order);
    }

    /// A server starts. It knows nothing of its time before.
    pub(crate) fn begin(&mut self, own: Sid, handle: Handle) {
        let server = self.server(own);
        let former = mem::take(server);
        server.address = former.address;
        server.starts = former.starts + 1;
        server.handle = Some(handle);
        if let Some(stats) = former.handle.map(|handle| handle.stats()) {
            // The counters of links need not balance: the server died before it could count their ends.
            self.close(own, &stats, stats.sent.balances());
        }
    }

    /// Adds the counters of a server that has ended. No frame may be counted as waiting any more.
    pub(crate) fn close(&mut self, own: Sid, stats: &Stats, balances: bool) {
        if !balances || stats.sent.waiting > 0 {
            self.break_promise(Promise::Account, format!("server {own}: {stats:?}"));
        }
        self.sent.accepted += stats.sent.accepted;
        self.sent.written += stats.sent.written;
        self.sent.superseded += stats.sent.superseded;
        self.sent.discarded += stats.sent.discarded;
    }

    /// A new value: the start, the version, and the time. `None` if values change no more.
    pub(crate) fn next_value(&mut self, own: Sid) -> Option<Bytes> {
        let now = self.start.elapsed();
        let server = self.server(own);
        if server.order != Order::Change {
            return None;
        }
        server.version += 1;
        let mut value = Vec::new();
        value.put_u64(server.starts);
        value.put_u64(server.version);
        value.put_u64(now.as_nanos() as u64);
        Some(value.into())
    }

    /// A frame has arrived. A value may arrive twice, since the last one is sent again over a new link. It may not arrive after a
    /// newer one, not even if its sender was started again in between.
    pub(crate) fn on_frame(&mut self, own: Sid, from: Sid, mut value: &[u8]) {
        if value.len() != 24 {
            return self.break_promise(Promise::Order, format!("a frame of {from} is torn"));
        }
        let received = (value.get_u64(), value.get_u64());
        let created = Duration::from_nanos(value.get_u64());
        let newest = self.server(own).values.entry(from).or_default();
        match received.cmp(newest) {
            Ordering::Equal => {}
            Ordering::Less => {
                let why = format!("{from} sent {newest:?} to {own}, and then {received:?}");
                self.break_promise(Promise::Order, why);
            }
            Ordering::Greater => {
                *newest = received;
                let latency = self.start.elapsed().saturating_sub(created);
                self.server(own).second.push(latency);
                self.latencies.push(latency);
            }
        }
    }

    pub(crate) fn on_event(&mut self, own: Sid, event: &Event) {
        if let Event::Up { sid, .. } | Event::Down { sid, .. } = event {
            self.server(own).links.insert(*sid, event.clone());
        }
        if let (Event::Rejected { reason, .. }, DIALED) = (event, own) {
            self.refusals.insert(reason.kind(), reason.to_string());
        }
        if let Event::Up { sid, dialed, .. } = event {
            if *dialed != (*sid < own) {
                let why = format!("{own} reports that the smaller of it and {sid} has dialed");
                self.break_promise(Promise::Link, why);
            }
        }
    }

    /// Whether each pair has its link at both ends, and no server has another connection.
    pub(crate) fn is_linked(&self) -> bool {
        let is_only = |handle: &Handle| handle.stats().connections == SERVERS as u64 - 1;
        self.servers.values().all(|server| {
            server.links_up() == SERVERS - 1 && server.handle.as_ref().is_some_and(is_only)
        })
    }

    /// The reasons that the other servers give for the end of their links to the victim. Links that they ended themselves do not
    /// count.
    pub(crate) fn down_reasons(&self) -> impl Iterator<Item = String> {
        let links = self.servers.values();
        links.filter_map(|server| match server.links.get(&VICTIM) {
            Some(Event::Down { reason, .. }) if reason.fault() != Fault::Ours => {
                Some(reason.to_string())
            }
            _ => None,
        })
    }

    /// Whether every server has the newest value of every other.
    pub(crate) fn is_settled(&self) -> bool {
        self.servers.iter().all(|(sid, server)| {
            let newest = (server.starts, server.version);
            let mut others = self.servers.iter().filter(|(other, _)| *other != sid);
            others.all(|(_, other)| other.values.get(sid) == Some(&newest))
        })
    }

    /// Adds the counters of a server that died and was not started again.
    pub(crate) fn close_dead(&mut self) {
        let dead = self.servers.iter().filter(|(_, server)| server.has_died());
        let stats = dead.filter_map(|(own, server)| Some((*own, server.handle.as_ref()?.stats())));
        for (own, stats) in Vec::from_iter(stats) {
            self.close(own, &stats, stats.sent.balances());
        }
    }

    /// The outcomes of the promises, and totals.
    pub(crate) fn verdict(&self) -> Verdict {
        let outcome = |(broken, checked): (&Option<String>, &bool)| match broken {
            Some(why) => Outcome::Broken(why.clone()),
            None if *checked => Outcome::Held,
            None => Outcome::Unchecked,
        };
        let outcomes = self.broken.iter().zip(&self.checked).map(outcome);
        let SendStats {
            accepted,
            written,
            superseded,
            discarded,
            ..
        } = self.sent;
        let rest = format!("{written} written + {superseded} superseded + {discarded} discarded");
        let ([p50, p99], count) = (micros(&self.latencies), self.latencies.len());
        // The last one is about TLS.
        let count_of_promises = PROMISES.len() - usize::from(!self.is_secure);
        let promises = PROMISES.into_iter().zip(outcomes);
        Verdict {
            promises: promises.take(count_of_promises).collect(),
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

/// The median and the 99th percentile, in microseconds.
pub(crate) fn micros(latencies: &[Duration]) -> [u128; 2] {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100);
    [50, 99].map(|percent| at(percent).map_or(0, Duration::as_micros))
}
