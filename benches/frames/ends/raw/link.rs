//! Bare connections: dialed, accepted, with the socket options that the library sets.
//!
//! Who connects says its number in 8 bytes, as a dialer of the library does.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use quorum_cnx::limits;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::{
    ends::Task,
    failure::{While, failure},
};

/// Who connects in this time, or never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted: those of the largest fan-out at once.
const BACKLOG: i32 = 4096;

/// Tries in vain before the processor is offered to others.
const TRIES_PER_YIELD: u32 = 16;

/// Sets what the library sets.
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

/// Connects to the other end as this number.
pub(crate) fn dial(task: &Task, number: u64) -> io::Result<TcpStream> {
    let to = task
        .to
        .ok_or_else(|| failure("`drive` needs --to IP:PORT, which `serve` has printed"))?;
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT).context(format_args!(
        "connecting to {to}; is `serve` running there?"
    ))?;
    options(task, SockRef::from(&stream))?;
    stream.write_all(&number.to_be_bytes())?;
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

/// Accepts one connection, and hears its number.
pub(crate) fn take(task: &Task, listener: &TcpListener) -> io::Result<(TcpStream, u64)> {
    let (mut stream, _) = listener.accept().context("accepting a connection")?;
    options(task, SockRef::from(&stream))?;
    let number = hello(&mut stream)?;
    Ok((stream, number))
}

/// Hears the number of who has connected.
pub(crate) fn hello(stream: &mut TcpStream) -> io::Result<u64> {
    let mut number = [0; 8];
    stream
        .read_exact(&mut number)
        .context("waiting for the number of who has connected")?;
    Ok(u64::from_be_bytes(number))
}

/// A connection of somebody who waits by asking again and again, or blocks.
pub(crate) struct Spinner(TcpStream);

impl Spinner {
    pub(crate) fn new(stream: TcpStream, spins: bool) -> io::Result<Self> {
        stream.set_nonblocking(spins)?;
        Ok(Self(stream))
    }

    fn again<T>(once: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        again(once, TRIES_PER_YIELD, || Ok(()))
    }
}

/// Tries until it need not wait. After so many tries in vain it does what is to be done between, and offers the processor to
/// others.
fn again<T>(
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
        Self::again(|| self.0.read(buffer))
    }
}

impl Write for Spinner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::again(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same, spinning, and a readiness queue watches it, as it must for a loop that serves more than one: what that costs when
/// nothing else is done. It is asked as often as the library asks it.
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
        again(
            || stream.read(buffer),
            limits::HOT_READS as u32,
            || poll.poll(events, Some(Duration::ZERO)),
        )
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Spinner::again(|| self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Closes a connection for both directions when an end is over, so that threads in it return.
pub(crate) struct Hangup(pub(crate) TcpStream);

impl Drop for Hangup {
    fn drop(&mut self) {
        // Fails when the other end was faster.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
