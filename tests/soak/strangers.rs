//! Strangers that connect to the members: silent ones, garbage, half sentences, lengths that cannot be, claims of every sid.
//!
//! Nothing here waits for an answer, and all of it goes when it is called back.

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

use crate::{
    chance::Rng,
    common::{ABROAD, V1, V2, bare, claiming, frame, versioned},
    diary::Diary,
    judge::FORGED,
};

/// Connections that are held at one time.
const HELD_MAX: usize = 100;

pub(crate) struct Strangers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    pub(crate) fn let_loose(addresses: Vec<String>, mut rng: Rng, diary: &Diary) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, diary) = (Arc::clone(&stop), diary.clone());
        let thread = thread::spawn(move || {
            let (mut held, mut count) = (VecDeque::new(), 0);
            while !stopped.load(Ordering::Acquire) {
                // The pace of it; nothing is waited for.
                thread::sleep(rng.millis(0, 20));
                count += 1;
                // Fails where nobody is, or nobody accepts.
                if let Some(stream) = visit(&addresses, &mut rng) {
                    held.push_back(stream);
                }
                if held.len() > HELD_MAX {
                    held.pop_front();
                }
            }
            diary.note(format!("{count} strangers have come"));
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

/// Comes to a member and says something; the connection, unless it is reset at once.
fn visit(addresses: &[String], rng: &mut Rng) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket
        .bind(&std::net::SocketAddr::from((ABROAD, 0)).into())
        .ok()?;
    let to: std::net::SocketAddr = rng.pick(addresses).parse().expect("a numeric address");
    let patience = Duration::from_millis(200);
    socket.connect_timeout(&to.into(), patience).ok()?;
    let mut stream: TcpStream = socket.into();
    stream.set_write_timeout(Some(patience)).ok()?;
    // Fails when it was turned away already.
    let _ = std::io::Write::write_all(&mut stream, &speech(rng));
    if rng.percent(20) {
        // The reset of whoever has gone without a word.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return None;
    }
    Some(stream)
}

fn speech(rng: &mut Rng) -> Vec<u8> {
    let sid = rng.between(0, 7) as i64;
    let forged = [FORGED, &[b'!'; 200]].concat();
    let hello = match rng.below(3) {
        0 => bare(sid),
        1 => versioned(V1, sid, "127.0.0.66:3888"),
        _ => versioned(V2, sid, "127.0.0.66:3888|127.0.0.67:3888"),
    };
    match rng.below(8) {
        0 => Vec::new(),
        1 => (0..rng.between(1, 3000))
            .map(|_| rng.next() as u8)
            .collect(),
        2 => hello[..rng.below(hello.len())].to_vec(),
        3 => claiming(V1, sid, i32::MAX, b"127.0.0.66"),
        4 => [hello, i32::MAX.to_be_bytes().to_vec()].concat(),
        5 => [hello, frame(&forged), (-1_i32).to_be_bytes().to_vec()].concat(),
        _ => [hello, frame(&forged)].concat(),
    }
}
