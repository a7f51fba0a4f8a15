//! A simulated host as the [`Net`] of a loop.
//!
//! Nothing here decides anything: each call locks the state of the network and is made there.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    connection::Owner,
    failures::Call,
    state::{Shared, State},
};
use crate::{
    net::{Found, Net, Ready, Stream, Waker},
    outbox::{Clock, Wire},
};

/// The network of one loop on a simulated host: see [`Host::net`](super::Host::net).
///
/// It is the process of the loop. When it is dropped, with the loop, the process ends: its listening sockets and connections are
/// closed.
pub struct HostNet {
    shared: Shared,
    process: usize,
}

/// A connection of a loop on a simulated host. It is closed when it is dropped.
pub struct HostStream {
    shared: Shared,
    connection: usize,
    side: usize,
}

impl HostNet {
    pub(super) fn new(shared: Shared, host: usize) -> Self {
        let process = shared.lock().start(host);
        Self { shared, process }
    }

    /// Whether the process runs: its host has not lost power since it began.
    pub(super) fn runs(&self) -> bool {
        self.shared.lock().processes[self.process].runs
    }

    /// The first address of the host, if it has one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        let state = self.shared.lock();
        let host = state.processes[self.process].host;
        state.hosts[host].ips.first().copied()
    }

    fn stream(&self, connection: usize, side: usize) -> HostStream {
        self.shared.lock().connections[connection].ends[side].held = true;
        HostStream {
            shared: self.shared.clone(),
            connection,
            side,
        }
    }
}

impl Net for HostNet {
    type Stream = HostStream;

    fn set_dead_after(&mut self, time: Duration) {
        self.shared.lock().processes[self.process].dead_after = time;
    }

    /// The number of the process on this network.
    fn incarnation(&mut self) -> u64 {
        self.process as u64 + 1
    }

    fn now(&self) -> Instant {
        self.shared.lock().instant()
    }

    fn clock(&self) -> Clock {
        let shared = self.shared.clone();
        Clock::new(move || shared.lock().instant())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.on_call(self.process, Call::Wait)?;
        let before = ready.len();
        state.collect(self.process, ready);
        let is_idle = ready.len() == before;
        let Some(least) = state.wait_min else {
            return match is_idle {
                true => state.on_idle_wait(self.process),
                false => Ok(()),
            };
        };
        if !is_idle {
            state.advance(least);
            return Ok(());
        }
        let until = state.deadline().map(|at| at.saturating_sub(state.now));
        let Some(time) = timeout.into_iter().chain(until).min() else {
            return Err(io::Error::other("nothing would ever end this wait"));
        };
        state.advance(time.max(least));
        state.collect(self.process, ready);
        match ready.len() > before {
            true => Ok(()),
            false => state.on_idle_wait(self.process),
        }
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.shared.lock().listen(self.process, listener, at)
    }

    /// Listens at the address of the socket, from which nothing is accepted.
    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr> {
        let at = bound.local_addr()?;
        self.shared.lock().adopt(self.process, listener, at)?;
        Ok(at)
    }

    fn accept(&mut self, listener: usize) -> io::Result<(HostStream, SocketAddr)> {
        let (connection, from) = self.shared.lock().accept(self.process, listener)?;
        Ok((self.stream(connection, 1), from))
    }

    fn close_listener(&mut self, listener: usize) {
        self.shared.lock().close_listener(self.process, listener);
    }

    fn close_listeners(&mut self) {
        self.shared.lock().close_listeners(self.process);
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<HostStream> {
        let connection = self.shared.lock().dial(self.process, to)?;
        Ok(self.stream(connection, 0))
    }

    fn watch(&mut self, stream: &HostStream, token: usize) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.on_call(self.process, Call::Watch)?;
        state.watch(stream.connection, stream.side, token);
        Ok(())
    }

    fn unwatch(&mut self, stream: &HostStream) {
        let mut state = self.shared.lock();
        state.connections[stream.connection].ends[stream.side].token = None;
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.shared.lock().lookup(self.process, lookup_id, host);
    }

    fn found(&mut self) -> Option<Found> {
        self.shared.lock().processes[self.process].found.pop_front()
    }

    fn waker(&self) -> Waker {
        let (shared, process) = (self.shared.clone(), self.process);
        Arc::new(move || shared.lock().wake(process))
    }
}

impl Drop for HostNet {
    fn drop(&mut self) {
        self.shared.lock().end(self.process);
    }
}

impl HostStream {
    /// Counts a call of the process that holds this end. An error if it is to fail.
    fn on_call(&self, state: &mut State, call: Call) -> io::Result<()> {
        let end = &state.connections[self.connection].ends[self.side];
        match end.owner {
            Owner::Process(process) => state.on_call(process, call).map(|_| ()),
            Owner::Nothing | Owner::Test => Ok(()),
        }
    }
}

impl Wire for HostStream {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        self.on_call(&mut state, Call::Write)?;
        state.with(self.connection, |it| it.write(self.side, bufs))
    }
}

impl Stream for HostStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        self.on_call(&mut state, Call::Read)?;
        state.with(self.connection, |it| it.read(self.side, buf))
    }

    fn connected(&self) -> io::Result<bool> {
        let mut state = self.shared.lock();
        state.with(self.connection, |it| it.connected(self.side))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut state = self.shared.lock();
        self.on_call(&mut state, Call::Shutdown)?;
        state.with(self.connection, |it| it.shutdown(self.side, how))
    }

    fn abort(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        self.on_call(&mut state, Call::Shutdown)?;
        state.with(self.connection, |it| it.abort(self.side))
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.with(self.connection, |it| it.close(self.side));
    }
}

impl fmt::Debug for HostNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostNet").finish_non_exhaustive()
    }
}

impl fmt::Debug for HostStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostStream({})", self.connection)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
