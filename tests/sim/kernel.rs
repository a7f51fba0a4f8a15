//! The machines under the simulated hosts: readiness, listening, names, and the one timeline of the world.
//!
//! What TCP does with segments is in `tcp`; nothing here knows the code under test. Readiness is Linux's edge-triggered
//! epoll: every change puts a socket on the list of its machine, and what is reported is how it stands when asked.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quorum_cnx::{Found, Ready};

use crate::{
    chance::Chance,
    tcp::{Conn, Sock},
    trace::Trace,
};

pub const EMFILE: i32 = 24;
pub const EADDRINUSE: i32 = 98;
pub const ECONNABORTED: i32 = 103;

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Due {
    /// The process of this machine gets a processor.
    Wake(usize),
    /// A SYN of this connection reaches the far end.
    Syn(usize),
    SynAck(usize),
    /// The last part of the handshake: the connection enters the queue of the listening socket.
    Third(usize),
    Refused(usize),
    /// The front of this direction of a connection reaches the far end.
    Arrive(usize, usize),
    /// What arrived in this direction is acknowledged.
    Ack(usize, usize),
    /// A reset reaches this side of a connection.
    Reset(usize, usize),
    /// Keepalive and death of this socket.
    Timer(usize),
    /// The socket has room after all.
    Room(usize),
    /// The n-th lookup is answered.
    Answer(usize),
    /// For the world: the application of this host does something.
    App(usize),
    /// The application of this host is ready for frames again.
    Ready(usize),
    Fault,
    Recover(usize),
    Stranger(usize),
    /// For the world: the plan enters its next part.
    Part(usize),
}

/// One line of the timeline. What comes first is the greatest, as a heap wants it.
#[derive(Debug)]
struct Entry {
    when: Duration,
    /// Of two things at one time the one that was known first comes first.
    order: u64,
    due: Due,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.when, other.order).cmp(&(self.when, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

/// A lookup of the n-th process on a machine.
#[derive(Debug)]
struct Question {
    node: usize,
    process: u32,
    lookup_id: u64,
    answer: Vec<IpAddr>,
}

/// How often the machines do what the loop must live with, per mille of calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    pub interrupted: u32,
    pub short_read: u32,
    pub short_write: u32,
    pub late_event: u32,
    pub spurious_event: u32,
    /// Reports only what has changed (as kqueue does), not all that is so (as epoll does).
    pub narrow_events: bool,
    /// A connection that was reset while it waited is an error of `accept` (BSD), not of `read` (Linux).
    pub abort_on_accept: bool,
    pub tiny_segments: u32,
    pub rx_bytes: usize,
    pub tx_bytes: usize,
}

impl Quirks {
    /// As benign as these machines can be.
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
    edge: bool,
}

/// One machine.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub ips: Vec<IpAddr>,
    /// Its packets leave with this address.
    pub source: IpAddr,
    pub proxied: bool,
    pub on: bool,
    /// A process runs on it that waits for readiness.
    pub running: bool,
    /// How many have run on it before.
    process: u32,
    /// Who connects is accepted and hung up on at once: something else has the address.
    pub slams: bool,
    pub dead_after: Option<Duration>,
    pub paused_until: Duration,
    /// How far its clock is ahead of the world's.
    pub skew: Duration,
    pub emfile: bool,
    /// When it was so last.
    pub emfile_at: Duration,
    pub port_taken: bool,
    pub listeners: Vec<Listener>,
    pub found: VecDeque<Found>,
    /// Sockets that its process holds, without the listening ones.
    pub held: usize,
    /// Calls that moved something, to tell work from spinning.
    pub moved: u64,
    bell: bool,
    ready: Vec<usize>,
    pub watched: BTreeSet<usize>,
    wake_at: Option<Duration>,
    port: u16,
}

/// How names are answered, per mille.
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
    /// Ways that lose everything, from one machine to another, and how many faults want that.
    pub cut: BTreeMap<(usize, usize), usize>,
    /// Addresses from which nothing ever comes back.
    pub black: BTreeSet<IpAddr>,
    pub names: BTreeMap<String, Vec<IpAddr>>,
    pub dns: Dns,
    pub trace: Trace,
    /// Slow ways take up to so many milliseconds.
    pub latency_ms: u64,
    timeline: BinaryHeap<Entry>,
    order: u64,
    questions: Vec<Question>,
}

impl Kernel {
    pub fn new(chance: Chance, trace: Trace) -> Self {
        Self {
            now: Duration::ZERO,
            chance,
            quirks: Quirks::default(),
            nodes: Vec::new(),
            socks: Vec::new(),
            conns: Vec::new(),
            cut: BTreeMap::new(),
            black: BTreeSet::new(),
            names: BTreeMap::new(),
            dns: Dns::default(),
            trace,
            latency_ms: 1,
            timeline: BinaryHeap::new(),
            order: 0,
            questions: Vec::new(),
        }
    }

    pub fn add_node(&mut self, name: String, ips: Vec<IpAddr>) -> usize {
        self.nodes.push(Node {
            name,
            source: ips[0],
            proxied: false,
            ips,
            on: true,
            running: false,
            process: 0,
            slams: false,
            dead_after: None,
            paused_until: Duration::ZERO,
            skew: Duration::ZERO,
            emfile: false,
            emfile_at: Duration::ZERO,
            port_taken: false,
            listeners: Vec::new(),
            found: VecDeque::new(),
            held: 0,
            moved: 0,
            bell: false,
            ready: Vec::new(),
            watched: BTreeSet::new(),
            wake_at: None,
            port: 32_768,
        });
        self.nodes.len() - 1
    }

    pub fn at(&mut self, when: Duration, due: Due) {
        self.order += 1;
        self.timeline.push(Entry {
            when,
            order: self.order,
            due,
        });
    }

    pub fn after(&mut self, time: Duration, due: Due) {
        self.at(self.now + time, due);
    }

    /// The next thing that happens; the clock moves to it.
    pub fn next(&mut self) -> Option<Due> {
        let Entry { when, due, .. } = self.timeline.pop()?;
        self.now = when;
        self.trace.mix((when, due));
        Some(due)
    }

    pub fn note(&self, node: usize, what: impl FnOnce() -> String) {
        let (now, name) = (self.now, &self.nodes[node].name);
        self.trace.line(now, name, what);
    }

    /// The same about no machine.
    pub fn say(&self, who: &str, what: impl FnOnce() -> String) {
        self.trace.line(self.now, who, what);
    }

    pub fn node_at(&self, ip: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.ips.contains(&ip))
    }

    /// A processor for this machine has been given: the next one is to be asked for.
    pub fn awake(&mut self, node: usize) -> bool {
        let now = self.now;
        let it = &mut self.nodes[node];
        // What is not the earliest wake was overtaken by an earlier one.
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

    /// Gives the process of this machine a processor soon.
    pub fn wake(&mut self, node: usize) {
        let soon = self.now + self.chance.micros(1, 40);
        self.wake_by(node, soon);
    }

    pub fn wake_by(&mut self, node: usize, when: Duration) {
        let it = &mut self.nodes[node];
        if !it.running {
            return;
        }
        let when = when.max(it.paused_until);
        if it.wake_at.is_none_or(|at| at > when) {
            it.wake_at = Some(when);
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

    /// What `epoll_wait(2)` would report now. Returns whether the bell was rung, which is not reported: a loop that was
    /// woken lets the threads go first that have woken it, and there are none.
    pub fn collect(&mut self, node: usize, ready: &mut Vec<Ready>) -> bool {
        let (quirks, mut words) = (self.quirks, self.trace.is_on().then(String::new));
        let rung = std::mem::take(&mut self.nodes[node].bell);
        if rung {
            words.iter_mut().for_each(|words| *words += " bell");
        }
        for listener in &mut self.nodes[node].listeners {
            if std::mem::take(&mut listener.edge) && !listener.queue.is_empty() {
                ready.push(Ready::Listener(listener.id));
                words.iter_mut().for_each(|words| *words += " listener");
            }
        }
        let mut listed = std::mem::take(&mut self.nodes[node].ready);
        self.chance.shuffle(&mut listed);
        let mut late = Vec::new();
        for sock in listed.drain(..) {
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
            if let Some(words) = &mut words {
                *words += &format!(" #{}", it.conn);
                let told = [(readable, " in"), (writable, " out"), (ended, " end")];
                words.extend(told.iter().filter(|it| it.0).map(|it| it.1));
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
        if self.chance.permille(quirks.spurious_event) {
            let watched: Vec<usize> = self.nodes[node].watched.iter().copied().collect();
            if !watched.is_empty() {
                let sock = *self.chance.pick(&watched);
                ready.push(Ready::Connection {
                    token: self.socks[sock].watched.expect("it is on the list"),
                    readable: true,
                    writable: true,
                    ended: false,
                });
            }
        }
        // Its room is kept.
        self.nodes[node].ready = listed;
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            self.note(node, || format!("turns:{words}"));
        }
        if !late.is_empty() {
            self.nodes[node].ready.append(&mut late);
            let when = self.now + self.chance.micros(20, 3000);
            self.wake_by(node, when);
        }
        rung
    }

    pub fn listen(&mut self, node: usize, id: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        let it = &mut self.nodes[node];
        if it.port_taken || it.listeners.iter().any(|other| other.at == at) {
            return Err(io::Error::from_raw_os_error(EADDRINUSE));
        }
        if it.emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        if !it.ips.contains(&at.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        it.moved += 1;
        it.listeners.push(Listener {
            id,
            at,
            queue: VecDeque::new(),
            edge: false,
        });
        self.note(node, || format!("listens at {at}"));
        Ok(at)
    }

    /// A connection enters the queue of a listening socket.
    pub fn enqueue(&mut self, node: usize, at: SocketAddr, sock: usize) {
        let listener = self.nodes[node]
            .listeners
            .iter_mut()
            .find(|other| other.at == at);
        let listener = listener.expect("the caller has looked");
        listener.queue.push_back(sock);
        listener.edge = true;
        self.wake(node);
    }

    pub fn accept(&mut self, node: usize, id: usize) -> io::Result<(usize, SocketAddr)> {
        let it = &mut self.nodes[node];
        let Some(listener) = it.listeners.iter_mut().find(|other| other.id == id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        // Linux looks for a descriptor first, whether or not there is a connection.
        if it.emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(sock) = listener.queue.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        it.moved += 1;
        self.socks[sock].queued = false;
        if self.socks[sock].gone && self.quirks.abort_on_accept {
            return Err(io::Error::from_raw_os_error(ECONNABORTED));
        }
        self.socks[sock].held = true;
        // What ended while it waited could not be seen before.
        let ended_at = &mut self.socks[sock].ended_at;
        *ended_at = ended_at.map(|_| self.now);
        self.socks[sock].dead_after = self.nodes[node].dead_after;
        self.nodes[node].held += 1;
        self.after(Duration::from_secs(1), Due::Timer(sock));
        let conn = self.socks[sock].conn;
        let from = self.conns[conn].from;
        self.note(node, || format!("#{conn} is accepted, from {from}"));
        Ok((sock, from))
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
        if self.chance.permille(self.dns.fails) {
            answer.clear();
        }
        if answer.len() > 1 {
            // Name servers change the order.
            self.chance.shuffle(&mut answer);
        }
        let takes = if self.chance.permille(self.dns.slow) {
            self.chance.millis(100, 9000)
        } else {
            self.chance.micros(100, 5000)
        };
        self.note(node, || format!("looks {host} up: {answer:?} in {takes:?}"));
        let process = self.nodes[node].process;
        self.after(takes, Due::Answer(self.questions.len()));
        self.questions.push(Question {
            node,
            process,
            lookup_id,
            answer,
        });
    }

    /// Answers a lookup, unless who asked is gone. Returns the first address that was found, and for whom.
    pub fn answer(&mut self, question: usize) -> Option<(usize, IpAddr)> {
        let question = &mut self.questions[question];
        let (node, lookup_id) = (question.node, question.lookup_id);
        if self.nodes[node].process != question.process {
            return None;
        }
        let answer = std::mem::take(&mut question.answer);
        let first = answer.first().copied();
        let found = match first {
            Some(_) => Ok(answer.iter().map(|ip| SocketAddr::new(*ip, 0)).collect()),
            None => Err(io::Error::other("no such name")),
        };
        self.nodes[node].found.push_back(Found {
            lookup_id,
            answer: found,
        });
        self.ring(node);
        Some((node, first?))
    }

    pub fn ring(&mut self, node: usize) {
        self.nodes[node].bell = true;
        self.wake(node);
    }

    /// The machine loses power: nobody is told anything.
    pub fn power_off(&mut self, node: usize) {
        self.forget_process(node);
        let it = &mut self.nodes[node];
        (it.on, it.held) = (false, 0);
        it.listeners.clear();
        it.watched.clear();
        let proxied = it.proxied;
        for sock in self.socks.iter_mut().filter(|sock| sock.node == node) {
            self.conns[sock.conn].haunted |= proxied && sock.held && sock.standing && !sock.gone;
            (sock.gone, sock.held, sock.queued, sock.watched) = (true, false, false, None);
        }
    }

    /// Another machine takes the part of one without power, at another address. What is on its way to the old one gets nowhere.
    pub fn replace_machine(&mut self, node: usize, old: IpAddr, new: IpAddr) {
        let ruin = self.add_node(format!("what {} was", self.nodes[node].name), vec![old]);
        self.nodes[ruin].on = false;
        for end in self.conns.iter_mut().flat_map(|conn| &mut conn.nodes) {
            if *end == node {
                *end = ruin;
            }
        }
        let it = &mut self.nodes[node];
        it.ips.retain(|ip| *ip != old);
        it.ips.push(new);
        if it.source == old {
            it.source = new;
        }
    }

    /// Whatever waited for the process that ran here is void.
    pub fn forget_process(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        (it.running, it.wake_at, it.bell) = (false, None, false);
        it.process += 1;
        it.paused_until = Duration::ZERO;
        it.found.clear();
        it.ready.clear();
    }
}
