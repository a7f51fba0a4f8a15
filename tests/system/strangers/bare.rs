//! A listening socket whose connections are read and discarded, to measure the cost of the kernel alone.
//!
//! It keeps as many connections as a member keeps silent ones, and closes them in the same way.

use std::{
    collections::VecDeque,
    io::{self, Read as _},
    net::SocketAddr,
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpListener};
use quorum_cnx::simulation::limits;
use serde_json::json;

use crate::role;

const LISTENER: Token = Token(usize::MAX);

/// The process that is attacked in place of a member.
pub(crate) fn run() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = listener.expect("a port is free");
    let at = listener.local_addr().expect("the socket is bound");
    thread::spawn(move || Sink::new(listener).run().expect("the loop runs"));
    for _ in role::orders() {
        role::answer(&json!({ "at": at.to_string() }));
    }
}

/// Accepts all connections, and closes the oldest when there are too many.
struct Sink {
    poll: Poll,
    listener: TcpListener,
    links: slab::Slab<mio::net::TcpStream>,
    /// By age.
    order: VecDeque<usize>,
    buffer: Vec<u8>,
}

impl Sink {
    fn new(listener: TcpListener) -> Self {
        Self {
            poll: Poll::new().expect("an event queue"),
            listener,
            links: slab::Slab::new(),
            order: VecDeque::new(),
            buffer: vec![0; limits::READ_BUFFER_BYTES],
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TURN);
        let registry = self.poll.registry();
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut acceptable = false;
        loop {
            let timeout = acceptable.then_some(Duration::ZERO);
            self.poll.poll(&mut events, timeout)?;
            acceptable |= events.iter().any(|event| event.token() == LISTENER);
            if acceptable {
                acceptable = self.accept()?;
            }
            for Token(index) in events.iter().map(mio::event::Event::token) {
                self.drain(index);
            }
        }
    }

    /// Accepts connections, and returns whether there may be more.
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
                    self.drain(index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // Out of descriptors, or the connection has ended already.
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

    fn drain(&mut self, index: usize) {
        let Some(stream) = self.links.get_mut(index) else {
            return;
        };
        loop {
            match stream.read(&mut self.buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => break,
            }
        }
        self.links.remove(index);
        self.order.retain(|one| *one != index);
    }
}
