//! Serves statistics over HTTP/1.1, as Prometheus asks for them: `GET /metrics`, one request on each connection.
//!
//! The loop never waits for a connection here. The other examples use this file, too.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::Stats;

/// Connections that are open at the same time, each with a thread. Prometheus uses one. When one more arrives, the oldest is closed, so
/// that a scrape waits for no slow connection.
const CONNECTIONS_MAX: usize = 32;

/// Time for the whole of a connection, less than the 10 s that Prometheus waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Length of a request with its header. That of Prometheus has some hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Pause after a failed accept, or without a thread: it most likely fails again at once, for example since no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Checks the argument of `--metrics`.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        (!host.is_empty()).then_some(port)
    });
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err("this is not HOST:PORT, for example 127.0.0.1:9464".into()),
    }
}

/// Opens the socket, before anything else is started.
pub(crate) fn listen(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .map_err(|error| format!("--metrics: cannot listen at {address}: {error}"))
}

/// Starts the thread that accepts connections, and returns the address. It runs until the process ends.
pub(crate) fn serve(
    listener: TcpListener,
    stats: impl Fn() -> Stats + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let stats = Arc::new(stats);
    let accept_all = move || {
        let mut connections = VecDeque::new();
        loop {
            let accepted = listener.accept();
            let started = accepted.and_then(|(new, _)| start(new, &mut connections, &stats));
            if started.is_err() {
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    };
    thread::Builder::new()
        .name("metrics".into())
        .spawn(accept_all)?;
    Ok(address)
}

/// Starts the thread that answers a new connection and drops it. If there can be no thread, the connection is closed.
fn start(
    new: TcpStream,
    connections: &mut VecDeque<Weak<TcpStream>>,
    stats: &Arc<impl Fn() -> Stats + Send + Sync + 'static>,
) -> io::Result<()> {
    connections.retain(|connection| connection.strong_count() > 0);
    if connections.len() >= CONNECTIONS_MAX {
        if let Some(oldest) = connections.pop_front().and_then(|oldest| oldest.upgrade()) {
            // Its thread ends, since it can neither read nor write any more.
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }
    let (new, stats) = (Arc::new(new), Arc::clone(stats));
    let weak = Arc::downgrade(&new);
    thread::Builder::new()
        .name("metrics".into())
        // Whatever goes wrong with a connection: the client asks again.
        .spawn(move || _ = answer(&new, &*stats))?;
    connections.push_back(weak);
    Ok(())
}

fn answer(mut connection: &TcpStream, stats: &impl Fn() -> Stats) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let (status, body) = match read_request(connection, deadline)? {
        Some(request) => match check(&request) {
            Ok(()) => ("200 OK", text_of(&stats())),
            Err(status) => (status, String::new()),
        },
        None => ("431 Request Header Fields Too Large", String::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let response = head + &body;
    let mut rest = response.as_bytes();
    while !rest.is_empty() {
        connection.set_write_timeout(Some(left(deadline)?))?;
        rest = &rest[connection.write(rest)?..];
    }
    connection.shutdown(Shutdown::Write)
}

/// The request, at least up to the empty line, or `None` if it is too long.
fn read_request(mut connection: &TcpStream, deadline: Instant) -> io::Result<Option<String>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        connection.set_read_timeout(Some(left(deadline)?))?;
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend(&buffer[..count]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&request).into_owned()))
}

/// Whether the request asks for the metrics; else the status that says why not.
fn check(request: &str) -> Result<(), &'static str> {
    let line = request.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [method, target, version] if version.starts_with("HTTP/1.") => {
            match target.split('?').next() {
                Some("/metrics") if method == "GET" => Ok(()),
                Some("/metrics") => Err("405 Method Not Allowed\r\nAllow: GET"),
                _ => Err("404 Not Found"),
            }
        }
        _ => Err("400 Bad Request"),
    }
}

/// The time that is left, which is never zero.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn text_of(stats: &Stats) -> String {
    let mut text = String::new();
    stats
        .write_openmetrics(Instant::now(), &mut text)
        .expect("a string takes everything");
    text
}
