//! What the kernel alone costs: a listening socket whose connections are read and thrown away, beside a pair that goes on
//! with its round trips.
//!
//! Nothing here reads what came. It keeps as many connections as a member keeps silent ones, and closes like it.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use quorum_cnx::limits;
use serde_json::json;

use crate::role;

const DOOR: Token = Token(usize::MAX);

/// Between two round trips.
const PACE: Duration = Duration::from_millis(1);

/// The process that is besieged.
pub(crate) fn run() {
    let echo = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let echo_at = echo.local_addr().expect("it is bound");
    let listener = mio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = listener.expect("a port is free");
    let at = listener.local_addr().expect("it is bound");
    thread::spawn(move || answer_all(&echo));
    thread::spawn(move || Swallower::new(listener).run().expect("it goes on"));
    for _ in role::orders() {
        role::answer(&json!({ "at": at.to_string(), "echo": echo_at.to_string() }));
    }
}

fn answer_all(echo: &TcpListener) {
    while let Ok((mut stream, _)) = echo.accept() {
        let _ = stream.set_nodelay(true);
        let mut frame = [0; 68];
        while stream.read_exact(&mut frame).is_ok() && stream.write_all(&frame).is_ok() {}
    }
}

/// Accepts whoever comes; the oldest goes when there are too many.
struct Swallower {
    poll: Poll,
    listener: mio::net::TcpListener,
    links: slab::Slab<mio::net::TcpStream>,
    /// By age.
    order: VecDeque<usize>,
    stage: Vec<u8>,
}

impl Swallower {
    fn new(listener: mio::net::TcpListener) -> Self {
        Self {
            poll: Poll::new().expect("an event queue"),
            listener,
            links: slab::Slab::new(),
            order: VecDeque::new(),
            stage: vec![0; limits::STAGE_BYTES],
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TURN);
        let registry = self.poll.registry();
        registry.register(&mut self.listener, DOOR, Interest::READABLE)?;
        let mut knocked = false;
        loop {
            let timeout = knocked.then_some(Duration::ZERO);
            self.poll.poll(&mut events, timeout)?;
            knocked |= events.iter().any(|event| event.token() == DOOR);
            if knocked {
                knocked = self.accept()?;
            }
            for Token(index) in events.iter().map(mio::event::Event::token) {
                self.swallow(index);
            }
        }
    }

    /// Whether more may wait.
    fn accept(&mut self) -> io::Result<bool> {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let index = self.links.vacant_key();
                    let registry = self.poll.registry();
                    registry.register(&mut stream, Token(index), Interest::READABLE)?;
                    self.links.insert(stream);
                    self.order.push_back(index);
                    if self.links.len() > limits::PENDING_MAX {
                        self.drop_oldest();
                    }
                    self.swallow(index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // Out of descriptors, or gone already.
                Err(_) => self.drop_oldest(),
            }
        }
        Ok(true)
    }

    fn drop_oldest(&mut self) {
        while let Some(index) = self.order.pop_front() {
            if self.links.try_remove(index).is_some() {
                return;
            }
        }
    }

    fn swallow(&mut self, index: usize) {
        let Some(stream) = self.links.get_mut(index) else {
            return;
        };
        loop {
            match stream.read(&mut self.stage) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => break,
            }
        }
        self.links.remove(index);
        self.order.retain(|one| *one != index);
    }
}

/// The other end of the pair: asks all the time.
pub(crate) struct Pinger {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl Pinger {
    pub(crate) fn start(echo: SocketAddr) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut stream = TcpStream::connect(echo).expect("somebody answers");
            stream.set_nodelay(true).expect("a socket takes it");
            let (mut frame, mut micros) = ([0; 68], Vec::new());
            while !over.load(Ordering::Relaxed) {
                thread::sleep(PACE);
                let begun = Instant::now();
                stream.write_all(&frame).expect("it is there");
                stream.read_exact(&mut frame).expect("it answers");
                micros.push(begun.elapsed().as_micros() as u64);
            }
            micros
        });
        Self { ends, thread }
    }

    /// Its round trips, in microseconds.
    pub(crate) fn end(self) -> Vec<u64> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it has not failed")
    }
}
