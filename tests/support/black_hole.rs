//! An address that does not answer.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::MEMBER_IP;

/// An address that does not answer: a listening socket whose accept queue is full, so that the kernel drops every SYN.
pub struct BlackHole {
    pub address: String,
    _socket: Socket,
    _queued: Vec<Socket>,
}

impl BlackHole {
    pub fn new() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let black_hole = socket();
        black_hole
            .bind(&SocketAddr::from((MEMBER_IP, 0)).into())
            .unwrap();
        black_hole.listen(0).unwrap();
        let at = black_hole.local_addr().unwrap();
        let queued = (0..4)
            .map(|_| {
                let filler = socket();
                filler.set_nonblocking(true).unwrap();
                // The connection attempt stays pending until the socket is closed.
                let _ = filler.connect(&at);
                filler
            })
            .collect();
        Self {
            address: at.as_socket().unwrap().to_string(),
            _socket: black_hole,
            _queued: queued,
        }
    }
}
