//! One simulated run: hosts that run the real event loop, from their start to their halt.
//!
//! ```text
//!   start --storm[0]--> faults, strangers, traffic --storm[1]--> recovery --> final frames --> settled --> halt
//! ```
//!
//! The properties are checked in `oracle` and `properties`.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::MutexGuard,
    time::Duration,
};

use quorum_cnx::{Dial, EventLoop, Handle, simulation::limits::KNOCK_CROSSING};

use crate::{
    faults::Fault,
    kernel::{Kernel, SimEvent},
    layer::Layer,
    layer_records::Key,
    net::{Machines, ProcessNet, SimNet, process_net},
    only::{Only, Size},
    oracle::{App, Failure, HostRecord, Oracle, SharedOracle},
    plan::Plan,
    properties::TurnMonitor,
    rng::Rng,
    stranger::Stranger,
    trace::Trace,
};

/// From the end of the storm to the final frames, if applications send after the storm.
const TRAFFIC_AFTER_STORM: Duration = Duration::from_secs(15);

/// From the end of the storm to the frames for peers to which there is no link any more. Nobody sends anything else then.
const SECOND_FRAMES: Duration = Duration::from_secs(30);

/// From the end of the storm to the time when the mesh must be whole. The longest chain: a dead link is detected
/// (`peer_dead_after`, 5 s), a contender waits for that (6 s), a connect or a lookup is in progress (5 s each), a knock waits
/// until the peer closes it (5 s), backoff.
const SETTLE_TIME: Duration = Duration::from_secs(40);

pub type SharedLoop = Rc<RefCell<Option<EventLoop<App, ProcessNet>>>>;

#[derive(Default)]
pub struct Host {
    pub event_loop: SharedLoop,
    /// It outlives its loop, as it may in an application.
    pub handle: Option<Handle>,
    pub monitor: TurnMonitor,
    /// Events that were reported to its loop.
    reported: Rc<Cell<u64>>,
}

pub struct Simulation {
    pub plan: Plan,
    pub only: Only,
    /// Counts the parts of the run so far.
    pub size: Size,
    pub machines: Machines,
    pub oracle: SharedOracle,
    pub hosts: Vec<Host>,
    pub rng: Rng,
    /// A generator of its own, so that the faults stay the same when calls are left out.
    pub fault_rng: Rng,
    pub faults: Vec<Option<Fault>>,
    pub strangers: Vec<Stranger>,
    pub sends_frames: bool,
    pub large_bytes: usize,
    /// True exactly when the time of the final check has come.
    over: bool,
}

/// How a seed ended.
#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<Failure>,
    pub digest: u64,
    pub size: Size,
}

impl Simulation {
    pub fn new(seed: u64, only: Only, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng);
        only.cut(&mut plan);
        let mut kernel = Kernel::new(rng.fork(), trace);
        (kernel.quirks, kernel.latency_ms) = (plan.quirks, plan.latency_ms);
        kernel.wrong_answers = if plan.always_proves() { 500 } else { 0 };
        let mut oracle = Oracle {
            replace_newest: plan.replace == quorum_cnx::Replace::Newest,
            outbox: plan.outbox(),
            has_strangers: plan.strangers > 0,
            by_name: plan.hosts.iter().any(|host| host.name.is_some()),
            is_steady: true,
            changes_members: plan.changes_members,
            ..Oracle::default()
        };
        kernel.log("plan", || format!("{plan:?}"));
        for host in &plan.hosts {
            let mut ips = [&host.ips[..], &[host.other_ip]].concat();
            let configured_ips = ips.clone();
            if !ips.contains(&host.source) {
                ips.push(host.source);
            }
            oracle.sids.push(host.sid);
            oracle
                .hosts
                .push(HostRecord::new(configured_ips, ips.clone()));
            let node = kernel.add_node(format!("host{}", host.sid), ips);
            kernel.nodes[node].source = host.source;
            kernel.nodes[node].key = Some(host.sid);
            kernel.nodes[node].proxied = host.proxied;
            if let Some(name) = &host.name {
                kernel.names.insert(name.clone(), host.ips.clone());
            }
            if host.first_is_blackholed {
                kernel.blackholed.insert(host.ips[0]);
            }
        }
        let strangers = (0..plan.strangers)
            .map(|index| Stranger::new(&mut kernel, index, rng.fork()))
            .collect();
        let hosts = plan.hosts.iter().map(|_| Host::default()).collect();
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
            oracle: Rc::new(RefCell::new(oracle)),
            hosts,
            fault_rng: rng.fork(),
            rng,
            faults: Vec::new(),
            strangers,
            sends_frames: true,
            large_bytes: 0,
            over: false,
        }
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.machines.lock()
    }

    /// Runs everything, up to the first failure.
    pub fn run(mut self) -> Outcome {
        self.schedule();
        self.run_while(|it| !it.over);
        if self.oracle.borrow().failure.is_none() {
            self.check_settled();
        }
        if self.oracle.borrow().failure.is_none() {
            self.check_halt_after_frames();
        }
        if self.oracle.borrow().failure.is_none() {
            self.halt_all();
        }
        let failure = self.oracle.borrow().failure.clone();
        if let Some(Failure { property, what }) = &failure {
            self.kernel().log("FAILS", || format!("{property}: {what}"));
        }
        let digest = self.kernel().trace.digest;
        self.kernel().trace.end();
        Outcome {
            failure,
            digest,
            size: self.size,
        }
    }

    /// Runs what happens next, up to the first failure.
    pub fn run_while(&mut self, mut goes_on: impl FnMut(&Self) -> bool) {
        let machines = self.machines.clone();
        while goes_on(self) {
            let mut kernel = machines.lock();
            let Some(event) = kernel.next() else {
                // Nothing is due any more.
                break;
            };
            {
                let oracle = &mut *self.oracle.borrow_mut();
                oracle.now = kernel.now;
                if oracle.failure.is_some() {
                    break;
                }
            }
            self.on(event, kernel);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.kernel().now + time;
        self.run_while(|it| it.kernel().now < until);
    }

    fn schedule(&mut self) {
        let [storm, end] = self.plan.storm;
        for host in 0..self.hosts.len() {
            self.faults.push(Some(Fault::Down(host)));
            let (start, first_call) = (self.rng.millis(0, 500), self.rng.millis(0, 900));
            let mut kernel = self.machines.lock();
            kernel.at(start, SimEvent::Recover(host));
            kernel.at(first_call, SimEvent::App(host));
        }
        // A knock soon after a link comes up may be the peer's. So strangers come later if there is nothing else than them.
        let first = storm + KNOCK_CROSSING * u32::from(self.plan.strangers_only);
        for index in 0..self.strangers.len() {
            let when = first + self.rng.millis(0, 2000);
            self.kernel().at(when, SimEvent::Stranger(index));
        }
        let mut kernel = self.machines.lock();
        if !self.plan.strangers_only {
            kernel.at(storm, SimEvent::Fault);
        }
        let after = [TRAFFIC_AFTER_STORM, SECOND_FRAMES, SETTLE_TIME].map(|time| end + time);
        for (phase, when) in [storm, end].into_iter().chain(after).enumerate() {
            kernel.at(when, SimEvent::Phase(phase));
        }
    }

    fn on(&mut self, event: SimEvent, mut kernel: MutexGuard<'_, Kernel>) {
        match event {
            SimEvent::Wake(node) => {
                if kernel.take_wakeup(node) {
                    drop(kernel);
                    self.turn(node);
                }
            }
            SimEvent::Syn(conn) => kernel.on_syn(conn),
            SimEvent::SynAck(conn) => kernel.on_syn_ack(conn),
            SimEvent::FinalAck(conn) => kernel.on_final_ack(conn),
            SimEvent::Refused(conn) => kernel.on_refused(conn),
            SimEvent::Arrive(conn, side) => kernel.on_arrive(conn, side),
            SimEvent::Ack(conn, side) => kernel.on_ack(conn, side),
            SimEvent::Reset(conn, side) => kernel.on_reset(conn, side),
            SimEvent::Timer(sock) => kernel.on_timer(sock),
            SimEvent::BufferSpace(sock) => kernel.on_buffer_space(sock),
            SimEvent::LookupDone(lookup) => {
                if let Some((node, ip)) = kernel.complete_lookup(lookup) {
                    self.oracle.borrow_mut().on_resolved(node, ip);
                }
            }
            SimEvent::Stranger(index) => {
                if index < self.strangers.len() {
                    let time = self.strangers[index].step(&mut kernel, &self.plan);
                    kernel.after(time, SimEvent::Stranger(index));
                    let oracle = &mut *self.oracle.borrow_mut();
                    if self.strangers[index].is_overdue && oracle.strangers_only {
                        let what = format!("the connection of stranger {index} is not closed");
                        oracle.fail("P4", what);
                    }
                    if self.strangers[index].has_frame {
                        oracle.fail("P10", format!("stranger {index} receives a frame"));
                    }
                }
            }
            SimEvent::App(host) => {
                drop(kernel);
                self.run_application(host);
            }
            SimEvent::Ready(host) => {
                drop(kernel);
                if let Some(handle) = &self.hosts[host].handle {
                    handle.wake();
                }
            }
            SimEvent::Fault => {
                if kernel.now < self.plan.storm[1] {
                    let time = self
                        .fault_rng
                        .micros(0, self.plan.fault_every.as_micros() as u64);
                    kernel.after(time, SimEvent::Fault);
                    drop(kernel);
                    self.fault();
                }
            }
            SimEvent::Recover(index) => {
                drop(kernel);
                self.recover(index);
            }
            SimEvent::Phase(phase) => {
                let names = [
                    "the storm begins",
                    "the storm is over: all faults are undone",
                    "final frames",
                    "frames where no link is needed",
                    "final check",
                ];
                kernel.log("plan", || names[phase].to_owned());
                drop(kernel);
                self.enter(phase);
            }
        }
    }

    fn enter(&mut self, phase: usize) {
        match phase {
            // The mesh must be complete before strangers come. A knock that crosses a link must not be read so late that the
            // loop does not recognize it.
            0 => {
                let no_late_knocks = self.plan.quirks.late_event == 0 || self.has_only_links();
                let is_calm = self.plan.strangers_only && self.is_complete();
                let oracle = &mut *self.oracle.borrow_mut();
                oracle.renews_only = is_calm && self.plan.renews_only;
                oracle.strangers_only = is_calm && no_late_knocks && !self.plan.renews_only;
            }
            1 => {
                self.heal();
                for host in 0..self.hosts.len() {
                    if self.plan.changes_members && self.is_up(host) {
                        self.restore_members(host);
                    }
                }
                self.sends_frames = self.plan.traffic_after_storm;
                self.oracle.borrow_mut().calls_ended = !self.sends_frames;
            }
            2 => {
                if self.plan.changes_own {
                    self.end_links_elsewhere();
                }
                if self.plan.traffic_after_storm {
                    self.oracle.borrow_mut().calls_ended = true;
                    self.send_final_frames();
                    self.sends_frames = false;
                }
            }
            3 if self.plan.dial == Dial::OnDemand => self.send_where_no_link_is_needed(),
            3 => {}
            _ => self.over = true,
        }
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].event_loop.borrow().is_some()
    }

    /// Starts the process of a host.
    pub fn start(&mut self, host: usize) {
        self.oracle.borrow_mut().start(host);
        self.note_certificates();
        self.oracle.borrow_mut().hosts[host].take_rules();
        let proxied = self.plan.hosts[host].proxied;
        {
            let mut kernel = self.machines.lock();
            let node = &mut kernel.nodes[host];
            if proxied {
                // Its proxy has another address each time.
                let IpAddr::V4(v4) = node.source else {
                    unreachable!("all addresses are IPv4")
                };
                let [a, b, n, last] = v4.octets();
                node.source = IpAddr::from([a, b, n.wrapping_add(1), last]);
                node.ips.push(node.source);
                let source_ips = &mut self.oracle.borrow_mut().hosts[host].source_ips;
                source_ips.push(node.source);
            }
            (node.on, node.running, node.dead_after) = (true, true, Some(self.plan.dead_after));
            kernel.note(host, || "starts".into());
        }
        let app = App {
            me: host,
            oracle: Rc::clone(&self.oracle),
            machines: self.machines.clone(),
            rng: self.rng.fork(),
            answers: self.plan.answers,
            random_calls: self.plan.random_calls,
            strangers_only: self.plan.strangers_only,
            slow: self.plan.slow,
            busy_until: Duration::ZERO,
        };
        let config = self.plan.config(host, self.rng.next());
        let net = SimNet::new(self.machines.clone(), host);
        self.hosts[host].reported = net.reported();
        let layer = self.plan.layer.map(|shape| Layer {
            key: Key {
                names: self.plan.hosts[host].sid,
                is_signed: true,
            },
            shape,
            // A clone, so that the run is the same without the layer.
            rng: self.rng.clone().fork(),
        });
        let net = process_net(net, layer);
        let event_loop = EventLoop::with_net(config, app, net).expect("no socket was handed over");
        self.hosts[host].handle = Some(event_loop.handle().clone());
        self.hosts[host].monitor = TurnMonitor::default();
        self.hosts[host].event_loop.replace(Some(event_loop));
        self.kernel().wake(host);
    }

    /// Kills the process. Its kernel closes its sockets.
    pub fn crash(&self, host: usize) {
        self.kernel().note(host, || "crashes".into());
        self.hosts[host].event_loop.take();
        self.kernel().forget_process(host);
    }

    /// The machine loses power: it sends no more packets.
    pub fn lose_power(&self, host: usize) {
        self.kernel().note(host, || "loses power".into());
        self.kernel().power_off(host);
        self.hosts[host].event_loop.take();
    }

    /// Replaces the machine of this host by one with another address, which takes over its name.
    pub fn replace_machine(&mut self, host: usize) {
        let plan = &mut self.plan.hosts[host];
        let old = plan.ips[0];
        let IpAddr::V4(v4) = old else {
            unreachable!("all addresses are IPv4")
        };
        let [a, b, moves, n] = v4.octets();
        let new = IpAddr::from([a, b, moves + 1, n]);
        plan.ips[0] = new;
        let mut kernel = self.machines.lock();
        kernel.note(host, || format!("comes back with address {new}"));
        kernel.replace_machine(host, old, new);
        let name = plan.name.clone().expect("only hosts with names move");
        kernel.names.insert(name, plan.ips.clone());
        // Peers that know only the old address still use it.
        let record = &mut self.oracle.borrow_mut().hosts[host];
        record.configured_ips.push(new);
        record.source_ips.push(new);
    }

    /// Runs one turn of a host's loop.
    pub fn turn(&mut self, host: usize) {
        let slot = Rc::clone(&self.hosts[host].event_loop);
        let mut slot = slot.borrow_mut();
        let Some(event_loop) = &mut *slot else {
            return;
        };
        event_loop
            .turn(Some(Duration::ZERO))
            .expect("the simulated system does not fail");
        let reported = self.hosts[host].reported.get();
        let timeout = event_loop.timeout();
        drop(slot);
        if let Some(timeout) = timeout {
            let mut kernel = self.machines.lock();
            let when = kernel.now + timeout.max(Duration::from_micros(1));
            kernel.wake_by(host, when);
        }
        self.check_turn(host, reported);
    }

    /// Whether every host has a link to every other host.
    fn is_complete(&self) -> bool {
        let oracle = self.oracle.borrow();
        let is_linked = |host: &HostRecord| host.links.len() == oracle.hosts.len() - 1;
        oracle.hosts.iter().all(is_linked)
    }

    /// Whether every connection, accepted or in a backlog, is a link.
    fn has_only_links(&self) -> bool {
        let links: usize = (self.oracle.borrow().hosts.iter())
            .map(|host| host.links.len())
            .sum();
        let kernel = self.kernel();
        let socks = kernel.socks.iter();
        links == socks.filter(|sock| sock.held || sock.queued).count()
    }
}
