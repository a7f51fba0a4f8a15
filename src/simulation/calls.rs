//! The calls that processes make of their simulated host.
//!
//! Nothing here moves the clock, and no call waits.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
};

use super::{
    connection::Owner,
    failures::Call,
    names::Lookup,
    state::{DIAL_PORTS_FROM, Idle, Listener, PORTS_AFTER, Process, State, takes},
};
use crate::{
    limits::{EVENTS_PER_TURN, PEER_DEAD_AFTER},
    net::{Found, Ready},
};

impl State {
    pub(super) fn start(&mut self, host: usize) -> usize {
        self.processes.push(Process {
            host,
            runs: true,
            dead_after: PEER_DEAD_AFTER,
            woken: false,
            listeners: BTreeMap::new(),
            ready: VecDeque::new(),
            found: VecDeque::new(),
            idle: Idle::default(),
        });
        self.processes.len() - 1
    }

    /// Counts a call of this process. An error if it is to fail, or if the process does not run any more.
    pub(super) fn on_call(&mut self, process: usize, call: Call) -> io::Result<usize> {
        let Process { host, runs, .. } = self.processes[process];
        if !runs {
            return Err(io::Error::new(
                ErrorKind::NetworkDown,
                "the host of this loop has lost power",
            ));
        }
        self.hosts[host].failures.on_call(call)?;
        Ok(host)
    }

    pub(super) fn wake(&mut self, process: usize) {
        self.processes[process].woken = true;
        self.changes += 1;
    }

    /// What is ready for this process.
    pub(super) fn collect(&mut self, process: usize, ready: &mut Vec<Ready>) {
        let before = ready.len();
        let it = &mut self.processes[process];
        if std::mem::take(&mut it.woken) {
            ready.push(Ready::Waker);
        }
        for (number, listener) in &mut it.listeners {
            if std::mem::take(&mut listener.changed) {
                ready.push(Ready::Listener(*number));
            }
        }
        while ready.len() - before < EVENTS_PER_TURN {
            let Some((index, side)) = it.ready.pop_front() else {
                break;
            };
            let connection = &mut self.connections[index];
            let readiness = connection.readiness(side);
            let end = &mut connection.ends[side];
            end.queued = false;
            let Some(token) = end.token else {
                continue;
            };
            if readiness.readable || readiness.writable {
                ready.push(Ready::Connection {
                    token,
                    readable: readiness.readable,
                    writable: readiness.writable,
                    ended: readiness.ended,
                });
            }
        }
        self.changes += (ready.len() - before) as u64;
    }

    pub(super) fn listen(
        &mut self,
        process: usize,
        listener: usize,
        mut at: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let host = self.on_call(process, Call::Listen)?;
        if !at.ip().is_unspecified() && !self.hosts[host].ips.contains(&at.ip()) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        if at.port() == 0 {
            at.set_port(self.choose_port(host, at.ip()));
        }
        if !self.is_free(host, at) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.open_listener(process, listener, at, false);
        Ok(at)
    }

    /// The next port that is free at this address of a host, from 50 001 on, and from there again after the last one. Some port if none
    /// is free.
    fn choose_port(&mut self, host: usize, ip: IpAddr) -> u16 {
        for _ in PORTS_AFTER..u16::MAX {
            let port = &mut self.hosts[host].last_port;
            *port = port.checked_add(1).unwrap_or(PORTS_AFTER + 1);
            let port = *port;
            if self.is_free(host, SocketAddr::new(ip, port)) {
                break;
            }
        }
        self.hosts[host].last_port
    }

    fn is_free(&self, host: usize, at: SocketAddr) -> bool {
        let mut others = self.listening(host);
        !others.any(|other| takes(&other, &at) || takes(&at, &other))
    }

    /// Takes a socket that is bound to an address of the machine on which the test runs.
    pub(super) fn adopt(
        &mut self,
        process: usize,
        listener: usize,
        at: SocketAddr,
    ) -> io::Result<()> {
        self.on_call(process, Call::Listen)?;
        self.open_listener(process, listener, at, true);
        Ok(())
    }

    fn open_listener(
        &mut self,
        process: usize,
        listener: usize,
        addr: SocketAddr,
        is_adopted: bool,
    ) {
        self.processes[process].listeners.insert(
            listener,
            Listener {
                addr,
                is_adopted,
                backlog: VecDeque::new(),
                changed: false,
            },
        );
    }

    /// The addresses at which processes of this host listen.
    pub(super) fn listening(&self, host: usize) -> impl Iterator<Item = SocketAddr> {
        self.listeners(host).map(|listener| listener.addr)
    }

    fn listeners(&self, host: usize) -> impl Iterator<Item = &Listener> {
        self.processes
            .iter()
            .filter(move |process| process.host == host)
            .flat_map(|process| process.listeners.values())
    }

    /// How many connections wait at this address of a host.
    pub(super) fn backlog(&self, host: usize, at: SocketAddr) -> usize {
        self.listeners(host)
            .filter(|listener| listener.addr == at)
            .map(|listener| listener.backlog.len())
            .sum()
    }

    /// The connection that waits first at this listening socket, and the address of its far end.
    pub(super) fn accept(
        &mut self,
        process: usize,
        listener: usize,
    ) -> io::Result<(usize, SocketAddr)> {
        self.on_call(process, Call::Accept)?;
        let listener = self.processes[process].listeners.get_mut(&listener);
        let listener = listener.ok_or(ErrorKind::NotConnected)?;
        let index = listener.backlog.pop_front();
        let index = index.ok_or(ErrorKind::WouldBlock)?;
        Ok((index, self.connections[index].ends[0].addr))
    }

    pub(super) fn close_listeners(&mut self, process: usize) {
        let listeners: Vec<usize> = self.processes[process].listeners.keys().copied().collect();
        for listener in listeners {
            self.close_listener(process, listener);
        }
    }

    pub(super) fn close_listener(&mut self, process: usize, listener: usize) {
        let listener = self.processes[process].listeners.remove(&listener);
        for index in listener.into_iter().flat_map(|it| it.backlog) {
            let connection = &mut self.connections[index];
            let _ = connection.reset(1);
            connection.close(1);
            self.note(index);
        }
    }

    /// The process ends. Its connections are closed as they are dropped.
    pub(super) fn end(&mut self, process: usize) {
        self.close_listeners(process);
        self.processes[process].runs = false;
    }

    pub(super) fn lookup(&mut self, process: usize, lookup_id: u64, name: &str) {
        let lookup = Lookup {
            process,
            lookup_id,
            name: name.to_owned(),
        };
        match self.names.is_holding {
            true => self.names.hold(lookup),
            false => self.answer(&lookup),
        }
    }

    pub(super) fn answer(&mut self, lookup: &Lookup) {
        let without_port = |ip| SocketAddr::new(ip, 0);
        let answer = self.names.answer(&lookup.name);
        let answer = answer.map(|ips| ips.into_iter().map(without_port).collect());
        let lookup_id = lookup.lookup_id;
        self.processes[lookup.process]
            .found
            .push_back(Found { lookup_id, answer });
        self.wake(lookup.process);
    }

    pub(super) fn dial(&mut self, process: usize, to: SocketAddr) -> io::Result<usize> {
        let host = self.on_call(process, Call::Dial)?;
        let state = &mut self.hosts[host];
        let mut ips = state.ips.iter();
        let from = *ips
            .find(|ip| ip.is_ipv4() == to.is_ipv4())
            .ok_or(ErrorKind::NetworkUnreachable)?;
        state.last_dial_port = state
            .last_dial_port
            .checked_add(1)
            .unwrap_or(DIAL_PORTS_FROM);
        let from = SocketAddr::new(from, state.last_dial_port);
        let is_known = self.host_of(to.ip()).is_some();
        let acceptor = match is_known {
            true => self.end_of(Owner::Nothing, to),
            false => self.end_of(Owner::Test, to),
        };
        let dialer = self.end_of(Owner::Process(process), from);
        let index = self.add_connection(dialer, acceptor);
        self.update_path(index);
        if !is_known {
            self.dials.push(index);
        }
        Ok(index)
    }

    pub(super) fn watch(&mut self, index: usize, side: usize, token: usize) {
        let end = &mut self.connections[index].ends[side];
        end.token = Some(token);
        // As epoll does, for what was there before.
        end.changed = true;
        self.note(index);
    }
}
