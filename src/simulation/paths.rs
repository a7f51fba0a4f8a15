//! The addresses of the network, and which paths between them are cut.
//!
//! Nothing here knows connections or the power of hosts. A mistake of the test panics.

use std::{collections::BTreeSet, net::IpAddr};

#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Every address that a host or an end of a connection has had.
    known: BTreeSet<IpAddr>,
    /// Paths that are cut: nothing arrives from the first address at the second one.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    /// The addresses that are cut off from each address, also from one that appears later.
    isolated: BTreeSet<IpAddr>,
}

impl Paths {
    /// Records that an address exists. `host` has the other addresses of its host.
    pub(super) fn learn(&mut self, ip: IpAddr, host: &[IpAddr]) {
        if !self.known.insert(ip) {
            return;
        }
        if host.iter().any(|other| self.isolated.contains(other)) {
            self.isolate(&[host, &[ip]].concat());
            return;
        }
        for other in &self.isolated {
            self.cuts.extend([(ip, *other), (*other, ip)]);
        }
    }

    pub(super) fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.check(from, to);
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self, from: IpAddr, to: IpAddr) {
        self.check(from, to);
        self.cuts.remove(&(from, to));
    }

    pub(super) fn heal_all(&mut self) {
        self.cuts.clear();
        self.isolated.clear();
    }

    /// Cuts all addresses of a host off from all others.
    pub(super) fn isolate(&mut self, host: &[IpAddr]) {
        self.isolated.extend(host);
        for other in self.known.iter().filter(|other| !host.contains(other)) {
            for ip in host {
                self.cuts.extend([(*ip, *other), (*other, *ip)]);
            }
        }
    }

    /// Heals all paths of a host, except those to others that are isolated.
    pub(super) fn rejoin(&mut self, host: &[IpAddr]) {
        self.isolated.retain(|ip| !host.contains(ip));
        let isolated = &self.isolated;
        self.cuts.retain(|(from, to)| {
            let is_of_host = host.contains(from) || host.contains(to);
            !is_of_host || isolated.contains(from) || isolated.contains(to)
        });
    }

    /// Panics unless these are two addresses that there are.
    pub(super) fn check(&self, from: IpAddr, to: IpAddr) {
        assert_ne!(from, to, "a path leads from one address to another one");
        self.check_known(from);
        self.check_known(to);
    }

    pub(super) fn check_known(&self, ip: IpAddr) {
        assert!(
            self.known.contains(&ip),
            "{ip} is no address of a host, nor of an end of a connection"
        );
    }
}
