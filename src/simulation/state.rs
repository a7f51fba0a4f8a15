//! Hosts, processes, connections, paths and the clock: all that a simulated network consists of.
//!
//! Nothing here is public. [`Network`](super::Network), [`Host`](super::Host), [`HostNet`](super::HostNet) and
//! [`RemoteEnd`](super::RemoteEnd) lock it for each call.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    connection::{Connection, End, Owner},
    failures::Failures,
    names::Names,
    paths::Paths,
};
use crate::{limits::PEER_DEAD_AFTER, net::Found};

/// The state of a network, shared by everything that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct State {
    start: Instant,
    /// The time since the start.
    pub(super) now: Duration,
    /// The least time that a wait takes, if waits move the clock.
    pub(super) wait_min: Option<Duration>,
    /// Grows with each event that becomes due and each one that is reported.
    pub(super) changes: u64,
    pub(super) hosts: Vec<HostState>,
    pub(super) processes: Vec<Process>,
    pub(super) connections: Vec<Connection>,
    /// The connections that are not over. Only these are affected by a change of paths or power.
    pub(super) live: BTreeSet<usize>,
    /// Ends of connections between which no path leads there and back, and when each of them notices: the connection, and the side.
    dead_at: BTreeMap<(usize, usize), Duration>,
    /// Dials to addresses of no host, which the test has not taken.
    pub(super) dials: Vec<usize>,
    pub(super) paths: Paths,
    pub(super) names: Names,
    pub(super) send_buffer: usize,
    pub(super) receive_buffer: usize,
}

#[derive(Debug)]
pub(super) struct HostState {
    pub(super) ips: Vec<IpAddr>,
    pub(super) has_power: bool,
    pub(super) failures: Failures,
    /// The port that was chosen last for a listening socket.
    pub(super) last_port: u16,
    /// The port that was chosen last for a dial.
    pub(super) last_dial_port: u16,
}

/// The process of one loop.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) host: usize,
    /// True exactly when it runs: it has not ended, and its host has not lost power since it began.
    pub(super) runs: bool,
    /// The time without a path after which its ends of connections time out.
    pub(super) dead_after: Duration,
    pub(super) woken: bool,
    pub(super) listeners: BTreeMap<usize, Listener>,
    /// Ends of connections with an event: the connection, and the side.
    pub(super) ready: VecDeque<(usize, usize)>,
    pub(super) found: VecDeque<Found>,
    pub(super) idle: Idle,
}

/// The last waits of a process in which nothing was ready.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// The time and the changes of the network when the first of them ended.
    since: (Duration, u64),
    waits: u32,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) addr: SocketAddr,
    /// True exactly when the test has handed the socket over. Its address may be one of no host.
    pub(super) is_adopted: bool,
    pub(super) backlog: VecDeque<usize>,
    /// True exactly when an event is due for it.
    pub(super) changed: bool,
}

/// Large enough for every election message and small enough that a stream meets a full buffer.
const BUFFER_BYTES: usize = 64 << 10;
/// Ports for listening sockets that were asked for with port 0 follow this one.
pub(super) const PORTS_AFTER: u16 = 50_000;
/// Ports of dials are at least this one, as on Linux.
pub(super) const DIAL_PORTS_FROM: u16 = 32_768;

/// The clock stops here, after 100 years. A loop can still add its timeouts to the time.
pub(super) const NOW_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// More waits than a test makes of a loop at one time while nothing happens.
const IDLE_WAITS_MAX: u32 = 100_000;

/// The time at which every network of this process begins, so that two runs report the same times.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl State {
    fn new() -> Self {
        Self {
            start: *START,
            now: Duration::ZERO,
            wait_min: None,
            changes: 0,
            hosts: Vec::new(),
            processes: Vec::new(),
            connections: Vec::new(),
            live: BTreeSet::new(),
            dead_at: BTreeMap::new(),
            dials: Vec::new(),
            paths: Paths::default(),
            names: Names::default(),
            send_buffer: BUFFER_BYTES,
            receive_buffer: BUFFER_BYTES,
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + self.now
    }

    /// Moves the clock. Connections whose ends have not reached each other for too long end.
    pub(super) fn advance(&mut self, time: Duration) {
        let now = self.now.saturating_add(time).min(NOW_MAX);
        self.now = now;
        let due = self.dead_at.iter().filter(|(_, at)| **at <= now);
        let due: Vec<_> = due.map(|(end, _)| *end).collect();
        // First all of them: two ends that time out at the same time do not reset each other.
        for (index, side) in &due {
            self.dead_at.remove(&(*index, *side));
            self.connections[*index].time_out(*side);
        }
        for (index, side) in due {
            self.connections[index].deliver(side);
            self.note(index);
        }
    }

    /// Nothing was ready in a wait of this process. An error after many of them between which neither the clock has moved nor anything
    /// happened: the loop would wait for ever.
    pub(super) fn on_idle_wait(&mut self, process: usize) -> io::Result<()> {
        let now = (self.now, self.changes);
        let Idle { since, waits } = &mut self.processes[process].idle;
        if *since != now {
            (*since, *waits) = (now, 0);
        }
        *waits += 1;
        match *waits < IDLE_WAITS_MAX {
            true => Ok(()),
            false => Err(io::Error::other(
                "the loop waits, and nothing moves the clock: use `Network::run` or `Network::move_time_in_waits`",
            )),
        }
    }

    /// When the next connection ends because its ends do not reach each other.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.dead_at.values().min().copied()
    }

    // Hosts and paths.

    pub(super) fn host_of(&self, ip: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.ips.contains(&ip))
    }

    /// All addresses of the host that has this one. Alone, if no host has it.
    pub(super) fn ips_beside(&self, ip: IpAddr) -> Vec<IpAddr> {
        match self.host_of(ip) {
            Some(host) => self.hosts[host].ips.clone(),
            None => vec![ip],
        }
    }

    pub(super) fn add_host(&mut self, ip: IpAddr) -> usize {
        self.paths.learn(ip, &[]);
        self.hosts.push(HostState {
            ips: vec![ip],
            has_power: true,
            failures: Failures::default(),
            last_port: PORTS_AFTER,
            last_dial_port: DIAL_PORTS_FROM - 1,
        });
        self.on_new_ip(ip);
        self.hosts.len() - 1
    }

    /// A host has this address, which no host had. Dials that waited there, and that the test has not taken, reach the host.
    pub(super) fn on_new_ip(&mut self, ip: IpAddr) {
        let dials = std::mem::take(&mut self.dials);
        let is_for_host = |index: &usize| {
            let connection = &self.connections[*index];
            connection.is_connecting() && connection.ends[1].addr.ip() == ip
        };
        let (for_host, for_test): (Vec<_>, _) = dials.into_iter().partition(is_for_host);
        self.dials = for_test;
        for index in for_host {
            let addr = self.connections[index].ends[1].addr;
            self.connections[index].ends[1] = self.end_of(Owner::Nothing, addr);
            self.update_path(index);
        }
    }

    fn reaches(&self, from: IpAddr, to: IpAddr) -> bool {
        let has_power = |ip| {
            self.host_of(ip)
                .is_none_or(|host| self.hosts[host].has_power)
        };
        !self.paths.is_cut(from, to) && has_power(from) && has_power(to)
    }

    /// Looks at all paths again, since some were cut or healed.
    pub(super) fn update_paths(&mut self) {
        // Some may be over after their update.
        for index in Vec::from_iter(self.live.iter().copied()) {
            self.update_path(index);
        }
    }

    pub(super) fn update_path(&mut self, index: usize) {
        let [from, to] = [0, 1].map(|side| self.connections[index].ends[side].addr.ip());
        let open = [self.reaches(from, to), self.reaches(to, from)];
        let connection = &mut self.connections[index];
        connection.open = open;
        if connection.is_connecting() {
            if open == [true; 2] {
                self.connect(index);
            }
            return;
        }
        (0..2).for_each(|side| connection.deliver(side));
        for side in 0..2 {
            let is_waiting = self.connections[index].is_established(side);
            match open {
                [true, true] => _ = self.dead_at.remove(&(index, side)),
                _ if is_waiting => {
                    let at = self.now.saturating_add(self.dead_after(index, side));
                    self.dead_at.entry((index, side)).or_insert(at);
                }
                _ => {}
            }
        }
        self.note(index);
    }

    /// After how long this end notices that it does not reach the other one. The test's end does when the loop's end does.
    fn dead_after(&self, index: usize, side: usize) -> Duration {
        let ends = &self.connections[index].ends;
        let owner = match ends[side].owner {
            Owner::Test => ends[1 - side].owner,
            owner => owner,
        };
        match owner {
            Owner::Process(process) => self.processes[process].dead_after,
            Owner::Nothing | Owner::Test => PEER_DEAD_AFTER,
        }
    }

    pub(super) fn power_off(&mut self, host: usize) {
        self.hosts[host].has_power = false;
        for process in self.processes.iter_mut().filter(|it| it.host == host) {
            process.runs = false;
            process.listeners.clear();
            process.ready.clear();
        }
        for index in &self.live {
            let connection = &mut self.connections[*index];
            for side in 0..2 {
                let is_here = |process: usize| self.processes[process].host == host;
                if matches!(connection.ends[side].owner, Owner::Process(it) if is_here(it)) {
                    connection.lose(side);
                }
            }
        }
        self.update_paths();
    }

    // Connections.

    /// The test connects to a listening socket of a host.
    pub(super) fn connect_from(&mut self, from: SocketAddr, to: SocketAddr) -> io::Result<usize> {
        if !self.reaches(from.ip(), to.ip()) || !self.reaches(to.ip(), from.ip()) {
            return Err(ErrorKind::TimedOut.into());
        }
        if self.listener_at(to).is_none() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let [dialer, acceptor] = [
            self.end_of(Owner::Test, from),
            self.end_of(Owner::Nothing, to),
        ];
        let index = self.add_connection(dialer, acceptor);
        self.connect(index);
        Ok(index)
    }

    pub(super) fn add_connection(&mut self, dialer: End, acceptor: End) -> usize {
        let index = self.connections.len();
        self.connections.push(Connection::new(dialer, acceptor));
        self.live.insert(index);
        index
    }

    pub(super) fn end_of(&mut self, owner: Owner, addr: SocketAddr) -> End {
        self.paths.learn(addr.ip(), &[]);
        match owner {
            Owner::Test => End::new(owner, addr, usize::MAX, usize::MAX),
            _ => End::new(owner, addr, self.send_buffer, self.receive_buffer),
        }
    }

    /// The process and the number of the listening socket that takes connections to this address.
    fn listener_at(&self, to: SocketAddr) -> Option<(usize, usize)> {
        let host = self.host_of(to.ip());
        (0..).zip(&self.processes).find_map(|(number, process)| {
            let mut listeners = process.listeners.iter();
            let found = listeners.find(|(_, listener)| {
                let is_there = match host {
                    Some(host) => process.host == host,
                    None => listener.is_adopted && listener.addr.ip() == to.ip(),
                };
                is_there && takes(&listener.addr, &to)
            });
            found.map(|(listener, _)| (number, *listener))
        })
    }

    /// A dial reaches a host. One to an address of no host waits for the test.
    fn connect(&mut self, index: usize) {
        let connection = &self.connections[index];
        if connection.ends[1].owner == Owner::Test {
            return;
        }
        match self.listener_at(connection.ends[1].addr) {
            Some((process, listener)) => {
                let connection = &mut self.connections[index];
                connection.ends[1].owner = Owner::Process(process);
                connection.establish();
                let listeners = &mut self.processes[process].listeners;
                if let Some(listener) = listeners.get_mut(&listener) {
                    listener.backlog.push_back(index);
                    listener.changed = true;
                    self.changes += 1;
                }
            }
            None => self.connections[index].break_both(ErrorKind::ConnectionRefused),
        }
        self.note(index);
    }

    /// Changes a connection, and queues the events of both ends.
    pub(super) fn with<T>(&mut self, index: usize, change: impl FnOnce(&mut Connection) -> T) -> T {
        let result = change(&mut self.connections[index]);
        self.note(index);
        result
    }

    /// Queues the events that are due for the ends of a connection, after a change of it.
    pub(super) fn note(&mut self, index: usize) {
        if self.connections[index].is_over() {
            self.connections[index].release_buffers();
            self.live.remove(&index);
            self.dead_at.remove(&(index, 0));
            self.dead_at.remove(&(index, 1));
        }
        for side in 0..2 {
            let end = &mut self.connections[index].ends[side];
            if !std::mem::take(&mut end.changed) {
                continue;
            }
            if let (Owner::Process(process), Some(_), false) = (end.owner, end.token, end.queued) {
                end.queued = true;
                self.processes[process].ready.push_back((index, side));
                self.changes += 1;
            }
        }
    }
}

/// Whether a socket that listens at `one` takes connections to `other`. As on Linux, a wildcard takes all addresses of its kind,
/// and `::` those of both.
pub(super) fn takes(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_wildcard = one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    one.port() == other.port() && (one.ip() == other.ip() || is_wildcard)
}
