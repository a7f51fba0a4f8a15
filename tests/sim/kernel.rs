//! The machines under the simulated hosts: sockets, readiness, listening, names, and the one timeline of the world.
//!
//! What TCP does with segments is in `tcp`; nothing here knows the code under test. Readiness is Linux's edge-triggered
//! epoll: every change puts a socket on the list of its machine, and what is reported is how it stands when asked.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quorum_cnx::{Found, Ready};

use crate::{chance::Chance, tcp::Conn, trace::Trace};

pub const EMFILE: i32 = 24;
pub const EADDRINUSE: i32 = 98;
pub const ECONNABORTED: i32 = 103;

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The process of this machine gets a processor.
    Wake(usize),
    /// A SYN reaches the far end, for the n-th time.
    Syn(usize, u32),
    SynAck(usize),
    Refused(usize),
    /// The front of this direction of a connection reaches the far end.
    Arrive(usize, usize),
    /// What arrived in this direction is acknowledged.
    Ack(usize, usize),
    /// Keepalive, retransmission and death of this socket.
    Timer(usize),
    /// The socket has room after all.
    Room(usize),
    Answer(usize, u64, Option<IpAddr>),
    /// For the world: the application of this host does something.
    App(usize),
    Fault,
    Recover(usize),
    Stranger(usize),
    /// For the world: the plan enters its next part.
    Part(usize),
}

/// How often the machines do what the loop must live with, per mille of calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    pub interrupted: u32,
    pub full_for_no_reason: u32,
    pub late_event: u32,
    pub spurious_event: u32,
    /// Reports only what has changed (as kqueue does), not all that is so (as epoll does).
    pub narrow_events: bool,
    pub abort_on_accept: bool,
    pub tiny_segments: u32,
    pub rx_bytes: usize,
    pub tx_bytes: usize,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Sock {
    pub node: usize,
    pub conn: usize,
    pub side: usize,
    /// A process has it.
    pub held: bool,
    /// It waits in the queue of a listening socket.
    pub queued: bool,
    /// The connection stands.
    pub standing: bool,
    /// The machine knows it no more, or it is broken.
    pub gone: bool,
    pub error: Option<i32>,
    pub rx: VecDeque<u8>,
    pub rx_cap: usize,
    pub fin_in: bool,
    pub tx: VecDeque<u8>,
    pub tx_cap: usize,
    pub in_flight: usize,
    /// Nothing is written any more.
    pub shut: bool,
    pub fin_sent: bool,
    pub fin_acked: bool,
    /// A write found too little room: an edge is owed.
    pub nospace: bool,
    pub watched: Option<usize>,
    pub edge_in: bool,
    pub edge_out: bool,
    listed: bool,
    pub progress: Duration,
    pub heard: Duration,
    pub closed: Option<Duration>,
    pub dead_after: Option<Duration>,
}

impl Sock {
    pub fn room(&self) -> usize {
        self.tx_cap.saturating_sub(self.tx.len() + self.in_flight)
    }

    /// Linux calls a socket writable when a third of its buffer is free.
    pub fn writable(&self) -> bool {
        self.shut || self.gone || (self.standing && self.room() * 3 >= self.tx_cap)
    }

    /// `readable`, `writable`, `ended`, as `poll(2)` would say now.
    fn stand(&self) -> (bool, bool, bool) {
        let hung = self.gone || self.error.is_some() || (self.fin_in && self.shut);
        let ended = hung || self.fin_in;
        (
            ended || !self.rx.is_empty(),
            hung || self.writable(),
            ended,
        )
    }
}

#[derive(Debug)]
pub struct Listener {
    pub door: usize,
    pub at: SocketAddr,
    pub queue: VecDeque<usize>,
    pub edge: bool,
}

/// One machine.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub ips: Vec<IpAddr>,
    /// Its packets leave with this address.
    pub source: IpAddr,
    pub on: bool,
    /// A process runs on it that waits for readiness.
    pub running: bool,
    pub dead_after: Option<Duration>,
    pub paused_until: Duration,
    /// How far its clock is ahead of the world's.
    pub skew: Duration,
    pub emfile: bool,
    pub port_taken: bool,
    pub listeners: Vec<Listener>,
    pub bell: bool,
    pub ready: Vec<usize>,
    pub wake_at: Option<Duration>,
    pub found: VecDeque<Found>,
    pub held: usize,
    /// Calls that moved something, to tell work from spinning.
    pub moved: u64,
    pub watched: BTreeSet<usize>,
    port: u16,
}

/// How names are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns {
    pub fails: u32,
    pub slow: u32,
}

#[derive(Debug)]
pub struct Kernel {
    pub now: Duration,
    pub chance: Chance,
    pub quirks: Quirks,
    pub nodes: Vec<Node>,
    pub socks: Vec<Sock>,
    pub conns: Vec<Conn>,
    /// Ways that lose everything, from one machine to another.
    pub cut: BTreeSet<(usize, usize)>,
    /// Addresses from which nothing ever comes back.
    pub black: BTreeSet<IpAddr>,
    pub latency: BTreeMap<(usize, usize), Duration>,
    pub names: BTreeMap<String, IpAddr>,
    pub dns: Dns,
    pub trace: Trace,
    timeline: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    order: u64,
}

impl Kernel {
    pub fn new(chance: Chance, quirks: Quirks, trace: Trace) -> Self {
        Self {
            now: Duration::ZERO,
            chance,
            quirks,
            nodes: Vec::new(),
            socks: Vec::new(),
            conns: Vec::new(),
            cut: BTreeSet::new(),
            black: BTreeSet::new(),
            latency: BTreeMap::new(),
            names: BTreeMap::new(),
            dns: Dns::default(),
            trace,
            timeline: BinaryHeap::new(),
            order: 0,
        }
    }

    pub fn add_node(&mut self, name: String, ips: Vec<IpAddr>) -> usize {
        self.nodes.push(Node {
            name,
            source: ips[0],
            ips,
            on: true,
            running: false,
            dead_after: None,
            paused_until: Duration::ZERO,
            skew: Duration::ZERO,
            emfile: false,
            port_taken: false,
            listeners: Vec::new(),
            bell: false,
            ready: Vec::new(),
            wake_at: None,
            found: VecDeque::new(),
            held: 0,
            moved: 0,
            watched: BTreeSet::new(),
            port: 32_768,
        });
        self.nodes.len() - 1
    }

    pub fn at(&mut self, when: Duration, due: Due) {
        self.order += 1;
        self.timeline.push(Reverse((when, self.order, due)));
    }

    pub fn after(&mut self, time: Duration, due: Due) {
        self.at(self.now + time, due);
    }

    /// The next thing that happens; the clock moves to it.
    pub fn next(&mut self) -> Option<Due> {
        let Reverse((when, _, due)) = self.timeline.pop()?;
        self.now = when;
        Some(due)
    }

    pub fn note(&mut self, node: usize, what: impl FnOnce() -> String) {
        let (now, name) = (self.now, &self.nodes[node].name);
        self.trace.line(now, name, what);
    }

    /// Gives the process of this machine a processor soon.
    pub fn wake(&mut self, node: usize) {
        let soon = self.now + self.chance.micros(1, 40);
        self.wake_by(node, soon);
    }

    pub fn wake_by(&mut self, node: usize, when: Duration) {
        let node_of = &mut self.nodes[node];
        if !node_of.running {
            return;
        }
        let when = when.max(node_of.paused_until);
        if node_of.wake_at.is_none_or(|at| at > when) {
            node_of.wake_at = Some(when);
            self.at(when, Due::Wake(node));
        }
    }

    /// Something about this socket has changed.
    pub fn edge(&mut self, sock: usize, readable: bool, writable: bool) {
        let it = &mut self.socks[sock];
        if it.watched.is_none() {
            return;
        }
        it.edge_in |= readable;
        it.edge_out |= writable;
        let node = it.node;
        if !std::mem::replace(&mut it.listed, true) {
            self.nodes[node].ready.push(sock);
        }
        self.wake(node);
    }

    pub fn watch(&mut self, sock: usize, token: usize) {
        let it = &mut self.socks[sock];
        it.watched = Some(token);
        let node = it.node;
        let (readable, writable, _) = it.stand();
        self.nodes[node].watched.insert(sock);
        if readable || writable {
            self.edge(sock, readable, writable);
        }
    }

    pub fn unwatch(&mut self, sock: usize) {
        let it = &mut self.socks[sock];
        it.watched = None;
        (it.edge_in, it.edge_out) = (false, false);
        let node = it.node;
        self.nodes[node].watched.remove(&sock);
    }

    /// What `epoll_wait(2)` would report now.
    pub fn collect(&mut self, node: usize, ready: &mut Vec<Ready>) {
        let quirks = self.quirks;
        if std::mem::take(&mut self.nodes[node].bell) {
            ready.push(Ready::Bell);
        }
        for listener in &mut self.nodes[node].listeners {
            if std::mem::take(&mut listener.edge) && !listener.queue.is_empty() {
                ready.push(Ready::Door(listener.door));
            }
        }
        let mut listed = std::mem::take(&mut self.nodes[node].ready);
        self.chance.shuffle(&mut listed);
        let mut late = Vec::new();
        for sock in listed {
            self.socks[sock].listed = false;
            let Some(token) = self.socks[sock].watched else {
                continue;
            };
            if self.chance.permille(quirks.late_event) {
                self.socks[sock].listed = true;
                late.push(sock);
                continue;
            }
            let it = &mut self.socks[sock];
            let (mut readable, mut writable, mut ended) = it.stand();
            if quirks.narrow_events {
                readable &= it.edge_in;
                writable &= it.edge_out;
                ended &= it.edge_in || it.error.is_some();
            }
            (it.edge_in, it.edge_out) = (false, false);
            if readable || writable || ended {
                ready.push(Ready::Link {
                    token,
                    readable: readable || ended,
                    writable,
                    ended,
                });
            }
        }
        if self.chance.permille(quirks.spurious_event) {
            let watched: Vec<usize> = self.nodes[node].watched.iter().copied().collect();
            if !watched.is_empty() {
                let sock = *self.chance.pick(&watched);
                ready.push(Ready::Link {
                    token: self.socks[sock].watched.unwrap(),
                    readable: true,
                    writable: true,
                    ended: false,
                });
            }
        }
        if !late.is_empty() {
            self.nodes[node].ready.append(&mut late);
            let when = self.now + self.chance.micros(20, 3000);
            self.wake_by(node, when);
        }
    }

    pub fn listen(&mut self, node: usize, door: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        let owner = &mut self.nodes[node];
        if owner.port_taken || owner.listeners.iter().any(|other| other.at == at) {
            return Err(io::Error::from_raw_os_error(EADDRINUSE));
        }
        if owner.emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        if !owner.ips.contains(&at.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        owner.listeners.push(Listener {
            door,
            at,
            queue: VecDeque::new(),
            edge: false,
        });
        Ok(at)
    }

    pub fn accept(&mut self, node: usize, door: usize) -> io::Result<(usize, SocketAddr)> {
        let (emfile, aborts) = (self.nodes[node].emfile, self.quirks.abort_on_accept);
        let Some(listener) = self.nodes[node]
            .listeners
            .iter_mut()
            .find(|listener| listener.door == door)
        else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if listener.queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let sock = listener.queue.pop_front().unwrap();
        self.nodes[node].moved += 1;
        self.socks[sock].queued = false;
        if self.socks[sock].gone && aborts {
            return Err(io::Error::from_raw_os_error(ECONNABORTED));
        }
        self.socks[sock].held = true;
        self.nodes[node].held += 1;
        let conn = &self.conns[self.socks[sock].conn];
        Ok((sock, conn.from))
    }

    pub fn close_doors(&mut self, node: usize) {
        for listener in std::mem::take(&mut self.nodes[node].listeners) {
            for sock in listener.queue {
                self.socks[sock].queued = false;
                self.reset(sock);
            }
        }
    }

    pub fn ephemeral(&mut self, node: usize) -> SocketAddr {
        let node = &mut self.nodes[node];
        node.port = node.port.checked_add(1).unwrap_or(32_768);
        SocketAddr::new(node.source, node.port)
    }

    pub fn lookup(&mut self, node: usize, ticket: u64, host: &str) {
        let known = self.names.get(host).copied();
        let answer = known.filter(|_| !self.chance.permille(self.dns.fails));
        let takes = if self.chance.permille(self.dns.slow) {
            self.chance.millis(100, 9000)
        } else {
            self.chance.micros(100, 5000)
        };
        self.note(node, || format!("looks {host} up, answer {answer:?} in {takes:?}"));
        self.after(takes, Due::Answer(node, ticket, answer));
    }

    pub fn answer(&mut self, node: usize, ticket: u64, answer: Option<IpAddr>) {
        if !self.nodes[node].running {
            return;
        }
        let answer = answer
            .map(|ip| vec![ip])
            .ok_or_else(|| io::Error::other("no such name"));
        self.nodes[node].found.push_back(Found { ticket, answer });
        self.ring(node);
    }

    pub fn ring(&mut self, node: usize) {
        self.nodes[node].bell = true;
        self.wake(node);
    }

    /// The machine loses power: nobody is told anything.
    pub fn power_off(&mut self, node: usize) {
        self.forget_process(node);
        self.nodes[node].on = false;
        self.nodes[node].listeners.clear();
        for sock in &mut self.socks {
            if sock.node == node {
                (sock.gone, sock.held, sock.queued, sock.watched) = (true, false, false, None);
            }
        }
        self.nodes[node].held = 0;
        self.nodes[node].watched.clear();
    }

    /// Whatever waited for the process that ran here is void.
    pub fn forget_process(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.running, node.wake_at, node.bell) = (false, None, false);
        node.paused_until = Duration::ZERO;
        node.found.clear();
        node.ready.clear();
    }
}
