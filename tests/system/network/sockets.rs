//! The connections of the members as their kernels list them: one for each pair, dialed by the larger.
//!
//! Nothing here asks the members.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::lan::PORT;

/// A connection that is established: this end, that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
}

/// Those in the network of this process.
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

/// The address in the byte order of the machine, the port as a number.
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

/// What is not as promised among these.
pub(crate) fn odd(members: &[Listed]) -> Vec<String> {
    let mut odd = Vec::new();
    for (small, small_at, at_small) in members {
        for (large, large_at, at_large) in members.iter().filter(|(large, ..)| large > small) {
            let dialed: Vec<&Connection> = at_large
                .iter()
                .filter(|found| found.remote == SocketAddrV4::new(*small_at, PORT))
                .collect();
            let accepted: Vec<&Connection> = at_small
                .iter()
                .filter(|found| found.local.port() == PORT && found.remote.ip() == large_at)
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
            if !matches || all(at_large, small_at) != 1 || all(at_small, large_at) != 1 {
                odd.push(format!(
                    "{large} dialed {dialed:?}, {small} accepted {accepted:?}; all: {} at {large}, {} at {small}",
                    all(at_large, small_at),
                    all(at_small, large_at)
                ));
            }
        }
    }
    odd
}
