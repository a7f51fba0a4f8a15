//! What the loop needs of an operating system, as a trait: sockets, readiness, a clock and name lookups.
//!
//! [`MioNet`](super::MioNet) is the real one. A simulation implements the same trait and turns the same loop.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::outbox::Wire;

/// A connection that never blocks.
pub trait Stream: Wire + 'static {
    /// Reads some bytes; 0 means that the far end has ended its side.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; the connection is reported readable once there is.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Whether the connection stands; `false` while that is not known yet, or not any more. That the far end has ended its
    /// side makes no difference.
    ///
    /// # Errors
    ///
    /// Why it could not be made, or why it broke.
    fn connected(&self) -> io::Result<bool>;

    /// Ends one or both directions, as `shutdown(2)` does.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Ends both directions at once: what was written and has not arrived is not tried again (`SO_LINGER` of zero).
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    fn abort(&self) -> io::Result<()>;
}

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// The connection that is watched under this token. Reported once for each change (edge-triggered): the next
    /// report may come only after `WouldBlock` was seen.
    Link {
        /// The token given to [`Net::watch`].
        token: usize,
        /// There is something to read, an end or an error included.
        readable: bool,
        /// There is room to write, or the connect has ended.
        writable: bool,
        /// The far end has ended its side, or the connection is broken: an end follows what can be read.
        ended: bool,
    },
    /// A connection can be accepted on the listening socket of this number.
    Listener(usize),
    /// The waker was used, or a lookup was answered.
    Waker,
}

/// Wakes a loop out of [`Net::wait`], from any thread.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The answer to a [`Net::lookup`].
#[derive(Debug)]
pub struct Found {
    /// The number given with the question.
    pub lookup_id: u64,
    /// All addresses of the name, or what the resolver said. The ports mean nothing; the scopes of IPv6 addresses do.
    pub answer: io::Result<Vec<SocketAddr>>,
}

/// The system under the loop.
pub trait Net {
    /// Its connections.
    type Stream: Stream;

    /// The time.
    fn now(&self) -> Instant;

    /// Waits until something is ready, `timeout` has passed (`None`: for ever) or the waker was used. Appends to `ready`.
    ///
    /// # Errors
    ///
    /// Only what the loop cannot go on after; an interrupted wait is not one.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// Opens listening socket number `listener` and watches it. Returns where it is bound.
    ///
    /// # Errors
    ///
    /// What the system said; nothing is left open.
    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Takes a listening socket that is bound already as number `listener`.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr>;

    /// Accepts a connection, not yet watched.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none; anything else concerns this one connection or the resources of the machine.
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Closes all listening sockets.
    fn close_listeners(&mut self);

    /// Starts a connection, not yet watched.
    ///
    /// # Errors
    ///
    /// What the system said at once.
    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream>;

    /// Reports the connection's readiness under `token` from now on.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn watch(&mut self, stream: &Self::Stream, token: usize) -> io::Result<()>;

    /// Does not any more.
    fn unwatch(&mut self, stream: &Self::Stream);

    /// Looks a name up without waiting; [`Net::found`] brings the answer.
    fn lookup(&mut self, lookup_id: u64, host: &str);

    /// The next answer that has come.
    fn found(&mut self) -> Option<Found>;

    /// The way to wake [`Net::wait`].
    fn waker(&self) -> Waker;
}
