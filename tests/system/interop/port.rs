//! Ports that several processes may use one after the other, and nobody else in between.
//!
//! Nothing here guesses that a port which was free a moment ago still is.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Below those that the kernel gives to outgoing connections: one of them could hold the port without listening.
const RANGE: Range<u16> = 10_000..32_000;

/// An address on loopback that is this test's own until it is dropped.
///
/// It is held by a socket that is bound and never listens. It was bound without the leave to share, so nobody had the
/// port; it shares it from then on, so that those who ask for that (servers do: Java's, and ours) can listen there as
/// often as they like, and nobody who asks for any free port is given this one.
pub(crate) struct Port {
    _held: Socket,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let width = RANGE.end - RANGE.start;
        // Runs at the same time start far from each other, most of the time; where they meet, the kernel decides.
        let start = (process::id().wrapping_mul(7919) % u32::from(width)) as u16;
        for _ in 0..width {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port =
                RANGE.start + ((u32::from(start) + u32::from(step)) % u32::from(width)) as u16;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            match socket.bind(&address.into()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => panic!("cannot bind {address}: {error}"),
            }
            socket.set_reuse_address(true).unwrap();
            return Self {
                _held: socket,
                address,
            };
        }
        panic!("no port is free in {RANGE:?}");
    }

    /// A listening socket of ours.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    }
}
