//! What goes wrong, and how it is made good again.
//!
//! Nothing here judges; whatever happens to the machines is allowed to happen.

use std::net::IpAddr;

use crate::{
    kernel::{Due, Kernel},
    world::World,
};

/// Something that is wrong until it is recovered from.
#[derive(Clone, Debug)]
pub enum Fault {
    Cut(Vec<(usize, usize)>),
    /// The process is gone; something else may have its address meanwhile.
    Down(usize),
    /// The machine is gone, and another one with another address gets its name and its part.
    Moves(usize),
    NoDescriptors(usize),
    PortTaken(usize),
    BadNames,
    Nowhere(IpAddr),
}

impl World {
    /// Lets something go wrong.
    pub fn fault(&mut self) {
        let number = self.size.faults;
        self.size.faults += 1;
        // Drawn from chance of its own, so that the next one does not depend on whether this one happens.
        let next = self.mischief.fork();
        if self.only.has_fault(number) {
            self.kernel().say("fault", || format!("number {number}"));
            self.happen();
        }
        self.mischief = next;
    }

    fn happen(&mut self) {
        let host = self.mischief.below(self.hosts.len());
        let other = (host + self.mischief.between(1, self.hosts.len() - 1)) % self.hosts.len();
        match self.mischief.below(15) {
            0 => self.begin(Fault::Cut(vec![(host, other)])),
            1 => self.begin(Fault::Cut(vec![(host, other), (other, host)])),
            2 => {
                let all = (0..self.hosts.len()).filter(|&far| far != host);
                let ways = all.flat_map(|far| [(host, far), (far, host)]);
                self.begin(Fault::Cut(ways.collect()));
            }
            3 | 4 => self.break_one(),
            5 | 6 if self.is_up(host) => {
                self.crash(host);
                self.kernel().nodes[host].slams = self.mischief.percent(40);
                self.begin(Fault::Down(host));
            }
            7 if self.is_up(host) => {
                self.lose_power(host);
                let moves = self.plan.hosts[host].name.is_some() && self.mischief.percent(50);
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
                let time = self.mischief.millis(10, 7000);
                let mut kernel = self.kernel();
                let until = kernel.now + time;
                kernel.note(host, || format!("is paused until {until:?}"));
                let paused = &mut kernel.nodes[host].paused_until;
                *paused = until.max(*paused);
            }
            10 => {
                let jump = self.mischief.millis(1, 20_000);
                let mut kernel = self.kernel();
                kernel.note(host, || format!("has its clock jump by {jump:?}"));
                kernel.nodes[host].skew += jump;
            }
            11 => self.begin(Fault::NoDescriptors(host)),
            12 => self.begin(Fault::PortTaken(host)),
            13 => self.begin(Fault::BadNames),
            14 => {
                let plan = &self.plan.hosts[host];
                let (ips, black) = (plan.ips.clone(), usize::from(plan.first_is_black));
                self.begin(Fault::Nowhere(*self.mischief.clone().pick(&ips[black..])));
            }
            _ => {}
        }
    }

    fn begin(&mut self, fault: Fault) {
        let time = self
            .mischief
            .millis(1, *self.mischief.clone().pick(&[100, 2000, 8000]));
        let index = self.faults.len();
        let mut kernel = self.kernel();
        kernel.say("fault", || format!("{fault:?} for {time:?}"));
        set(&mut kernel, &fault, true);
        kernel.after(time, Due::Recover(index));
        drop(kernel);
        self.faults.push(Some(fault));
    }

    /// Makes a fault good again, if it is not yet.
    pub fn recover(&mut self, index: usize) {
        let Some(fault) = self.faults[index].take() else {
            return;
        };
        {
            let mut kernel = self.kernel();
            kernel.say("fault", || format!("{fault:?} is over"));
            set(&mut kernel, &fault, false);
        }
        match fault {
            Fault::Down(host) => {
                self.kernel().nodes[host].slams = false;
                self.start(host);
            }
            Fault::Moves(host) => {
                self.replace_machine(host);
                self.start(host);
            }
            _ => {}
        }
    }

    /// Everything is made good again.
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
        for mut stranger in std::mem::take(&mut self.strangers) {
            stranger.leave(&mut self.kernel());
        }
    }

    /// A connection is reset by something on its way, at one end or at both.
    fn break_one(&mut self) {
        let mut kernel = self.machines.lock();
        let alive = |conn: &usize| {
            kernel.conns[*conn]
                .socks
                .iter()
                .flatten()
                .any(|&sock| !kernel.socks[sock].gone)
        };
        let all: Vec<usize> = (0..kernel.conns.len()).filter(alive).collect();
        if all.is_empty() {
            return;
        }
        let conn = *self.mischief.pick(&all);
        let (first, both) = (self.mischief.below(2), self.mischief.percent(50));
        kernel.send_reset(conn, first);
        if both {
            kernel.send_reset(conn, 1 - first);
        }
    }
}

fn set(kernel: &mut Kernel, fault: &Fault, wrong: bool) {
    match fault {
        Fault::Cut(ways) => {
            for way in ways {
                // Several faults may cut the same way.
                let wanted = kernel.cut.entry(*way).or_default();
                *wanted = if wrong { *wanted + 1 } else { *wanted - 1 };
                if *wanted == 0 {
                    kernel.cut.remove(way);
                }
            }
        }
        Fault::Down(_) | Fault::Moves(_) => {}
        Fault::NoDescriptors(host) => {
            kernel.nodes[*host].emfile = wrong;
            kernel.nodes[*host].emfile_at = kernel.now;
        }
        Fault::PortTaken(host) => kernel.nodes[*host].port_taken = wrong,
        Fault::BadNames => {
            (kernel.dns.fails, kernel.dns.slow) = if wrong { (500, 500) } else { (0, 0) }
        }
        Fault::Nowhere(ip) if wrong => {
            kernel.black.insert(*ip);
        }
        Fault::Nowhere(ip) => {
            kernel.black.remove(ip);
        }
    }
}
