//! What the kernel alone costs: a listening socket whose connections are read and thrown away.
//!
//! Nothing here looks at what came. It keeps as many connections as a member keeps silent ones, and closes like it.

use std::{
    collections::VecDeque,
    io::{self, Read as _},
    net::SocketAddr,
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpListener};
use quorum_cnx::limits;
use serde_json::json;

use crate::role;

const LISTENER: Token = Token(usize::MAX);

/// The process that has the attack in place of a member.
pub(crate) fn run() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = listener.expect("a port is free");
    let at = listener.local_addr().expect("it is bound");
    thread::spawn(move || Swallower::new(listener).run().expect("it goes on"));
    for _ in role::orders() {
        role::answer(&json!({ "at": at.to_string() }));
    }
}

/// Accepts whoever comes; the oldest goes when there are too many.
struct Swallower {
    poll: Poll,
    listener: TcpListener,
    links: slab::Slab<mio::net::TcpStream>,
    /// By age.
    order: VecDeque<usize>,
    stage: Vec<u8>,
}

impl Swallower {
    fn new(listener: TcpListener) -> Self {
        Self {
            poll: Poll::new().expect("an event queue"),
            listener,
            links: slab::Slab::new(),
            order: VecDeque::new(),
            stage: vec![0; limits::READ_BUFFER_BYTES],
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TURN);
        let registry = self.poll.registry();
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut knocked = false;
        loop {
            let timeout = knocked.then_some(Duration::ZERO);
            self.poll.poll(&mut events, timeout)?;
            knocked |= events.iter().any(|event| event.token() == LISTENER);
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
