//! Reserves ports that several processes use one after the other.
//!
//! No other process can get such a port in between.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Below the ports that the kernel uses for outgoing connections: such a connection could occupy a port without listening.
const RANGE: Range<u16> = 10_000..32_000;

/// An address on loopback that is reserved until this is dropped.
///
/// A bound socket that never listens reserves it. The socket is bound without `SO_REUSEADDR`, so that the port was free. Then it
/// sets the option, so that servers with the same option (Java's and ours) can listen there, and the kernel gives the port to
/// no process that asks for any free one.
pub(crate) struct Port {
    _reserved: Socket,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let width = RANGE.end - RANGE.start;
        // Concurrent runs usually start far from each other. Where two try the same port, one `bind` fails.
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
                _reserved: socket,
                address,
            };
        }
        panic!("no port is free in {RANGE:?}");
    }

    /// A listening socket at the address.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    }
}
