//! Untrusted connections to the members: silent ones, garbage, truncated messages, invalid lengths, claims of every sid.
//!
//! All of them end when [`Strangers`] is dropped.

use std::{
    collections::VecDeque,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{frame_checker::FORGED, log::Log};
use support::rng::Rng;
use support::{STRANGER_IP, V1, V2, bare, claiming, frame, versioned};

/// Connections that are held open at one time.
const HELD_MAX: usize = 100;

pub(crate) struct Strangers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    pub(crate) fn start(addresses: Vec<String>, mut rng: Rng, log: &Log) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, log) = (Arc::clone(&stop), log.clone());
        let thread = thread::spawn(move || {
            let (mut held, mut count) = (VecDeque::new(), 0);
            while !stopped.load(Ordering::Acquire) {
                // This sets the pace. The thread waits for nothing here.
                thread::sleep(rng.millis(0, 20));
                count += 1;
                // Fails if the member does not listen or accept.
                if let Some(stream) = connect(&addresses, &mut rng) {
                    held.push_back(stream);
                }
                if held.len() > HELD_MAX {
                    held.pop_front();
                }
            }
            log.note(format!("{count} strangers have connected"));
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "see above");
        }
    }
}

/// Connects to a member and sends some bytes. Returns the connection, unless it is reset at once.
fn connect(addresses: &[String], rng: &mut Rng) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket
        .bind(&std::net::SocketAddr::from((STRANGER_IP, 0)).into())
        .ok()?;
    let to: std::net::SocketAddr = rng.pick(addresses).parse().expect("a numeric address");
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
