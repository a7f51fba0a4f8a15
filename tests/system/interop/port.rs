//! Reserves ports that several processes use one after the other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use support::{MEMBER_IP, ReservedAddress};

/// An address on loopback that is reserved until this is dropped.
///
/// The bound socket that reserves it never listens. Servers that set `SO_REUSEADDR` as well (Java's and ours) can listen there, and
/// the kernel gives the port to no process that asks for any free one.
pub(crate) struct Port {
    _reserved: ReservedAddress,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn new() -> Self {
        Self::at(MEMBER_IP)
    }

    /// The same with another address of this machine.
    pub(crate) fn at(ip: Ipv4Addr) -> Self {
        let reserved = ReservedAddress::at(ip);
        Self {
            address: reserved.address.parse().unwrap(),
            _reserved: reserved,
        }
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
