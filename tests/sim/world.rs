//! One simulated world: hosts that run the real loop, and what happens to them until it is over.
//!
//! ```text
//!   start --storm[0]--> faults, strangers, talk --storm[1]--> healing --> the last words --> quiet --> halt
//! ```
//!
//! What must hold is in `host` and `properties`; nothing here judges.

use std::{cell::RefCell, rc::Rc, sync::MutexGuard, time::Duration};

use quorum_cnx::{EventLoop, Handle};

use crate::{
    chance::Chance,
    faults::Fault,
    host::{Account, App, Books, Failure, Ledger, put},
    kernel::{Due, Kernel},
    net::{Machines, SimNet, meanwhile},
    plan::Plan,
    properties::Watch,
    stranger::{self, Stranger},
    trace::Trace,
};

/// From the end of the storm to the last words of the applications that talk on.
const TALK_ON: Duration = Duration::from_secs(15);

/// From the end of the storm until everything must be as promised. The longest chain: a dead link is found
/// (`peer_dead_after`, 5 s), a challenger waits for that (6 s), a connect or a lookup was underway (5 s each), a knock
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
    pub machines: Machines,
    pub books: Books,
    pub hosts: Vec<Host>,
    pub chance: Chance,
    pub faults: Vec<Option<Fault>>,
    pub strangers: Vec<Stranger>,
    talking: bool,
    /// True exactly when the time of the last check has come.
    over: bool,
}

/// How a seed ended.
#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<Failure>,
    pub digest: u64,
    pub trace: String,
}

impl World {
    pub fn new(seed: u64, trace: Trace) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance);
        let mut kernel = Kernel::new(chance.fork(), trace);
        (kernel.quirks, kernel.latency_ms) = (plan.quirks, plan.latency_ms);
        let mut ledger = Ledger {
            newest: plan.replace == quorum_cnx::Replace::Newest,
            once: plan.queue,
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
            if let Some(name) = &host.name {
                kernel.names.insert(name.clone(), host.ips[0]);
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
        Self {
            plan,
            machines: Machines::new(kernel),
            books: Rc::new(RefCell::new(ledger)),
            hosts,
            chance,
            faults: Vec::new(),
            strangers,
            talking: true,
            over: false,
        }
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.machines.lock()
    }

    /// Lets everything happen, up to the first failure.
    pub fn run(mut self) -> Outcome {
        self.prepare();
        while !self.over && self.books.borrow().failure.is_none() {
            let due = self
                .kernel()
                .next()
                .expect("the parts of the plan are on the timeline");
            self.books.borrow_mut().now = self.kernel().now;
            self.on(due);
        }
        if self.books.borrow().failure.is_none() {
            self.judge();
        }
        if self.books.borrow().failure.is_none() {
            self.halt_all();
        }
        let failure = self.books.borrow().failure.clone();
        let kernel = self.kernel();
        Outcome {
            failure,
            digest: kernel.trace.digest,
            trace: kernel.trace.text(),
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
        for index in 0..self.strangers.len() {
            let when = storm + self.chance.millis(0, 2000);
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

    fn on(&mut self, due: Due) {
        let mut kernel = self.machines.lock();
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
            Due::Answer(node, process, ticket, answer) => {
                kernel.answer(node, process, ticket, answer)
            }
            Due::Stranger(index) => {
                if index < self.strangers.len() {
                    stranger::on_due(&mut self.strangers, index, &mut kernel, &self.plan);
                    if self.strangers[index].overstays {
                        let what = format!("stranger {index} says nothing and is not sent away");
                        self.books.borrow_mut().fail("P4", what);
                    }
                }
            }
            Due::App(host) => {
                drop(kernel);
                self.talk(host);
            }
            Due::Fault => {
                if kernel.now < self.plan.storm[1] {
                    let time = self
                        .chance
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
                kernel.say("plan", || format!("part {part}"));
                drop(kernel);
                self.enter(part);
            }
        }
    }

    fn enter(&mut self, part: usize) {
        match part {
            // In a calm world the mesh stands before strangers come.
            0 => self.books.borrow_mut().calm = self.plan.calm && self.is_whole(),
            1 => {
                self.heal();
                self.talking = self.plan.talks_on;
            }
            2 if self.plan.talks_on => {
                for host in 0..self.hosts.len() {
                    for to in (0..self.hosts.len()).filter(|&to| to != host) {
                        self.put(host, to);
                    }
                }
                self.talking = false;
            }
            2 => {}
            _ => self.over = true,
        }
    }

    /// The application of a host does something.
    fn talk(&mut self, host: usize) {
        if !self.talking {
            return;
        }
        let every = self
            .chance
            .micros(0, self.plan.talk_every.as_micros() as u64);
        self.kernel().after(every, Due::App(host));
        let Some(handle) = self.hosts[host].handle.clone().filter(|_| self.is_up(host)) else {
            return;
        };
        let to = self.chance.below(self.hosts.len());
        let sid = self.plan.hosts[to].sid;
        match self.chance.below(100) {
            // What the application asks for is no fault of strangers.
            0 if !self.plan.calm => handle.soft_halt(),
            1 if !self.plan.calm && to != host => {
                self.books.borrow_mut().hosts[host].fruitless.remove(&sid);
                handle.initiate_connection(sid).expect("it is a member");
            }
            2 if to != host => handle.connect_one(sid).expect("it is a member"),
            3 => handle.connect_all(),
            _ => {
                for _ in 0..*self.chance.pick(&[1, 1, 1, 2, 30]) {
                    self.put(host, to);
                }
            }
        }
    }

    /// Puts a frame, with something happening in the middle of it now and then.
    fn put(&mut self, host: usize, to: usize) {
        let Some(handle) = self.hosts[host].handle.clone() else {
            return;
        };
        let large = self.chance.permille(self.plan.large);
        let len = if large {
            self.chance.between(1000, 520_000)
        } else {
            self.chance.below(60)
        };
        let books = Rc::clone(&self.books);
        let result = match self.chance.below(10) {
            0 => {
                let (inner, other) = (Rc::clone(&books), handle.clone());
                let more = move || {
                    // What became of it is in the account.
                    let _ = put(&inner, &other, host, to, 3);
                };
                meanwhile(more, || put(&books, &handle, host, to, len))
            }
            1 => {
                // What the turn leaves to be done is seen by the next one.
                let (turning, machines) =
                    (Rc::clone(&self.hosts[host].turning), self.machines.clone());
                let turn = move || {
                    if let Some(turning) = &mut *turning.borrow_mut() {
                        turning
                            .turn(Some(Duration::ZERO))
                            .expect("the simulated system does not fail");
                    }
                    machines.lock().wake(host);
                };
                meanwhile(turn, || put(&books, &handle, host, to, len))
            }
            _ => put(&books, &handle, host, to, len),
        };
        self.kernel().note(host, || {
            format!("puts {len} bytes for host {to}: {result:?}")
        });
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].turning.borrow().is_some()
    }

    /// The process of a host starts, with empty hands.
    pub fn start(&mut self, host: usize) {
        self.books.borrow_mut().start(host);
        {
            let mut kernel = self.machines.lock();
            let node = &mut kernel.nodes[host];
            (node.on, node.running, node.dead_after) = (true, true, Some(self.plan.dead_after));
            kernel.note(host, || "starts".into());
        }
        let app = App {
            me: host,
            books: Rc::clone(&self.books),
            machines: self.machines.clone(),
            chance: self.chance.fork(),
            answers: self.plan.answers,
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
}
