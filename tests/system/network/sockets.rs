//! Checks the connections of the members, as listed by the kernel: one for each pair, dialed by the larger sid.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::lan::PORT;

/// An established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
}

/// The established connections in the network namespace of this process.
pub(crate) fn established(pid: u32) -> Vec<Connection> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            // TCP_ESTABLISHED
            (state == "01").then_some(Connection {
                local: address(local)?,
                remote: address(remote)?,
            })
        })
        .collect()
}

/// Parses an address in the byte order of the machine and a port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(
        Ipv4Addr::from(ip),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// A member: its sid, its address, its connections.
pub(crate) type Listed = (i64, Ipv4Addr, Vec<Connection>);

/// The pairs of members that do not have exactly one connection.
pub(crate) fn violations(members: &[Listed]) -> Vec<String> {
    let mut violations = Vec::new();
    for (small, small_address, of_small) in members {
        for (large, large_address, of_large) in members.iter().filter(|(large, ..)| large > small) {
            let dialed: Vec<&Connection> = of_large
                .iter()
                .filter(|found| found.remote == SocketAddrV4::new(*small_address, PORT))
                .collect();
            let accepted: Vec<&Connection> = of_small
                .iter()
                .filter(|found| found.local.port() == PORT && found.remote.ip() == large_address)
                .collect();
            let matches = match (&dialed[..], &accepted[..]) {
                ([dialed], [accepted]) => {
                    (dialed.local, dialed.remote) == (accepted.remote, accepted.local)
                }
                _ => false,
            };
            let all = |here: &[Connection], there: &Ipv4Addr| {
                here.iter()
                    .filter(|found| found.remote.ip() == there)
                    .count()
            };
            if !matches || all(of_large, small_address) != 1 || all(of_small, large_address) != 1 {
                violations.push(format!(
                    "{large} dialed {dialed:?}, {small} accepted {accepted:?}; total: {} at {large}, {} at {small}",
                    all(of_large, small_address),
                    all(of_small, large_address)
                ));
            }
        }
    }
    violations
}
