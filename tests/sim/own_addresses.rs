//! Hosts whose own addresses change while they run: to another port, to another address of the machine, to all of them, and back.
//!
//! Some of the other hosts learn it at once, and the others with their next change of members, or at the end of the storm. Until then
//! they dial the old address. The new one may be one that cannot be bound for a while.
//!
//! - P15 a host whose own addresses change closes its old sockets when the new ones are open, and never listens nowhere meanwhile

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use quorum_cnx::{Leave, ReconfigureError};

use crate::{
    faults::Fault,
    oracle::Up,
    plan::{HostPlan, PORT, Plan},
    rng::Rng,
    simulation::Simulation,
};

/// The port of a host that has moved to another one.
const OTHER_PORT: u16 = 3889;

/// The own addresses of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Own {
    /// Those of the plan: its name, or its addresses.
    #[default]
    Home,
    /// The same, with another port.
    OtherPort,
    /// Its addresses, also if it has a name.
    Literal,
    /// An address that is none of those of the plan.
    OtherIp,
    /// The other one and those of the plan.
    Both,
    /// All addresses of its machine. Others dial those of the plan.
    Wildcard,
}

impl Own {
    const ALL: [Self; 6] = [
        Self::Home,
        Self::OtherPort,
        Self::Literal,
        Self::OtherIp,
        Self::Both,
        Self::Wildcard,
    ];

    fn port(self) -> u16 {
        match self {
            Self::OtherPort => OTHER_PORT,
            _ => PORT,
        }
    }
}

impl HostPlan {
    /// The addresses that it is given for itself.
    pub fn own_addresses(&self) -> String {
        match self.own {
            Own::Wildcard => self.sockets()[0].to_string(),
            _ => self.addresses(),
        }
    }

    /// The addresses that others are given for it.
    pub fn addresses(&self) -> String {
        let named = (self.name.iter()).map(|name| format!("{name}:{}", self.own.port()));
        let other = SocketAddr::new(self.other_ip, PORT).to_string();
        let all: Vec<String> = match self.own {
            Own::Home | Own::OtherPort | Own::Wildcard if self.name.is_some() => named.collect(),
            Own::Both if self.name.is_some() => [other].into_iter().chain(named).collect(),
            _ => self.dialable().iter().map(ToString::to_string).collect(),
        };
        all.join("|")
    }

    /// Where connections to it arrive, if it listens at all of its own addresses.
    pub fn dialable(&self) -> Vec<SocketAddr> {
        let ips = match self.own {
            Own::OtherIp => vec![self.other_ip],
            Own::Both => [&[self.other_ip], &self.ips[..]].concat(),
            _ => self.ips.clone(),
        };
        let socket = |ip| SocketAddr::new(ip, self.own.port());
        ips.into_iter().map(socket).collect()
    }

    /// Where it listens, if it can.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        match self.own {
            Own::Wildcard => vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)],
            _ => self.dialable(),
        }
    }
}

impl Plan {
    /// Whether this is the address that all others are given for a host at the end of the storm, or one of its name.
    pub fn is_told(&self, host: usize, at: SocketAddr) -> bool {
        let told = self.last_address(host);
        self.is_told_ip(host, at.ip()) && told.ends_with(&format!(":{}", at.port()))
    }

    fn is_told_ip(&self, host: usize, ip: IpAddr) -> bool {
        match self.last_address(host).parse::<SocketAddr>() {
            Ok(at) => at.ip() == ip,
            Err(_) => self.hosts[host].ips.contains(&ip),
        }
    }
}

impl Simulation {
    /// The own addresses of a host change, once or more often in a row, before its loop sees it.
    pub fn change_own_addresses(&mut self, host: usize, mut rng: Rng) {
        for _ in 0..*rng.pick(&[1, 1, 2, 3]) {
            self.plan.hosts[host].own = *rng.pick(&Own::ALL);
            self.move_source(host);
            if rng.percent(50) {
                let wanted = self.members_of(host);
                self.set_members(host, &wanted, Leave::Now, |it| {
                    self.plan.hosts[it].addresses()
                });
            } else {
                self.tell_addresses(host, host);
            }
        }
        // The next turn of its loop sees it.
        self.hosts[host].monitor.listen_calls = u64::MAX;
        let time = rng.millis(1, *rng.clone().pick(&[100, 2000, 8000]));
        let other_ip = self.plan.hosts[host].other_ip;
        // One that it listens at could not be opened again.
        let is_used = {
            let kernel = self.kernel();
            let listeners = &kernel.nodes[host].listeners;
            listeners.iter().any(|it| it.at.ip() == other_ip)
        };
        match rng.below(6) {
            0 => self.begin_for(Fault::PortTaken(host), time),
            1 if !is_used => self.begin_for(Fault::NoAddress(other_ip), time),
            _ => {}
        }
        let others = (0..self.hosts.len()).filter(|&it| it != host);
        for other in others {
            let is_member = !self.oracle.borrow().hosts[other].removed.contains(&host);
            if rng.percent(60) && is_member && self.is_up(other) {
                self.tell_addresses(other, host);
            }
        }
    }

    /// A host is given the addresses of another one, or of itself.
    fn tell_addresses(&self, host: usize, of: usize) {
        let handle = self.hosts[host].handle.as_ref().expect("it runs");
        let plan = &self.plan.hosts[of];
        let addresses = match of == host {
            true => plan.own_addresses(),
            false => plan.addresses(),
        };
        self.kernel().note(host, || {
            format!("is given the addresses {addresses} of host {of}")
        });
        let changes = match handle.set_server(plan.sid, addresses) {
            Ok(changes) => changes,
            Err(ReconfigureError::Halted) => return,
            Err(error) => panic!("host {host} cannot be given addresses: {error}"),
        };
        self.note_changes(host, &changes);
    }

    /// The connections of a host come from the address that it has moved to, unless there is a proxy or a NAT.
    fn move_source(&self, host: usize) {
        let plan = &self.plan.hosts[host];
        let source = match plan.own {
            Own::OtherIp => plan.other_ip,
            _ => plan.ips[plan.ips.len() - 1],
        };
        let mut kernel = self.machines.lock();
        let node = &mut kernel.nodes[host];
        if node.source == plan.other_ip || plan.ips.contains(&node.source) {
            node.source = source;
        }
        if plan.own == Own::OtherIp {
            self.oracle.borrow_mut().elsewhere.insert(host);
        }
    }

    /// Whether a host recognizes connections of another one, at the end of the storm.
    pub fn is_known(&self, host: usize, to: usize) -> bool {
        let source = self.kernel().nodes[host].source;
        self.plan.requires_proof(to) || self.plan.is_told_ip(host, source)
    }

    /// Ends the links that are at old addresses of their hosts and cannot be replaced: the host that has dialed is not known by the source
    /// address of its connections, and does not prove who it is. An application that wants the new address must do this.
    pub fn end_links_elsewhere(&self) {
        for large in 0..self.hosts.len() {
            let handle = self.hosts[large].handle.as_ref().expect("it runs");
            for small in 0..self.hosts.len() {
                let sid = self.plan.hosts[small].sid;
                let link = (self.oracle.borrow().hosts[large].links.get(&sid)).copied();
                let is_elsewhere = |link: &Up| !self.plan.is_told(small, link.addr);
                let Some(link) = link.filter(|link| link.dialed && is_elsewhere(link)) else {
                    continue;
                };
                if self.is_known(large, small) {
                    continue;
                }
                self.kernel()
                    .note(large, || format!("ends its link to {sid} at {}", link.addr));
                handle.disconnect(sid).expect("it is a member");
            }
        }
    }

    /// P15, after a turn of a host.
    pub fn check_listeners(&mut self, host: usize) {
        let kernel = self.machines.lock();
        let node = &kernel.nodes[host];
        let monitor = &mut self.hosts[host].monitor;
        let seen = std::mem::replace(&mut monitor.listen_calls, node.listen_calls);
        if seen == node.listen_calls {
            return;
        }
        let at: Vec<SocketAddr> = node.listeners.iter().map(|it| it.at).collect();
        let was_open = std::mem::replace(&mut monitor.has_listened, !at.is_empty());
        let closed_too_early = node.closed_too_early;
        drop(kernel);
        let handle = self.hosts[host].handle.as_ref().expect("it runs");
        if handle.is_halted() {
            return;
        }
        let own = self.plan.hosts[host].sockets();
        let is_open = |own: &SocketAddr| at.contains(own);
        let what = if let Some(closed) = closed_too_early {
            format!("closes {closed} before another socket is open")
        } else if was_open && at.is_empty() {
            "listens nowhere".to_owned()
        } else if own.iter().all(is_open) && at.len() > own.len() {
            format!("listens at {at:?}, and need only at {own:?}")
        } else {
            return;
        };
        let oracle = &mut *self.oracle.borrow_mut();
        oracle.fail("P15", format!("host {host} {what}"));
    }

    /// P2 and P15: a host listens at each of its own addresses, and nowhere else.
    pub fn check_listening(&self, host: usize) {
        let kernel = self.kernel();
        let mut at: Vec<SocketAddr> = (kernel.nodes[host].listeners.iter())
            .map(|listener| listener.at)
            .collect();
        let mut own = self.plan.hosts[host].sockets();
        at.sort();
        own.sort();
        let oracle = &mut *self.oracle.borrow_mut();
        if let Some(missing) = own.iter().find(|own| !at.contains(own)) {
            let what = format!("host {host} does not listen at {missing}, but at {at:?}");
            oracle.fail("P2", what);
        } else if at != own {
            let what = format!("host {host} listens at {at:?}, and not only at {own:?}");
            oracle.fail("P15", what);
        }
    }
}

/// Whether a socket that listens at `open` has the address `at`, or the other way round: not both can be bound.
pub fn is_in_the_way(open: SocketAddr, at: SocketAddr) -> bool {
    takes(open, at) || takes(at, open)
}

/// Whether connections to `at` arrive at a socket that listens at `open`.
pub fn takes(open: SocketAddr, at: SocketAddr) -> bool {
    open == at || (open.ip().is_unspecified() && open.port() == at.port())
}

/// Another address of the machine of the n-th host.
pub fn other_ip(n: u8) -> IpAddr {
    IpAddr::from([10, 5, 0, n])
}
