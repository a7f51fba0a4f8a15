//! Serves statistics over HTTP/1.1, as Prometheus asks for them: `GET /metrics`, one request on each connection.
//!
//! The loop never waits for a connection here. The other examples use this file, too.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::Stats;

/// Connections that are answered at the same time, each by a thread. Prometheus uses one. Others wait in the backlog of the socket,
/// which the kernel bounds.
const CONNECTIONS_MAX: usize = 4;

/// Time for the whole of a connection, less than the 10 s that Prometheus waits. So silent connections cannot keep it out for long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Length of a request with its header. That of Prometheus has some hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Pause after a failed accept: it most likely fails again at once, for example since no descriptors are left.
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

/// Starts the threads that answer, and returns the address. They run until the process ends.
pub(crate) fn serve(
    listener: TcpListener,
    stats: impl Fn() -> Stats + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let shared = Arc::new((listener, stats));
    for _ in 0..CONNECTIONS_MAX {
        let shared = Arc::clone(&shared);
        let answer_all = move || {
            let (listener, stats) = &*shared;
            loop {
                match listener.accept() {
                    // Whatever goes wrong with a connection: the client asks again.
                    Ok((connection, _)) => _ = answer(connection, stats),
                    Err(_) => thread::sleep(ACCEPT_PAUSE),
                }
            }
        };
        thread::Builder::new()
            .name("metrics".into())
            .spawn(answer_all)?;
    }
    Ok(address)
}

fn answer(mut connection: TcpStream, stats: &impl Fn() -> Stats) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let (status, body) = match read_request(&mut connection, deadline)? {
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
fn read_request(connection: &mut TcpStream, deadline: Instant) -> io::Result<Option<String>> {
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
