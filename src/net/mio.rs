//! [`Net`] on mio and socket2: real sockets, and their options.
//!
//! Nothing here decides about peers.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use socket2::{Domain, SockRef};

use super::{
    platform::{self, EAFNOSUPPORT, EINPROGRESS, SEND_FLAGS},
    resolver::Resolver,
    traits::{Found, Net, Ready, Stream, Waker},
};
use crate::{
    config::Options,
    limits::{
        EVENTS_PER_TURN, LISTEN_ADDRESSES_MAX, LISTEN_BACKLOG, NAME_ADDRESSES_MAX, RESENT_AFTER,
    },
    outbox::{Clock, Wire},
    shared::Home,
};

/// The tokens of connections are places in a slab, and stay far below these.
const WAKER: Token = Token(usize::MAX);
const FIRST_LISTENER: usize = usize::MAX - 1;

/// The real network.
#[allow(
    unnameable_types,
    reason = "a detail: applications name an `EventLoop<H>`, whose network this is"
)]
pub struct MioNet {
    poll: Poll,
    events: Events,
    listeners: Vec<Option<TcpListener>>,
    resolver: Resolver,
    waker: Waker,
    socket_options: SocketOptions,
    home: Home,
}

/// Options of accepted and of dialed sockets.
#[derive(Clone, Debug)]
struct SocketOptions {
    dead_after: Duration,
    unsent_limit: Option<u32>,
    receive_buffer: Option<usize>,
    congestion_control: Option<String>,
    dial_from: Option<IpAddr>,
}

impl MioNet {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let waker: Waker = Arc::new(move || {
            // Fails only if the process is out of kernel memory. The loop then finds the work at its next deadline.
            if let Err(error) = waker.wake() {
                log::error!("cannot wake the loop: {error}");
            }
        });
        let socket_options = SocketOptions {
            dead_after: options.peer_dead_after,
            unsent_limit: options.unsent_limit,
            receive_buffer: options.receive_buffer,
            congestion_control: options.congestion_control.clone(),
            dial_from: options.dial_from,
        };
        socket_options.check()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            listeners: Vec::new(),
            resolver: Resolver::new(waker.clone()),
            waker,
            socket_options,
            home: Home::here(),
        })
    }

    /// Has `recall` called first at each wake-up. If it returns `true`, it has woken the thread that runs the next turn.
    pub(crate) fn recall_by(&mut self, recall: impl Fn() -> bool + Send + Sync + 'static) {
        let waker = Arc::clone(&self.waker);
        self.waker = Arc::new(move || {
            if !recall() {
                waker();
            }
        });
    }

    fn stream(&self, socket: TcpStream) -> MioStream {
        let home = self.home;
        MioStream { socket, home }
    }

    fn install(&mut self, listener: usize, mut bound: TcpListener) -> io::Result<SocketAddr> {
        let at = bound.local_addr()?;
        self.poll.registry().register(
            &mut bound,
            Token(FIRST_LISTENER - listener),
            Interest::READABLE,
        )?;
        if self.listeners.len() <= listener {
            self.listeners.resize_with(listener + 1, || None);
        }
        self.listeners[listener] = Some(bound);
        Ok(at)
    }
}

impl Net for MioNet {
    type Stream = MioStream;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn clock(&self) -> Clock {
        Clock::new(Instant::now)
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        ready.extend(self.events.iter().map(|event| match event.token() {
            WAKER => Ready::Waker,
            Token(token) if token > FIRST_LISTENER - MAX_LISTENERS => {
                Ready::Listener(FIRST_LISTENER - token)
            }
            Token(token) => {
                let ended = event.is_read_closed() || event.is_write_closed() || event.is_error();
                Ready::Connection {
                    token,
                    readable: event.is_readable() || ended,
                    writable: event.is_writable() || ended,
                    ended,
                }
            }
        }));
        Ok(())
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()));
        let (socket, at) = match platform::tcp_socket(Domain::for_address(at)) {
            // If the kernel has no IPv6, "all addresses" means those of IPv4.
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && is_any_v6(at) => {
                (platform::tcp_socket(Domain::IPV4)?, any_v4)
            }
            socket => (socket?, at),
        };
        // A restarted server must get its port while old connections linger (ZOOKEEPER-275).
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            // `::` takes IPv4 too, as Java's wildcard does. A specific address is not affected.
            socket.set_only_v6(false)?;
        }
        self.socket_options
            .apply_receive_buffer(SockRef::from(&socket))?;
        socket.bind(&at.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        self.install(listener, TcpListener::from_std(socket.into()))
    }

    fn adopt(&mut self, listener: usize, bound: std::net::TcpListener) -> io::Result<SocketAddr> {
        bound.set_nonblocking(true)?;
        let socket = SockRef::from(&bound);
        // Socket activation leaves it open for `exec`. A program that the application starts later would keep the port after
        // `halt`.
        socket.set_cloexec(true)?;
        platform::prevent_sigpipe(&socket)?;
        self.socket_options.apply_receive_buffer(socket)?;
        self.install(listener, TcpListener::from_std(bound))
    }

    fn accept(&mut self, listener: usize) -> io::Result<(MioStream, SocketAddr)> {
        let Some(Some(bound)) = self.listeners.get(listener) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (stream, from) = bound.accept()?;
        // On xnu, a connection that was reset meanwhile takes no options (`EINVAL`, `sosetoptlock` in bsd/kern/uipc_socket.c). That
        // says nothing about the listening socket.
        let gone = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        self.socket_options
            .apply(SockRef::from(&stream))
            .map_err(gone)?;
        Ok((self.stream(stream), from))
    }

    fn close_listener(&mut self, listener: usize) {
        if let Some(mut bound) = self.listeners.get_mut(listener).and_then(Option::take) {
            // As below.
            let _ = self.poll.registry().deregister(&mut bound);
        }
    }

    fn close_listeners(&mut self) {
        for mut bound in self.listeners.drain(..).flatten() {
            // Closing the socket removes the registration as well. This call only saves the kernel a lookup.
            let _ = self.poll.registry().deregister(&mut bound);
        }
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<MioStream> {
        let socket = platform::tcp_socket(Domain::for_address(to))?;
        self.socket_options.apply(SockRef::from(&socket))?;
        self.socket_options
            .apply_receive_buffer(SockRef::from(&socket))?;
        if let Some(from) = self
            .socket_options
            .dial_from
            .filter(|from| from.is_ipv4() == to.is_ipv4())
        {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.stream(TcpStream::from_std(socket.into())))
    }

    fn watch(&mut self, stream: &MioStream, token: usize) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(
            &mut SourceFd(&stream.as_fd().as_raw_fd()),
            Token(token),
            interests,
        )
    }

    fn unwatch(&mut self, stream: &MioStream) {
        // Fails only if it was not watched. In both cases nothing is reported any more.
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&stream.as_fd().as_raw_fd()));
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.resolver.lookup(lookup_id, host);
    }

    fn found(&mut self) -> Option<Found> {
        self.resolver.found()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// How many listening sockets have a token.
const MAX_LISTENERS: usize = 1 << 16;
const _: () = assert!(
    LISTEN_ADDRESSES_MAX * NAME_ADDRESSES_MAX < MAX_LISTENERS,
    "each address of each name may have one"
);

fn is_any_v6(at: SocketAddr) -> bool {
    at.is_ipv6() && at.ip().is_unspecified()
}

/// `connect(2)` on a nonblocking socket returns `EINPROGRESS`. `std` has no stable name for it on every platform.
fn in_progress(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(EINPROGRESS)
}

impl SocketOptions {
    /// Checks the congestion control. One that the system does not have or allow would end every link as soon as it is made.
    fn check(&self) -> io::Result<()> {
        let Some(name) = &self.congestion_control else {
            return Ok(());
        };
        let Some(names) = platform::CONGESTION_CONTROLS else {
            log::warn!(
                "congestion control {name}: it cannot be chosen on this system; links use the system's default"
            );
            return Ok(());
        };
        let socket = platform::tcp_socket(Domain::IPV4)?;
        platform::set_congestion_control(&SockRef::from(&socket), name).map_err(|error| {
            let why = format!("congestion control {name}, which must be in {names}: {error}");
            io::Error::new(error.kind(), why)
        })
    }

    fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        // A frame is sent when it is written: the kernel does not wait for more.
        socket.set_tcp_nodelay(true)?;
        // One setting bounds the time to detect a dead peer (ZOOKEEPER-1748).
        let Probing {
            idle,
            interval,
            probes,
            unacknowledged,
        } = Probing::within(self.dead_after);
        socket.set_tcp_keepalive(&platform::keepalive(idle, interval, probes))?;
        platform::limit_unacknowledged(&socket, unacknowledged)?;
        platform::prevent_sigpipe(&socket)?;
        if let Some(bytes) = self.unsent_limit {
            platform::limit_unsent(&socket, bytes)?;
        }
        if let Some(name) = &self.congestion_control {
            platform::set_congestion_control(&socket, name)?;
        }
        Ok(())
    }

    /// Sets the receive buffer of a listening socket, from which accepted sockets inherit it, or of a socket to dial. It must be
    /// set before the connection is made, since the kernel chooses the window scale by it.
    fn apply_receive_buffer(&self, socket: SockRef<'_>) -> io::Result<()> {
        match self.receive_buffer {
            Some(bytes) => socket.set_recv_buffer_size(bytes),
            None => Ok(()),
        }
    }
}

/// How the kernel detects that a peer is dead.
#[derive(Clone, Copy, Debug)]
struct Probing {
    /// Time from the last sign of life to the first keepalive probe, in whole seconds.
    idle: Duration,
    /// Time between two probes, in whole seconds.
    interval: Duration,
    probes: u32,
    /// `TCP_USER_TIMEOUT`.
    unacknowledged: Duration,
}

impl Probing {
    /// An idle link ends within `time` after the last sign of life. A link with a frame under way ends within `time` after that
    /// frame.
    fn within(time: Duration) -> Self {
        let secs = time.as_secs();
        let idle = (secs * 2 / 5).clamp(1, MAX_IDLE_SECS);
        let rest = secs.saturating_sub(idle).max(1);
        let interval = rest.div_ceil(MAX_PROBES);
        let probes = rest.div_ceil(interval);
        // The remainder is taken from the idle time, so that the last interval ends after `secs` and not later.
        let idle = secs.saturating_sub(probes * interval).max(1);
        let verdict = Duration::from_secs(idle + probes * interval);
        Self {
            idle: Duration::from_secs(idle),
            interval: Duration::from_secs(interval),
            probes: probes as u32,
            // It decides about idle links too: when Linux would send another probe, it checks this time and not the number of
            // probes (`tcp_keepalive_timer`).
            unacknowledged: time.saturating_sub(RESENT_AFTER).min(verdict),
        }
    }
}

/// Linux accepts at most this many keepalive probes (`MAX_TCP_KEEPCNT`).
const MAX_PROBES: u64 = 127;

/// Linux accepts at most this many seconds before the first probe (`MAX_TCP_KEEPIDLE`).
const MAX_IDLE_SECS: u64 = 32_767;

/// A connection of [`MioNet`].
#[derive(Debug)]
#[allow(
    unnameable_types,
    reason = "a detail: applications name an `EventLoop<H>`, whose connections these are"
)]
pub struct MioStream {
    socket: TcpStream,
    home: Home,
}

impl Wire for MioStream {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // A forked process shares the socket. Its bytes would appear in the middle of a frame of the parent.
        if !self.home.is_here_or_turns() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Not `writev(2)`, which takes no flags.
        let socket = SockRef::from(self);
        let mut small = [0; SMALL_WRITE_BYTES];
        let mut len = 0;
        for buf in bufs {
            let Some(room) = small.get_mut(len..len + buf.len()) else {
                return socket.send_vectored_with_flags(bufs, SEND_FLAGS);
            };
            room.copy_from_slice(buf);
            len += buf.len();
        }
        socket.send_with_flags(&small[..len], SEND_FLAGS)
    }
}

/// A prefix and a payload of at most this many bytes together are copied into one buffer. That costs less than a vectored write:
/// 150 to 250 ns less of the 7.8 us of a write and its read, measured from 64 B to 1 KiB.
const SMALL_WRITE_BYTES: usize = 1280;

impl Stream for MioStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.socket, buf)
    }

    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            // A dial to a local port without a listener can connect to itself (simultaneous open).
            Ok(peer) if self.socket.local_addr()? == peer => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected || in_progress(&error) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    fn abort(&self) -> io::Result<()> {
        // The reset is sent when the last owner closes the socket. A thread that is writing sees the end before that.
        SockRef::from(self).set_linger(Some(Duration::ZERO))?;
        self.socket.shutdown(Shutdown::Both)
    }
}

impl AsFd for MioStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for MioNet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl fmt::Debug for MioNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MioNet")
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
