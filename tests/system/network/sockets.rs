//! Checks the connections of the members, as listed by the kernel: one for each pair, dialed by the larger sid.

use std::net::{Ipv4Addr, SocketAddrV4};

use support::sockets::Connection;

use crate::lan::PORT;

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
