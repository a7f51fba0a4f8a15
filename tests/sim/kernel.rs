//! The simulated machines: readiness, listening sockets, name lookups, and the event queue of the run.
//!
//! TCP is in `tcp`. Readiness works like Linux's edge-triggered epoll: every change puts a socket on the ready list of its
//! machine, and its current state is reported when the process polls.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quorum_cnx::{
    Sid,
    simulation::{Found, Ready},
};

use crate::{
    own_addresses::{is_in_the_way, takes},
    rng::Rng,
    tcp::{Conn, Sock},
    trace::Trace,
};

pub const EMFILE: i32 = 24;
pub const EADDRINUSE: i32 = 98;
pub const ECONNABORTED: i32 = 103;

/// An event of the simulation.
#[derive(Clone, Copy, Debug, Hash)]
pub enum SimEvent {
    /// The process of this machine runs.
    Wake(usize),
    /// A SYN of this connection reaches the far end.
    Syn(usize),
    SynAck(usize),
    /// The last packet of the handshake: the connection enters the backlog of the listening socket.
    FinalAck(usize),
    Refused(usize),
    /// The next bytes of this direction of a connection reach the far end.
    Arrive(usize, usize),
    /// The bytes that arrived in this direction are acknowledged.
    Ack(usize, usize),
    /// A reset reaches this side of a connection.
    Reset(usize, usize),
    /// The keepalive and user timeout timer of this socket.
    Timer(usize),
    /// The socket's buffer has room again.
    BufferSpace(usize),
    /// This lookup ends.
    LookupDone(usize),
    /// The application of this host makes a call.
    App(usize),
    /// The application of this host is ready for frames again.
    Ready(usize),
    Fault,
    Recover(usize),
    Stranger(usize),
    /// The run enters its next phase.
    Phase(usize),
}

/// An event in the queue. The earliest is the greatest, since the heap is a max-heap.
#[derive(Debug)]
struct QueuedEvent {
    when: Duration,
    /// Orders events of the same time: first in, first out.
    order: u64,
    event: SimEvent,
}

impl Ord for QueuedEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.when, other.order).cmp(&(self.when, self.order))
    }
}

impl PartialOrd for QueuedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for QueuedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for QueuedEvent {}

/// A lookup by the n-th process of a machine.
#[derive(Debug)]
struct Lookup {
    node: usize,
    process: u32,
    lookup_id: u64,
    answer: Vec<IpAddr>,
    /// True exactly when the answer is the address of another host.
    is_wrong: bool,
}

/// How often system calls behave in an unusual but legal way, per mille of calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    pub interrupted: u32,
    pub short_read: u32,
    pub short_write: u32,
    pub late_event: u32,
    pub spurious_event: u32,
    /// Readiness reports only what has changed, as kqueue does, instead of the whole state, as epoll does.
    pub narrow_events: bool,
    /// If a connection in the backlog was reset, `accept` fails (BSD) instead of `read` (Linux).
    pub abort_on_accept: bool,
    pub tiny_segments: u32,
    pub rx_bytes: usize,
    pub tx_bytes: usize,
}

impl Quirks {
    /// The same buffers without unusual behaviour.
    pub fn none(self) -> Self {
        Self {
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
pub struct Listener {
    pub id: usize,
    pub at: SocketAddr,
    pub queue: VecDeque<usize>,
    raise_edge: bool,
}

/// One machine.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub ips: Vec<IpAddr>,
    /// The source address of its packets.
    pub source: IpAddr,
    pub proxied: bool,
    /// In a layered mesh: the server that the key of this machine names.
    pub key: Option<Sid>,
    pub on: bool,
    /// A process runs on it.
    pub running: bool,
    /// How many processes have run on it before.
    process: u32,
    /// Another program has the address: it accepts each connection and closes it at once.
    pub accepts_and_closes: bool,
    pub dead_after: Option<Duration>,
    pub paused_until: Duration,
    /// How far its clock is ahead of the simulation's.
    pub skew: Duration,
    /// No descriptor is free.
    pub emfile: bool,
    /// When `emfile` changed last.
    pub emfile_at: Duration,
    /// Another program has the ports that its process does not listen on.
    pub port_taken: bool,
    pub listeners: Vec<Listener>,
    /// Calls that have opened or closed a listening socket.
    pub listen_calls: u64,
    /// The sockets because of which the last one could not be opened.
    in_the_way: Vec<usize>,
    /// The sockets that were closed last, and when.
    closed: (Vec<SocketAddr>, Duration),
    /// The last listening socket of a process that goes on was closed, and was not in the way of another one.
    pub closed_too_early: Option<SocketAddr>,
    pub found: VecDeque<Found>,
    /// Sockets that its process holds, except listening sockets.
    pub held: usize,
    /// System calls that had an effect. If this count stays the same, the loop spins.
    pub progress_calls: u64,
    woken: bool,
    ready: Vec<usize>,
    pub watched: BTreeSet<usize>,
    wake_at: Option<Duration>,
    port: u16,
}

/// How often lookups fail or are slow, per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns {
    pub fails: u32,
    pub slow: u32,
}

#[derive(Debug)]
pub struct Kernel {
    /// Loops that were started so far.
    pub starts: u64,
    pub now: Duration,
    pub rng: Rng,
    pub quirks: Quirks,
    pub nodes: Vec<Node>,
    pub socks: Vec<Sock>,
    pub conns: Vec<Conn>,
    /// Directed paths that lose all packets, and how many faults cut each of them.
    pub cut: BTreeMap<(usize, usize), usize>,
    /// Addresses that never answer.
    pub blackholed: BTreeSet<IpAddr>,
    /// Addresses that no machine has now.
    pub absent: BTreeSet<IpAddr>,
    pub names: BTreeMap<String, Vec<IpAddr>>,
    pub dns: Dns,
    /// How many of 1000 answers are wrong while lookups fail. The loops must notice it, so only with keys.
    pub wrong_answers: u32,
    pub trace: Trace,
    /// Scales the latency of packets.
    pub latency_ms: u64,
    events: BinaryHeap<QueuedEvent>,
    order: u64,
    lookups: Vec<Lookup>,
}

impl Kernel {
    pub fn new(rng: Rng, trace: Trace) -> Self {
        Self {
            starts: 0,
            now: Duration::ZERO,
            rng,
            quirks: Quirks::default(),
            nodes: Vec::new(),
            socks: Vec::new(),
            conns: Vec::new(),
            cut: BTreeMap::new(),
            blackholed: BTreeSet::new(),
            absent: BTreeSet::new(),
            names: BTreeMap::new(),
            dns: Dns::default(),
            wrong_answers: 0,
            trace,
            latency_ms: 1,
            events: BinaryHeap::new(),
            order: 0,
            lookups: Vec::new(),
        }
    }

    pub fn add_node(&mut self, name: String, ips: Vec<IpAddr>) -> usize {
        self.nodes.push(Node {
            name,
            source: ips[0],
            proxied: false,
            key: None,
            ips,
            on: true,
            running: false,
            process: 0,
            accepts_and_closes: false,
            dead_after: None,
            paused_until: Duration::ZERO,
            skew: Duration::ZERO,
            emfile: false,
            emfile_at: Duration::ZERO,
            port_taken: false,
            listeners: Vec::new(),
            listen_calls: 0,
            in_the_way: Vec::new(),
            closed: (Vec::new(), Duration::ZERO),
            closed_too_early: None,
            found: VecDeque::new(),
            held: 0,
            progress_calls: 0,
            woken: false,
            ready: Vec::new(),
            watched: BTreeSet::new(),
            wake_at: None,
            port: 32_768,
        });
        self.nodes.len() - 1
    }

    pub fn at(&mut self, when: Duration, event: SimEvent) {
        self.order += 1;
        self.events.push(QueuedEvent {
            when,
            order: self.order,
            event,
        });
    }

    pub fn after(&mut self, time: Duration, event: SimEvent) {
        self.at(self.now + time, event);
    }

    /// Takes the next event, and advances the clock to it.
    pub fn next(&mut self) -> Option<SimEvent> {
        let QueuedEvent { when, event, .. } = self.events.pop()?;
        self.now = when;
        self.trace.mix((when, event));
        Some(event)
    }

    /// Traces something about a machine.
    pub fn note(&self, node: usize, what: impl FnOnce() -> String) {
        let (now, name) = (self.now, &self.nodes[node].name);
        self.trace.line(now, name, what);
    }

    /// Traces something about no machine.
    pub fn log(&self, who: &str, what: impl FnOnce() -> String) {
        self.trace.line(self.now, who, what);
    }

    /// The machine at the far end of a link of this machine.
    pub fn far_node(&self, node: usize, addr: SocketAddr, dialed: bool) -> Option<usize> {
        let conn = self.connection(node, addr, dialed)?;
        Some(conn.nodes[usize::from(dialed)])
    }

    /// When this connection was begun.
    pub fn begun(&self, node: usize, addr: SocketAddr, dialed: bool) -> Option<Duration> {
        Some(self.connection(node, addr, dialed)?.begun)
    }

    fn connection(&self, node: usize, addr: SocketAddr, dialed: bool) -> Option<&Conn> {
        let is_it = |conn: &&Conn| match dialed {
            false => conn.from == addr && conn.nodes[1] == node,
            true => {
                let sock = conn.socks[0].map(|sock| &self.socks[sock]);
                let has_written = sock.is_some_and(|sock| sock.held && sock.has_written);
                conn.to == addr && conn.nodes[0] == node && has_written
            }
        };
        self.conns.iter().rev().find(is_it)
    }

    pub fn node_at(&self, ip: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.ips.contains(&ip))
    }

    /// Handles a `Wake` event. Returns whether the process runs now.
    pub fn take_wakeup(&mut self, node: usize) -> bool {
        let now = self.now;
        let it = &mut self.nodes[node];
        // An earlier wakeup has replaced this one.
        if !it.running || it.wake_at != Some(now) {
            return false;
        }
        it.wake_at = None;
        if it.paused_until > now {
            let until = it.paused_until;
            self.wake_by(node, until);
            return false;
        }
        true
    }

    /// Runs the process of this machine soon.
    pub fn wake(&mut self, node: usize) {
        let soon = self.now + self.rng.micros(1, 40);
        self.wake_by(node, soon);
    }

    /// Runs the process of this machine at `when`, or earlier.
    pub fn wake_by(&mut self, node: usize, when: Duration) {
        let it = &mut self.nodes[node];
        if !it.running {
            return;
        }
        let when = when.max(it.paused_until);
        if it.wake_at.is_none_or(|at| at > when) {
            it.wake_at = Some(when);
            self.at(when, SimEvent::Wake(node));
        }
    }

    /// Reports a change of this socket to its process.
    pub fn raise_edge(&mut self, sock: usize, readable: bool, writable: bool) {
        let it = &mut self.socks[sock];
        if it.watched.is_none() {
            return;
        }
        it.edge_in |= readable;
        it.edge_out |= writable;
        let node = it.node;
        if !std::mem::replace(&mut it.in_ready_list, true) {
            self.nodes[node].ready.push(sock);
        }
        self.wake(node);
    }

    pub fn watch(&mut self, sock: usize, token: usize) {
        let it = &mut self.socks[sock];
        it.watched = Some(token);
        let node = it.node;
        let (readable, writable, _) = it.readiness();
        self.nodes[node].watched.insert(sock);
        if readable || writable {
            self.raise_edge(sock, readable, writable);
        }
    }

    pub fn unwatch(&mut self, sock: usize) {
        let it = &mut self.socks[sock];
        it.watched = None;
        (it.edge_in, it.edge_out) = (false, false);
        let node = it.node;
        self.nodes[node].watched.remove(&sock);
    }

    /// Collects what `epoll_wait(2)` would report now. Returns whether the process was notified. That is not a readiness event:
    /// it would make the loop yield to the threads that have notified it, and there are none.
    pub fn collect(&mut self, node: usize, ready: &mut Vec<Ready>) -> bool {
        let (quirks, mut text) = (self.quirks, self.trace.is_on().then(String::new));
        let woken = std::mem::take(&mut self.nodes[node].woken);
        if woken {
            text.iter_mut().for_each(|text| *text += " notified");
        }
        for listener in &mut self.nodes[node].listeners {
            if std::mem::take(&mut listener.raise_edge) && !listener.queue.is_empty() {
                ready.push(Ready::Listener(listener.id));
                text.iter_mut().for_each(|text| *text += " listener");
            }
        }
        let mut in_ready_list = std::mem::take(&mut self.nodes[node].ready);
        self.rng.shuffle(&mut in_ready_list);
        let mut late = Vec::new();
        for sock in in_ready_list.drain(..) {
            self.socks[sock].in_ready_list = false;
            let Some(token) = self.socks[sock].watched else {
                continue;
            };
            if self.rng.permille(quirks.late_event) {
                self.socks[sock].in_ready_list = true;
                late.push(sock);
                continue;
            }
            let it = &mut self.socks[sock];
            let (mut readable, mut writable, mut ended) = it.readiness();
            if quirks.narrow_events {
                readable &= it.edge_in;
                writable &= it.edge_out;
                ended &= it.edge_in || it.error.is_some();
            }
            (it.edge_in, it.edge_out) = (false, false);
            if let Some(text) = &mut text {
                *text += &format!(" #{}", it.conn);
                let flags = [(readable, " in"), (writable, " out"), (ended, " end")];
                text.extend(flags.iter().filter(|it| it.0).map(|it| it.1));
            }
            if readable || writable || ended {
                ready.push(Ready::Connection {
                    token,
                    readable: readable || ended,
                    writable: writable || ended,
                    ended,
                });
            }
        }
        if self.rng.permille(quirks.spurious_event) {
            let watched: Vec<usize> = self.nodes[node].watched.iter().copied().collect();
            if !watched.is_empty() {
                let sock = *self.rng.pick(&watched);
                ready.push(Ready::Connection {
                    token: self.socks[sock].watched.expect("it is on the list"),
                    readable: true,
                    writable: true,
                    ended: false,
                });
            }
        }
        // This keeps the allocation.
        self.nodes[node].ready = in_ready_list;
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.note(node, || format!("turns:{text}"));
        }
        if !late.is_empty() {
            self.nodes[node].ready.append(&mut late);
            let when = self.now + self.rng.micros(20, 3000);
            self.wake_by(node, when);
        }
        woken
    }

    pub fn listen(&mut self, node: usize, id: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        let now = self.now;
        let it = &mut self.nodes[node];
        // `socket(2)` comes before `bind(2)`.
        if it.emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let is_here = it.ips.contains(&at.ip()) && !self.absent.contains(&at.ip());
        if !is_here && !at.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let in_the_way = (it.listeners.iter()).filter(|other| is_in_the_way(other.at, at));
        it.in_the_way = in_the_way.map(|other| other.id).collect();
        // The other program was not as fast.
        let is_taken = it.port_taken && !(it.closed.1 == now && it.closed.0.contains(&at));
        if is_taken || !it.in_the_way.is_empty() {
            return Err(io::Error::from_raw_os_error(EADDRINUSE));
        }
        it.progress_calls += 1;
        it.listen_calls += 1;
        it.listeners.push(Listener {
            id,
            at,
            queue: VecDeque::new(),
            raise_edge: false,
        });
        self.note(node, || format!("listens at {at}"));
        Ok(at)
    }

    /// A connection enters the backlog of a listening socket.
    pub fn enqueue(&mut self, node: usize, at: SocketAddr, sock: usize) {
        let listener = self.nodes[node]
            .listeners
            .iter_mut()
            .find(|other| takes(other.at, at));
        let listener = listener.expect("the caller has checked it");
        listener.queue.push_back(sock);
        listener.raise_edge = true;
        self.wake(node);
    }

    pub fn accept(&mut self, node: usize, id: usize) -> io::Result<(usize, SocketAddr)> {
        let it = &mut self.nodes[node];
        let Some(listener) = it.listeners.iter_mut().find(|other| other.id == id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        // Linux allocates the descriptor first, whether or not there is a connection.
        if it.emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(sock) = listener.queue.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        it.progress_calls += 1;
        self.socks[sock].queued = false;
        if self.socks[sock].gone && self.quirks.abort_on_accept {
            return Err(io::Error::from_raw_os_error(ECONNABORTED));
        }
        self.socks[sock].held = true;
        // The process could not see earlier that the connection has ended.
        let ended_at = &mut self.socks[sock].ended_at;
        *ended_at = ended_at.map(|_| self.now);
        self.socks[sock].dead_after = self.nodes[node].dead_after;
        self.nodes[node].held += 1;
        self.after(Duration::from_secs(1), SimEvent::Timer(sock));
        let conn = self.socks[sock].conn;
        let from = self.conns[conn].from;
        self.note(node, || format!("#{conn} is accepted, from {from}"));
        Ok((sock, from))
    }

    pub fn close_listener(&mut self, node: usize, id: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if let Some(at) = it.listeners.iter().position(|listener| listener.id == id) {
            let listener = it.listeners.remove(at);
            it.listen_calls += 1;
            if it.closed.1 != now {
                it.closed = (Vec::new(), now);
            }
            it.closed.0.push(listener.at);
            if it.listeners.is_empty() && !it.in_the_way.contains(&id) {
                it.closed_too_early = Some(listener.at);
            }
            self.note(node, || format!("no longer listens at {}", listener.at));
            for sock in listener.queue {
                self.socks[sock].queued = false;
                self.abort(sock);
            }
        }
    }

    pub fn close_listeners(&mut self, node: usize) {
        for listener in std::mem::take(&mut self.nodes[node].listeners) {
            for sock in listener.queue {
                self.socks[sock].queued = false;
                self.abort(sock);
            }
        }
    }

    pub fn ephemeral(&mut self, node: usize) -> SocketAddr {
        let node = &mut self.nodes[node];
        node.port = node.port.checked_add(1).unwrap_or(32_768);
        SocketAddr::new(node.source, node.port)
    }

    pub fn lookup(&mut self, node: usize, lookup_id: u64, host: &str) {
        let mut answer = self.names.get(host).cloned().unwrap_or_default();
        // Its own name is looked up again only after a minute, once it listens.
        let is_own = answer.iter().any(|ip| self.nodes[node].ips.contains(ip));
        if self.rng.permille(self.dns.fails) {
            answer.clear();
        }
        if answer.len() > 1 {
            // Name servers change the order.
            self.rng.shuffle(&mut answer);
        }
        let is_wrong = self.dns.fails > 0 && !is_own && self.rng.permille(self.wrong_answers);
        if is_wrong {
            let others: Vec<_> = self.names.values().flatten().copied().collect();
            answer = vec![*self.rng.pick(&others)];
        }
        let time = if self.rng.permille(self.dns.slow) {
            self.rng.millis(100, 9000)
        } else {
            self.rng.micros(100, 5000)
        };
        self.note(node, || format!("looks {host} up: {answer:?} in {time:?}"));
        let process = self.nodes[node].process;
        self.after(time, SimEvent::LookupDone(self.lookups.len()));
        self.lookups.push(Lookup {
            node,
            process,
            lookup_id,
            answer,
            is_wrong,
        });
    }

    /// Ends a lookup, unless its process has ended. Returns the machine and the first address that was found, if it is a right one.
    pub fn complete_lookup(&mut self, lookup: usize) -> Option<(usize, IpAddr)> {
        let lookup = &mut self.lookups[lookup];
        let (node, lookup_id) = (lookup.node, lookup.lookup_id);
        if self.nodes[node].process != lookup.process {
            return None;
        }
        let answer = std::mem::take(&mut lookup.answer);
        let (first, is_wrong) = (answer.first().copied(), lookup.is_wrong);
        let found = match first {
            Some(_) => Ok(answer.iter().map(|ip| SocketAddr::new(*ip, 0)).collect()),
            None => Err(io::Error::other("no such name")),
        };
        self.nodes[node].found.push_back(Found {
            lookup_id,
            answer: found,
        });
        self.notify(node);
        Some((node, first.filter(|_| !is_wrong)?))
    }

    pub fn notify(&mut self, node: usize) {
        self.nodes[node].woken = true;
        self.wake(node);
    }

    /// The machine loses power: it sends no more packets.
    pub fn power_off(&mut self, node: usize) {
        self.forget_process(node);
        let it = &mut self.nodes[node];
        (it.on, it.held) = (false, 0);
        it.listeners.clear();
        it.watched.clear();
        let proxied = it.proxied;
        for sock in self.socks.iter_mut().filter(|sock| sock.node == node) {
            self.conns[sock.conn].kept_by_proxy |=
                proxied && sock.held && sock.established && !sock.gone;
            (sock.gone, sock.held, sock.queued, sock.watched) = (true, false, false, None);
        }
    }

    /// Replaces a machine without power by another one with another address. Packets to the old one are lost.
    pub fn replace_machine(&mut self, node: usize, old: IpAddr, new: IpAddr) {
        let old_machine = self.add_node(format!("old {}", self.nodes[node].name), vec![old]);
        let key = self.nodes[node].key;
        (self.nodes[old_machine].on, self.nodes[old_machine].key) = (false, key);
        for end in self.conns.iter_mut().flat_map(|conn| &mut conn.nodes) {
            if *end == node {
                *end = old_machine;
            }
        }
        let it = &mut self.nodes[node];
        it.ips.retain(|ip| *ip != old);
        it.ips.push(new);
        if it.source == old {
            it.source = new;
        }
    }

    /// Drops everything that waited for the process that ran here.
    pub fn forget_process(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        (it.running, it.wake_at, it.woken) = (false, None, false);
        it.process += 1;
        it.paused_until = Duration::ZERO;
        it.found.clear();
        it.ready.clear();
        it.closed_too_early = None;
    }
}
