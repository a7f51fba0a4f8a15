//! Injects faults, and undoes them.

use std::{net::IpAddr, time::Duration};

use crate::{
    kernel::{Kernel, SimEvent},
    rng::Rng,
    simulation::Simulation,
};

/// A fault that lasts until it is undone.
#[derive(Clone, Debug)]
pub enum Fault {
    /// These directed paths lose all packets.
    Cut(Vec<(usize, usize)>),
    /// The process has ended; another program may have its address meanwhile.
    Down(usize),
    /// The machine is gone. Another one with another address takes its name and its role.
    Moves(usize),
    NoDescriptors(usize),
    PortTaken(usize),
    /// The machine does not have this address.
    NoAddress(IpAddr),
    BadNames,
    Blackhole(IpAddr),
}

impl Simulation {
    /// Injects the next fault, unless it is switched off.
    pub fn fault(&mut self) {
        let number = self.size.faults;
        self.size.faults += 1;
        // The next fault does not depend on whether this one happens.
        let next = self.fault_rng.fork();
        if self.only.has_fault(number) {
            self.kernel().log("fault", || format!("number {number}"));
            self.inject();
        }
        self.fault_rng = next;
    }

    fn inject(&mut self) {
        let host = self.fault_rng.below(self.hosts.len());
        let other = (host + self.fault_rng.between(1, self.hosts.len() - 1)) % self.hosts.len();
        if self.plan.secure.is_some() && self.fault_rng.clone().fork().percent(15) {
            self.change_certificates();
            return;
        }
        match self.fault_rng.below(15) {
            0 => self.begin(Fault::Cut(vec![(host, other)])),
            1 => self.begin(Fault::Cut(vec![(host, other), (other, host)])),
            2 => {
                let all = (0..self.hosts.len()).filter(|&far| far != host);
                let paths = all.flat_map(|far| [(host, far), (far, host)]);
                self.begin(Fault::Cut(paths.collect()));
            }
            // As frequent as resets.
            3 if self.plan.always_proves() => self.damage_random(),
            3 | 4 => self.reset_random(),
            5 | 6 if self.is_up(host) => {
                self.crash(host);
                self.kernel().nodes[host].accepts_and_closes = self.fault_rng.percent(40);
                self.begin(Fault::Down(host));
            }
            7 if self.is_up(host) => {
                self.lose_power(host);
                let moves = self.plan.hosts[host].name.is_some() && self.fault_rng.percent(50);
                self.begin(if moves {
                    Fault::Moves(host)
                } else {
                    Fault::Down(host)
                });
            }
            8 if self.is_up(host) => {
                self.halt(host);
                self.begin(Fault::Down(host));
            }
            9 => {
                let time = self.fault_rng.millis(10, 7000);
                let mut kernel = self.kernel();
                let until = kernel.now + time;
                kernel.note(host, || format!("is paused until {until:?}"));
                let paused = &mut kernel.nodes[host].paused_until;
                *paused = until.max(*paused);
            }
            10 => {
                let jump = self.fault_rng.millis(1, 20_000);
                let mut kernel = self.kernel();
                kernel.note(host, || format!("its clock jumps by {jump:?}"));
                kernel.nodes[host].skew += jump;
            }
            11 => self.begin(Fault::NoDescriptors(host)),
            12 => self.begin(Fault::PortTaken(host)),
            13 => self.begin(Fault::BadNames),
            14 => {
                let plan = &self.plan.hosts[host];
                let (ips, blackholed) = (plan.ips.clone(), usize::from(plan.first_is_blackholed));
                self.begin(Fault::Blackhole(
                    *self.fault_rng.clone().pick(&ips[blackholed..]),
                ));
            }
            _ => {}
        }
    }

    fn begin(&mut self, fault: Fault) {
        let time = self
            .fault_rng
            .millis(1, *self.fault_rng.clone().pick(&[100, 2000, 8000]));
        self.begin_for(fault, time);
    }

    pub fn begin_for(&mut self, fault: Fault, time: Duration) {
        let index = self.faults.len();
        let mut kernel = self.kernel();
        kernel.log("fault", || format!("{fault:?} for {time:?}"));
        set(&mut kernel, &fault, true);
        kernel.after(time, SimEvent::Recover(index));
        drop(kernel);
        self.faults.push(Some(fault));
    }

    /// Undoes a fault, unless that was done before.
    pub fn recover(&mut self, index: usize) {
        let Some(fault) = self.faults[index].take() else {
            return;
        };
        {
            let mut kernel = self.kernel();
            kernel.log("fault", || format!("{fault:?} is over"));
            set(&mut kernel, &fault, false);
        }
        match fault {
            Fault::Down(host) => {
                self.kernel().nodes[host].accepts_and_closes = false;
                self.start(host);
            }
            Fault::Moves(host) => {
                self.replace_machine(host);
                self.start(host);
            }
            _ => {}
        }
    }

    /// Undoes all faults, and disconnects the strangers.
    pub fn heal(&mut self) {
        for index in 0..self.faults.len() {
            self.recover(index);
        }
        for host in 0..self.hosts.len() {
            let mut kernel = self.kernel();
            let now = kernel.now;
            let until = &mut kernel.nodes[host].paused_until;
            *until = now.min(*until);
            kernel.wake(host);
        }
        for conn in &mut self.kernel().conns {
            conn.is_damaged = [false; 2];
        }
        while self.change_certificates().is_some() {}
        for mut stranger in std::mem::take(&mut self.strangers) {
            stranger.disconnect(&mut self.kernel());
        }
    }

    /// Has the next bytes of a random connection arrive damaged. Without a layer that checks them nobody would notice.
    fn damage_random(&mut self) {
        let mut kernel = self.machines.lock();
        if let Some(conn) = random_connection(&kernel, &mut self.fault_rng) {
            kernel.log("fault", || format!("#{conn} is damaged"));
            self.oracle.borrow_mut().is_steady = false;
            kernel.conns[conn].is_damaged[self.fault_rng.below(2)] = true;
        }
    }

    /// Resets a random connection, at one end or at both, as a device on the path would.
    fn reset_random(&mut self) {
        let mut kernel = self.machines.lock();
        let Some(conn) = random_connection(&kernel, &mut self.fault_rng) else {
            return;
        };
        let (first, both) = (self.fault_rng.below(2), self.fault_rng.percent(50));
        kernel.send_reset(conn, first);
        if both {
            kernel.send_reset(conn, 1 - first);
        }
    }
}

/// A connection that is open at one of its ends.
fn random_connection(kernel: &Kernel, rng: &mut Rng) -> Option<usize> {
    let alive = |conn: &usize| {
        let mut ends = kernel.conns[*conn].socks.iter().flatten();
        ends.any(|&sock| !kernel.socks[sock].gone)
    };
    let all: Vec<usize> = (0..kernel.conns.len()).filter(alive).collect();
    (!all.is_empty()).then(|| *rng.pick(&all))
}

fn set(kernel: &mut Kernel, fault: &Fault, on: bool) {
    match fault {
        Fault::Cut(paths) => {
            for path in paths {
                // Several faults may cut the same path.
                let cuts = kernel.cut.entry(*path).or_default();
                *cuts = if on { *cuts + 1 } else { *cuts - 1 };
                if *cuts == 0 {
                    kernel.cut.remove(path);
                }
            }
        }
        Fault::Down(_) | Fault::Moves(_) => {}
        Fault::NoDescriptors(host) => {
            kernel.nodes[*host].emfile = on;
            kernel.nodes[*host].emfile_at = kernel.now;
        }
        Fault::PortTaken(host) => kernel.nodes[*host].port_taken = on,
        Fault::NoAddress(ip) if on => {
            kernel.absent.insert(*ip);
        }
        Fault::NoAddress(ip) => {
            kernel.absent.remove(ip);
        }
        Fault::BadNames => {
            (kernel.dns.fails, kernel.dns.slow) = if on { (500, 500) } else { (0, 0) }
        }
        Fault::Blackhole(ip) if on => {
            kernel.blackholed.insert(*ip);
        }
        Fault::Blackhole(ip) => {
            kernel.blackholed.remove(ip);
        }
    }
}
