//! One simulated world: hosts that run the real loop, and what happens to them until it is over.
//!
//! ```text
//!   start --storm[0]--> faults, strangers, talk --storm[1]--> healing --> the last words --> quiet --> halt
//! ```
//!
//! What must hold is in `host` and `properties`; nothing here judges.

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::MutexGuard, time::Duration};

use quorum_cnx::{EventLoop, Handle, limits::KNOCK_CROSSING};

use crate::{
    chance::Chance,
    faults::Fault,
    host::{Account, App, Books, Failure, Ledger},
    kernel::{Due, Kernel},
    net::{Machines, SimNet},
    only::{Only, Size},
    plan::Plan,
    properties::Watch,
    stranger::{self, Stranger},
    trace::Trace,
};

/// From the end of the storm to the last words of the applications that talk on.
const TALK_ON: Duration = Duration::from_secs(15);

/// From the end of the storm until everything must be as promised. The longest chain: a dead link is found
/// (`peer_dead_after`, 5 s), a contender waits for that (6 s), a connect or a lookup was underway (5 s each), a knock
/// waits to be hung up (5 s), backoff.
const QUIET: Duration = Duration::from_secs(40);

pub type Loop = Rc<RefCell<Option<EventLoop<App, SimNet>>>>;

pub struct Host {
    pub turning: Loop,
    /// Kept when the loop is gone, as an application would.
    pub handle: Option<Handle>,
    pub watch: Watch,
}

pub struct World {
    pub plan: Plan,
    pub only: Only,
    /// What has happened so far.
    pub size: Size,
    pub machines: Machines,
    pub books: Books,
    pub hosts: Vec<Host>,
    pub chance: Chance,
    /// Of its own, so that the faults stay the same when calls are left out.
    pub mischief: Chance,
    pub faults: Vec<Option<Fault>>,
    pub strangers: Vec<Stranger>,
    pub talking: bool,
    pub large_bytes: usize,
    /// True exactly when the time of the last check has come.
    over: bool,
}

/// How a seed ended.
#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<Failure>,
    pub digest: u64,
    pub size: Size,
}

impl World {
    pub fn new(seed: u64, only: Only, trace: Trace) -> Self {
        let mut chance = Chance::new(seed);
        let mut plan = Plan::new(&mut chance);
        only.cut(&mut plan);
        let mut kernel = Kernel::new(chance.fork(), trace);
        (kernel.quirks, kernel.latency_ms) = (plan.quirks, plan.latency_ms);
        let mut ledger = Ledger {
            newest: plan.replace == quorum_cnx::Replace::Newest,
            once: plan.queue,
            by_name: plan.hosts.iter().any(|host| host.name.is_some()),
            ..Ledger::default()
        };
        kernel.say("plan", || format!("{plan:?}"));
        for host in &plan.hosts {
            let mut ips = host.ips.clone();
            let homes = ips.clone();
            if !ips.contains(&host.source) {
                ips.push(host.source);
            }
            ledger
                .hosts
                .push(Account::new(host.sid, homes, ips.clone()));
            let node = kernel.add_node(format!("host{}", host.sid), ips);
            kernel.nodes[node].source = host.source;
            kernel.nodes[node].proxied = host.proxied;
            if let Some(name) = &host.name {
                kernel.names.insert(name.clone(), host.ips.clone());
            }
            if host.first_is_black {
                kernel.black.insert(host.ips[0]);
            }
        }
        let strangers = (0..plan.strangers)
            .map(|index| Stranger::new(&mut kernel, index, chance.fork()))
            .collect();
        let host = || Host {
            turning: Rc::default(),
            handle: None,
            watch: Watch::default(),
        };
        let hosts = plan.hosts.iter().map(|_| host()).collect();
        let size = Size {
            hosts: plan.hosts.len(),
            strangers: plan.strangers,
            storm: plan.storm[1] - plan.storm[0],
            ..Size::default()
        };
        Self {
            plan,
            only,
            size,
            machines: Machines::new(kernel),
            books: Rc::new(RefCell::new(ledger)),
            hosts,
            mischief: chance.fork(),
            chance,
            faults: Vec::new(),
            strangers,
            talking: true,
            large_bytes: 0,
            over: false,
        }
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.machines.lock()
    }

    /// Lets everything happen, up to the first failure.
    pub fn run(mut self) -> Outcome {
        self.prepare();
        let machines = self.machines.clone();
        while !self.over {
            let mut kernel = machines.lock();
            let due = kernel
                .next()
                .expect("the parts of the plan are on the timeline");
            {
                let ledger = &mut *self.books.borrow_mut();
                ledger.now = kernel.now;
                if ledger.failure.is_some() {
                    break;
                }
            }
            self.on(due, kernel);
        }
        if self.books.borrow().failure.is_none() {
            self.judge();
        }
        if self.books.borrow().failure.is_none() {
            self.halt_all();
        }
        let failure = self.books.borrow().failure.clone();
        if let Some(Failure { property, what }) = &failure {
            self.kernel().say("FAILS", || format!("{property}: {what}"));
        }
        let digest = self.kernel().trace.digest;
        self.kernel().trace.end();
        Outcome {
            failure,
            digest,
            size: self.size,
        }
    }

    fn prepare(&mut self) {
        let [storm, calm] = self.plan.storm;
        for host in 0..self.hosts.len() {
            self.faults.push(Some(Fault::Down(host)));
            let (start, talk) = (self.chance.millis(0, 500), self.chance.millis(0, 900));
            let mut kernel = self.machines.lock();
            kernel.at(start, Due::Recover(host));
            kernel.at(talk, Due::App(host));
        }
        // In a calm world no stranger is there when a link comes up: who knocks then may be the peer.
        let first = storm + KNOCK_CROSSING * u32::from(self.plan.calm);
        for index in 0..self.strangers.len() {
            let when = first + self.chance.millis(0, 2000);
            self.kernel().at(when, Due::Stranger(index));
        }
        let mut kernel = self.machines.lock();
        if !self.plan.calm {
            kernel.at(storm, Due::Fault);
        }
        for (part, when) in [storm, calm, calm + TALK_ON, calm + QUIET]
            .into_iter()
            .enumerate()
        {
            kernel.at(when, Due::Part(part));
        }
    }

    fn on(&mut self, due: Due, mut kernel: MutexGuard<'_, Kernel>) {
        match due {
            Due::Wake(node) => {
                if kernel.awake(node) {
                    drop(kernel);
                    self.turn(node);
                }
            }
            Due::Syn(conn) => kernel.on_syn(conn),
            Due::SynAck(conn) => kernel.on_syn_ack(conn),
            Due::Third(conn) => kernel.on_third(conn),
            Due::Refused(conn) => kernel.on_refused(conn),
            Due::Arrive(conn, side) => kernel.on_arrive(conn, side),
            Due::Ack(conn, side) => kernel.on_ack(conn, side),
            Due::Reset(conn, side) => kernel.on_reset(conn, side),
            Due::Timer(sock) => kernel.on_timer(sock),
            Due::Room(sock) => kernel.on_room(sock),
            Due::Answer(question) => {
                if let Some((node, ip)) = kernel.answer(question) {
                    self.books.borrow_mut().on_found(node, ip);
                }
            }
            Due::Stranger(index) => {
                if index < self.strangers.len() {
                    stranger::on_due(&mut self.strangers, index, &mut kernel, &self.plan);
                    let ledger = &mut *self.books.borrow_mut();
                    if self.strangers[index].overstays && ledger.calm {
                        let what = format!("stranger {index} is nobody and is not sent away");
                        ledger.fail("P4", what);
                    }
                }
            }
            Due::App(host) => {
                drop(kernel);
                self.talk(host);
            }
            Due::Ready(host) => {
                drop(kernel);
                if let Some(handle) = &self.hosts[host].handle {
                    handle.wake();
                }
            }
            Due::Fault => {
                if kernel.now < self.plan.storm[1] {
                    let time = self
                        .mischief
                        .micros(0, self.plan.fault_every.as_micros() as u64);
                    kernel.after(time, Due::Fault);
                    drop(kernel);
                    self.fault();
                }
            }
            Due::Recover(index) => {
                drop(kernel);
                self.recover(index);
            }
            Due::Part(part) => {
                let names = ["the storm begins", "the storm is over: all is made good"];
                let names = names
                    .into_iter()
                    .chain(["the last words", "quiet: what was promised must be true"]);
                kernel.say("plan", || names.clone().nth(part).unwrap_or("?").to_owned());
                drop(kernel);
                self.enter(part);
            }
        }
    }

    fn enter(&mut self, part: usize) {
        match part {
            // In a calm world the mesh stands before strangers come, and no knock that has crossed a link is on its way if it
            // may be read so late that it is not taken for one that has.
            0 => {
                let in_time = self.plan.quirks.late_event == 0 || self.has_only_links();
                let is_calm = self.plan.calm && self.is_whole() && in_time;
                self.books.borrow_mut().calm = is_calm;
            }
            1 => {
                self.heal();
                self.talking = self.plan.talks_on;
                self.books.borrow_mut().quiet = !self.talking;
            }
            2 if self.plan.talks_on => {
                self.books.borrow_mut().quiet = true;
                self.last_words();
                self.talking = false;
            }
            2 => {}
            _ => self.over = true,
        }
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].turning.borrow().is_some()
    }

    /// The process of a host starts, with empty hands.
    pub fn start(&mut self, host: usize) {
        self.books.borrow_mut().start(host);
        let proxied = self.plan.hosts[host].proxied;
        {
            let mut kernel = self.machines.lock();
            let node = &mut kernel.nodes[host];
            if proxied {
                // Its proxy comes from another address each time.
                let IpAddr::V4(v4) = node.source else {
                    unreachable!("the plan knows IPv4 only")
                };
                let [a, b, n, last] = v4.octets();
                node.source = IpAddr::from([a, b, n.wrapping_add(1), last]);
                node.ips.push(node.source);
                let machine = &mut self.books.borrow_mut().hosts[host].machine;
                machine.push(node.source);
            }
            (node.on, node.running, node.dead_after) = (true, true, Some(self.plan.dead_after));
            kernel.note(host, || "starts".into());
        }
        let app = App {
            me: host,
            books: Rc::clone(&self.books),
            machines: self.machines.clone(),
            chance: self.chance.fork(),
            answers: self.plan.answers,
            asks: self.plan.asks,
            calm: self.plan.calm,
            slow: self.plan.slow,
            busy_until: Duration::ZERO,
        };
        let config = self.plan.config(host, self.chance.next());
        let net = SimNet::new(self.machines.clone(), host);
        let turning = EventLoop::on_net(config, app, net).expect("no socket was handed over");
        self.hosts[host].handle = Some(turning.handle().clone());
        self.hosts[host].watch = Watch::default();
        self.hosts[host].turning.replace(Some(turning));
        self.kernel().wake(host);
    }

    /// The process dies; its kernel closes what it had.
    pub fn crash(&self, host: usize) {
        self.kernel().note(host, || "crashes".into());
        self.hosts[host].turning.take();
        self.kernel().forget_process(host);
    }

    /// The machine is dead, and tells nobody.
    pub fn lose_power(&self, host: usize) {
        self.kernel().note(host, || "loses power".into());
        self.kernel().power_off(host);
        self.hosts[host].turning.take();
    }

    /// The machine of this host is gone for good; another one, with another address, has its name from now on.
    pub fn replace_machine(&mut self, host: usize) {
        let plan = &mut self.plan.hosts[host];
        let old = plan.ips[0];
        let IpAddr::V4(v4) = old else {
            unreachable!("the plan knows IPv4 only")
        };
        let [a, b, moves, n] = v4.octets();
        let new = IpAddr::from([a, b, moves + 1, n]);
        plan.ips[0] = new;
        let mut kernel = self.machines.lock();
        kernel.note(host, || format!("comes back as {new}"));
        kernel.replace_machine(host, old, new);
        let name = plan.name.clone().expect("only a name can move");
        kernel.names.insert(name, plan.ips.clone());
        // Whoever knows the old address only takes it for his still.
        let account = &mut self.books.borrow_mut().hosts[host];
        account.homes.push(new);
        account.machine.push(new);
    }

    /// Turns the loop of a host once.
    pub fn turn(&mut self, host: usize) {
        let slot = Rc::clone(&self.hosts[host].turning);
        let mut slot = slot.borrow_mut();
        let Some(turning) = &mut *slot else {
            return;
        };
        turning
            .turn(Some(Duration::ZERO))
            .expect("the simulated system does not fail");
        let reported = turning.net().reported;
        let timeout = turning.timeout();
        drop(slot);
        if let Some(timeout) = timeout {
            let mut kernel = self.machines.lock();
            let when = kernel.now + timeout.max(Duration::from_micros(1));
            kernel.wake_by(host, when);
        }
        self.watch(host, reported);
    }

    /// Whether every host has a link to every other one.
    fn is_whole(&self) -> bool {
        let ledger = self.books.borrow();
        let linked = |host: &Account| host.links.len() == ledger.hosts.len() - 1;
        ledger.hosts.iter().all(linked)
    }

    /// Whether nobody has a connection, or is to have one, that is no link.
    fn has_only_links(&self) -> bool {
        let links: usize = (self.books.borrow().hosts.iter())
            .map(|host| host.links.len())
            .sum();
        let kernel = self.kernel();
        let ends = kernel.socks.iter();
        links == ends.filter(|end| end.held || end.queued).count()
    }
}
