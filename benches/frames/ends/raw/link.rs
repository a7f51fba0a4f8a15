//! Dials and accepts bare connections, with the socket options that the library sets.
//!
//! The end that dials sends a number of 8 bytes, like the initial message of the library.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use quorum_cnx::simulation::limits;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::{
    ends::{Task, tls},
    failure::{While, failure},
};

/// Timeout of `connect`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted: all of the largest fan-out.
const BACKLOG: i32 = 4096;

/// Failed attempts between two calls of `yield_now`.
const TRIES_PER_YIELD: u32 = 16;

/// Sets the same socket options as the library.
pub(crate) fn options(task: &Task, socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket.set_tcp_user_timeout(Some(task.dead_after()))?;
        if let Some(bytes) = task.unsent_limit() {
            socket.set_tcp_notsent_lowat(bytes)?;
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = task;
    Ok(())
}

/// Connects to the other end, and sends this number.
pub(crate) fn dial(task: &Task, number: u64) -> io::Result<TcpStream> {
    let to = task
        .to
        .ok_or_else(|| failure("`drive` needs --to IP:PORT, which `serve` has printed"))?;
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT).context(format_args!(
        "connecting to {to}; is `serve` running there?"
    ))?;
    options(task, SockRef::from(&stream))?;
    if task.variant.has_tls {
        tls::send_number(&mut stream, number)?;
    } else {
        stream.write_all(&number.to_be_bytes())?;
    }
    Ok(stream)
}

/// Opens the listening socket.
pub(crate) fn listen(task: &Task) -> io::Result<(TcpListener, SocketAddr)> {
    let open = || {
        let socket = Socket::new(
            Domain::for_address(task.listen),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&task.listen.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let at = listener.local_addr()?;
        Ok::<_, io::Error>((listener, at))
    };
    open().context(format_args!("listening on {}", task.listen))
}

/// Accepts one connection, and reads its number.
pub(crate) fn accept(task: &Task, listener: &TcpListener) -> io::Result<(TcpStream, u64)> {
    let (mut stream, _) = listener.accept().context("accepting a connection")?;
    options(task, SockRef::from(&stream))?;
    let number = read_number(&mut stream)?;
    Ok((stream, number))
}

/// Reads the number of a new connection.
pub(crate) fn read_number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut number = [0; 8];
    stream
        .read_exact(&mut number)
        .context("reading the number of a new connection")?;
    Ok(u64::from_be_bytes(number))
}

/// A connection whose reads and writes spin or block.
pub(crate) struct Spinner(TcpStream);

impl Spinner {
    pub(crate) fn new(stream: TcpStream, spins: bool) -> io::Result<Self> {
        stream.set_nonblocking(spins)?;
        Ok(Self(stream))
    }

    fn retry<T>(once: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        retry(once, TRIES_PER_YIELD, || Ok(()))
    }
}

/// Retries while the operation would block. After each `tries_max` attempts it calls `between`, and yields the processor.
fn retry<T>(
    mut once: impl FnMut() -> io::Result<T>,
    tries_max: u32,
    mut between: impl FnMut() -> io::Result<()>,
) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match once() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tries += 1;
                if tries % tries_max == 0 {
                    between()?;
                    thread::yield_now();
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Read for Spinner {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::retry(|| self.0.read(buffer))
    }
}

impl Write for Spinner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::retry(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A spinning connection that is also registered with a readiness queue, as in an event loop with several connections. It shows the
/// cost of that registration alone. The queue is polled as often as the library polls it.
pub(crate) struct Watched {
    stream: TcpStream,
    poll: Poll,
    events: Events,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&stream.as_raw_fd()),
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            stream,
            poll,
            events: Events::with_capacity(limits::EVENTS_PER_TURN),
        })
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self {
            stream,
            poll,
            events,
        } = self;
        retry(
            || stream.read(buffer),
            limits::HOT_READS as u32,
            || poll.poll(events, Some(Duration::ZERO)),
        )
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Spinner::retry(|| self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shuts a connection down when dropped, so that blocked threads return.
pub(crate) struct ShutdownOnDrop(pub(crate) TcpStream);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        // Fails if the other end has closed it.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
