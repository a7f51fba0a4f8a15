//! What the loop needs of an operating system, as a trait: sockets, readiness, a clock and name lookups.
//!
//! Nothing here knows peers or the roster: a connection learns only whose it must be. [`MioNet`](super::MioNet) is the real
//! implementation. A simulation implements the same trait and runs the same loop.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "tls")]
use crate::tls::TlsContext;
use crate::{
    outbox::{Clock, Wire},
    proto::{Reason, Sid},
};

/// A connection that never blocks.
pub trait Stream: Wire + 'static {
    /// Reads some bytes. 0 means that the far end has closed its direction.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing has arrived. The connection is then reported readable once something has.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Whether a read may return something although the last one returned less than there was room for. Then the loop reads on.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether the connection is established. `false` while that is not known yet, or if it is not established any more. It makes
    /// no difference whether the far end has closed its direction.
    ///
    /// A connection with a handshake of its own, such as TLS, is established when that has ended. For a dialed one, this method
    /// takes its next step: the loop calls it each time when the connection is readable or writable, until it returns `true`.
    ///
    /// # Errors
    ///
    /// Why the connection could not be made, or why it broke. An error that contains a [`Reason`] is reported as that reason.
    fn connected(&self) -> io::Result<bool>;

    /// Whether a handshake of its own is under way, so that the next step may cost as much as thousands of frames. The loop takes
    /// few such steps in one turn. A dialed connection says so until [`connected`](Self::connected) returns `true`: the loop calls
    /// that method for a readable connection only while this one returns `true`.
    fn is_handshaking(&self) -> bool {
        false
    }

    /// When [`connected`](Self::connected) will return `true` at the latest, even if the connection does not become ready before.
    /// `None`: not without becoming ready.
    fn connected_at(&self) -> Option<Instant> {
        None
    }

    /// The connection is writable again. One that has bytes of its own to send sends them.
    fn on_writable(&self) {}

    /// Checks that the far end is this server. The loop calls it when the connection is established and the sid is known: before
    /// its own initial message if it has dialed, else after that of the far end.
    ///
    /// # Errors
    ///
    /// Why it is another one.
    fn identify(&self, sid: Sid) -> Result<Identity, Reason> {
        let _ = sid;
        Ok(Identity::Claimed)
    }

    /// Closes one or both directions, as `shutdown(2)` does.
    ///
    /// # Errors
    ///
    /// If the connection is already gone.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Closes both directions at once. Bytes that were written and have not arrived are not sent again (`SO_LINGER` of zero).
    ///
    /// # Errors
    ///
    /// If the connection is already gone.
    fn abort(&self) -> io::Result<()>;
}

/// How it is known which server is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// It is the one that was dialed, or it says so itself.
    Claimed,
    /// It has proved it, for example by a certificate.
    Proved,
}

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// The connection that is watched under this token. Each change is reported once (edge-triggered): the next report may arrive
    /// only after `WouldBlock` was returned.
    Connection {
        /// The token given to [`Net::watch`].
        token: usize,
        /// There is something to read. The end of the connection and an error count too.
        readable: bool,
        /// There is room to write, or the connect has ended.
        writable: bool,
        /// The far end has closed its direction, or the connection is broken. After what can be read, the end follows.
        ended: bool,
    },
    /// A connection can be accepted on the listening socket with this number.
    Listener(usize),
    /// The connection that is watched under this token should be replaced soon: its keys may not be used much longer.
    Worn(usize),
    /// The waker was used, or a lookup was answered.
    Waker,
}

/// Ends a [`Net::wait`], from any thread.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The answer to a [`Net::lookup`].
#[derive(Debug)]
pub struct Found {
    /// The id that was given to [`Net::lookup`].
    pub lookup_id: u64,
    /// All addresses of the name, or the error of the resolver. The ports have no meaning; the scopes of IPv6 addresses do.
    pub answer: io::Result<Vec<SocketAddr>>,
}

/// A random number: the hash keys of the standard library are random. They differ between processes, and between two calls.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

/// The operating system below the loop.
pub trait Net {
    /// The type of its connections.
    type Stream: Stream;

    /// An end of a connection is to fail with `TimedOut` after this time without a sign of life of the far end
    /// ([`peer_dead_after`](crate::ConfigBuilder::peer_dead_after)). `EventLoop::with_net` calls this before any other method. Without
    /// an implementation, the network uses a time of its own.
    fn set_dead_after(&mut self, time: Duration) {
        let _ = time;
    }

    /// Speaks TLS from now on, with this identity. `EventLoop::with_net` calls this if TLS is configured, and again for each reload.
    ///
    /// # Errors
    ///
    /// `Unsupported` if this network cannot: only `TlsNet` can.
    #[cfg(feature = "tls")]
    fn set_tls(&mut self, context: Arc<TlsContext>) -> io::Result<()> {
        let _ = context;
        let why = "TLS is configured, and this network cannot speak it: put a TlsNet on top";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    /// The current time.
    fn now(&self) -> Instant;

    /// The clock of [`now`](Self::now), for the threads that send.
    fn clock(&self) -> Clock;

    /// Waits until something is ready, the waker is used, or `timeout` has passed (`None`: no limit). Appends to `ready`.
    ///
    /// # Errors
    ///
    /// Only an error after which the loop cannot continue. An interrupted wait is no error.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// Opens the listening socket with number `listener` and watches it. Returns the address to which it is bound.
    ///
    /// # Errors
    ///
    /// The error of the system. No socket is left open.
    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Takes a listening socket that is already bound, as number `listener`.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr>;

    /// Accepts a connection, which is not watched yet.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none. Any other error concerns this one connection or the resources of the machine.
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Closes the listening socket with this number. Connections that wait at it are reset.
    fn close_listener(&mut self, listener: usize);

    /// Closes all listening sockets.
    fn close_listeners(&mut self);

    /// Starts a connection, which is not watched yet.
    ///
    /// # Errors
    ///
    /// The error that the system reports at once.
    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream>;

    /// Reports the readiness of the connection under `token` from now on.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn watch(&mut self, stream: &Self::Stream, token: usize) -> io::Result<()>;

    /// Stops reporting the readiness of the connection.
    fn unwatch(&mut self, stream: &Self::Stream);

    /// Starts a name lookup without waiting. [`Net::found`] returns the answer.
    fn lookup(&mut self, lookup_id: u64, host: &str);

    /// The next answer that has arrived.
    fn found(&mut self) -> Option<Found>;

    /// The function that ends [`Net::wait`].
    fn waker(&self) -> Waker;

    /// A number that no other start of a loop has: what a peer takes for a restart
    /// ([`PeerStats::incarnation`](crate::PeerStats::incarnation)). By default it is random. A network in memory whose runs are
    /// repeated returns the same numbers each time.
    fn incarnation(&mut self) -> u64 {
        random()
    }
}
