//! What the tests share: nodes on loopback in one process.

use std::net::{SocketAddr, TcpListener};

use quorum_cnx::{Config, ConfigBuilder, Sid};

/// Sockets of nodes 1 to `count`, which keep their ports free of others.
pub(crate) fn sockets(count: usize) -> Vec<TcpListener> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    (0..count).map(bind).collect()
}

pub(crate) fn addresses(sockets: &[TcpListener]) -> Vec<SocketAddr> {
    let address = |socket: &TcpListener| socket.local_addr().unwrap();
    sockets.iter().map(address).collect()
}

/// The configuration of a node, the addresses of nodes 1 to n given.
pub(crate) fn config(id: u64, addresses: &[SocketAddr], socket: TcpListener) -> ConfigBuilder {
    let servers = (1..)
        .map(Sid)
        .zip(addresses.iter().map(SocketAddr::to_string));
    Config::builder(Sid::try_from(id).unwrap())
        .servers(servers)
        .listener(socket)
}
