//! Untrusted connections to the members: silent ones, garbage, truncated messages, invalid lengths, claims of every sid.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::{STRANGER_IP, V1, V2, bare, claiming, frame, rng::Rng, versioned, worker::Worker};

use crate::frame_checker::FORGED;

/// Connections that are held open at one time.
const HELD_MAX: usize = 100;

/// The number of strangers so far.
pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);

/// Starts a thread that connects again and again until it is dropped.
pub(crate) fn start(addresses: Vec<String>, mut rng: Rng) -> Worker {
    let mut held = VecDeque::new();
    Worker::repeat(move || {
        // This sets the pace. The thread waits for nothing here.
        thread::sleep(rng.millis(0, 20));
        COUNT.fetch_add(1, Ordering::Relaxed);
        // Fails if the member does not listen or accept.
        held.extend(connect(&addresses, &mut rng));
        if held.len() > HELD_MAX {
            held.pop_front();
        }
        true
    })
}

/// Connects to a member and sends some bytes. Returns the connection, unless it is reset at once.
fn connect(addresses: &[String], rng: &mut Rng) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket
        .bind(&SocketAddr::from((STRANGER_IP, 0)).into())
        .ok()?;
    let to: SocketAddr = rng.pick(addresses).parse().expect("a numeric address");
    let timeout = Duration::from_millis(200);
    socket.connect_timeout(&to.into(), timeout).ok()?;
    let mut stream: TcpStream = socket.into();
    stream.set_write_timeout(Some(timeout)).ok()?;
    // Fails if the member has closed the connection already.
    let _ = std::io::Write::write_all(&mut stream, &payload(rng));
    if rng.percent(20) {
        // Closing resets the connection.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return None;
    }
    Some(stream)
}

/// The bytes of one stranger.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let sid = rng.between(0, 7) as i64;
    let forged = [FORGED, &[b'!'; 200]].concat();
    let initial_message = match rng.below(3) {
        0 => bare(sid),
        1 => versioned(V1, sid, "127.0.0.66:3888"),
        _ => versioned(V2, sid, "127.0.0.66:3888|127.0.0.67:3888"),
    };
    match rng.below(8) {
        0 => Vec::new(),
        1 => (0..rng.between(1, 3000))
            .map(|_| rng.next() as u8)
            .collect(),
        2 => initial_message[..rng.below(initial_message.len())].to_vec(),
        3 => claiming(V1, sid, i32::MAX, b"127.0.0.66"),
        4 => [initial_message, i32::MAX.to_be_bytes().to_vec()].concat(),
        5 => [
            initial_message,
            frame(&forged),
            (-1_i32).to_be_bytes().to_vec(),
        ]
        .concat(),
        _ => [initial_message, frame(&forged)].concat(),
    }
}
