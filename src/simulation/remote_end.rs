//! The end of a connection that a test holds, in place of a server.
//!
//! Nothing here speaks a protocol: the test says each byte.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Shutdown, SocketAddr},
};

use super::state::Shared;

/// An end of a connection that the test holds: one that it has opened ([`Network::connect`](super::Network::connect)), or one that
/// a loop has dialed ([`Network::take_dials`](super::Network::take_dials)).
///
/// The other end belongs to a loop. Clones are the same end. Dropping it changes nothing: the connection stays open.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Sid};
/// use quorum_cnx::simulation::Network;
/// use std::time::Duration;
///
/// struct Last(Vec<u8>);
///
/// impl Handler for Last {
///     fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
///         self.0 = frame.to_vec();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new();
/// let config = Config::builder(Sid(1))
///     .server(Sid(1), "10.0.0.1:3888")
///     .server(Sid(2), "10.0.0.2:3888")
///     .build()?;
/// let net = network.host([10, 0, 0, 1]).net();
/// let mut loops = [EventLoop::with_net(config, Last(Vec::new()), net)?];
///
/// // The test is server 2. The first 8 bytes are its sid, then each frame has its length in front of it.
/// let end = network.connect("10.0.0.2:40000".parse()?, "10.0.0.1:3888".parse()?)?;
/// end.send(&2_i64.to_be_bytes())?;
/// end.send(&[0, 0, 0, 5])?;
/// end.send(b"hello")?;
/// network.run(&mut loops, Duration::from_millis(1))?;
/// assert_eq!(loops[0].handler().0, b"hello");
///
/// loops[0].handle().to_send(Sid(2), "answer")?;
/// assert_eq!(end.received(), b"\x00\x00\x00\x06answer");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteEnd {
    shared: Shared,
    connection: usize,
    side: usize,
}

impl RemoteEnd {
    pub(super) fn new(shared: Shared, connection: usize, side: usize) -> Self {
        Self {
            shared,
            connection,
            side,
        }
    }

    /// The address of this end.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.lock().connections[self.connection].ends[self.side].addr
    }

    /// The address of the loop's end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.lock().connections[self.connection].ends[1 - self.side].addr
    }

    /// Whether the loop has dialed this connection.
    #[must_use]
    pub fn was_dialed(&self) -> bool {
        self.side == 1
    }

    /// Completes the connection that the loop has dialed.
    ///
    /// # Errors
    ///
    /// If it is not connecting any more, for example since the loop has given up.
    pub fn accept(&self) -> io::Result<()> {
        self.with(|it, _| match it.is_connecting() {
            true => {
                it.establish();
                Ok(())
            }
            false => Err(ErrorKind::NotConnected.into()),
        })
    }

    /// Refuses the connection that the loop has dialed, as a host does where nothing listens.
    ///
    /// # Errors
    ///
    /// If it is not connecting any more.
    pub fn refuse(&self) -> io::Result<()> {
        self.with(|it, _| match it.is_connecting() {
            true => {
                it.break_both(ErrorKind::ConnectionRefused);
                Ok(())
            }
            false => Err(ErrorKind::NotConnected.into()),
        })
    }

    /// Sends bytes to the loop. There is no bound: what its buffer does not take yet follows later.
    ///
    /// # Errors
    ///
    /// If the connection is not established, or this end has closed it, or it has broken.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.with(|it, side| it.send(side, bytes))
    }

    /// All bytes that have arrived from the loop, without those that were [taken](Self::take_received).
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.shared.lock().connections[self.connection].received(self.side)
    }

    /// The same, and takes them, so that the next call returns only later bytes. It does not make room.
    #[must_use = "the bytes are returned by no later call"]
    pub fn take_received(&self) -> Vec<u8> {
        self.with(|it, side| it.take_received(side))
    }

    /// From now on the loop can write this many bytes, and no more. Without this call there is no bound.
    pub fn set_room(&self, bytes: usize) {
        self.with(|it, side| it.set_room(side, bytes, false));
    }

    /// The loop can write this many bytes more.
    pub fn make_room(&self, bytes: usize) {
        self.with(|it, side| it.set_room(side, bytes, true));
    }

    /// Closes the direction to the loop, as `shutdown(SHUT_WR)` does. The loop reads the bytes that were sent, and then the end. It may
    /// still write.
    ///
    /// # Errors
    ///
    /// If the connection is not established, or has broken.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.with(|it, side| match it.is_connecting() {
            true => Err(ErrorKind::NotConnected.into()),
            false => it.shutdown(side, Shutdown::Write),
        })
    }

    /// Resets the connection. Bytes that have not arrived are lost.
    pub fn reset(&self) {
        self.fail(ErrorKind::ConnectionReset);
    }

    /// Breaks the connection. The next call of the loop on it returns this error, for example
    /// [`TimedOut`](ErrorKind::TimedOut) when its system has found this end dead. Later calls of the loop find the connection
    /// closed.
    pub fn fail(&self, error: ErrorKind) {
        self.with(|it, _| it.break_both(error));
    }

    /// Whether the connection is established and neither end has closed a direction.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.lock().connections[self.connection].is_open()
    }

    /// Whether the loop has closed its direction or the whole connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().connections[self.connection].far_has_closed(self.side)
    }

    /// Whether a reset of the loop has arrived.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.shared.lock().connections[self.connection].was_reset(self.side)
    }

    /// Whether the last write of the loop found too little room, and there was none since.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.shared.lock().connections[self.connection].is_blocked(1 - self.side)
    }

    fn with<T>(&self, change: impl FnOnce(&mut super::connection::Connection, usize) -> T) -> T {
        let mut state = self.shared.lock();
        state.with(self.connection, |it| change(it, self.side))
    }
}

impl fmt::Debug for RemoteEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEnd")
            .field("local_addr", &self.local_addr())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
