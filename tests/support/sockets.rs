//! The TCP connections of a process, as listed by the kernel.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

/// An established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub local: SocketAddrV4,
    pub remote: SocketAddrV4,
}

/// The established connections in the network namespace of this process: `proc(5)`, `net/tcp`. Those of IPv6 sockets count if
/// their addresses are IPv4-mapped.
pub fn established(process: u32) -> Vec<Connection> {
    let read = |table: &str| fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap();
    let connection = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        // TCP_ESTABLISHED
        (state == "01").then_some(Connection {
            local: address(local)?,
            remote: address(remote)?,
        })
    };
    let lines = ["tcp", "tcp6"].map(read).concat();
    lines.lines().filter_map(connection).collect()
}

/// Parses an address, which consists of words in the byte order of the machine, and a port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let mapped = format!("{:024X}", u32::from_ne_bytes([0, 0, 255, 255]));
    let ip = ip.strip_prefix(&mapped).unwrap_or(ip);
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(
        Ipv4Addr::from(ip),
        u16::from_str_radix(port, 16).ok()?,
    ))
}
