//! A mesh of members on the hosts of a network, one process each, with the driver that sends frames between them, and the
//! checks after a fault.

use std::{
    collections::BTreeMap,
    mem,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, mpsc::channel},
    thread,
    time::Duration,
};

use quorum_cnx::simulation::limits::KNOCK_CROSSING;
use serde_json::Value;
use support::{
    program::{Peer, program_path},
    signal::{Signal, signal},
    sockets::established,
};

use crate::{
    accounts,
    lan::{Lan, PORT, name},
    ledger::{Change, Ledger, each_way},
    run_time, sockets, table,
    traffic::{Process, Seats, Traffic},
};

/// Every kernel has it. With others, `bbr` for instance, dead peers are noticed later.
pub(crate) const CONGESTION_CONTROL: &str = "reno";

/// How long a peer may be silent: the shortest allowed time.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);

/// A mesh of processes.
pub(crate) struct Quorum {
    // Dropped in this order: the driver stops, the processes end, the network is removed.
    traffic: Traffic,
    seats: Arc<Seats>,
    ledger: Arc<Mutex<Ledger>>,
    pub(crate) lan: Lan,
    dead_after: Duration,
    shape: Box<dyn Fn(&mut Command) + Send>,
}

/// How long the recovery took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    /// Until the last link had come up. Zero if none was missing.
    pub(crate) linked: Duration,
    /// Until a new frame had arrived in every direction.
    pub(crate) through: Duration,
}

impl Quorum {
    /// Starts a member on each host of this network, and waits until all are linked. In each interval of `pace` a frame is sent in
    /// each direction.
    #[track_caller]
    pub(crate) fn start(lan: Lan, pace: Duration) -> Self {
        Self::start_as(lan, pace, DEAD_AFTER, |_| {})
    }

    /// The same with another `dead_after`, and with a function that changes the command of each process.
    #[track_caller]
    pub(crate) fn start_as(
        lan: Lan,
        pace: Duration,
        dead_after: Duration,
        shape: impl Fn(&mut Command) + Send + 'static,
    ) -> Self {
        let members = lan.hosts().into_iter();
        let seats: Arc<Seats> =
            Arc::new(members.map(|member| (member, Mutex::default())).collect());
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let quorum = Self {
            traffic: Traffic::start(Arc::clone(&seats), Arc::clone(&ledger), pace),
            seats,
            ledger,
            lan,
            dead_after,
            shape: Box::new(shape),
        };
        for member in quorum.all() {
            quorum.launch(member);
        }
        quorum.wait_recovered(&quorum.all(), run_time::now());
        quorum
    }

    pub(crate) fn all(&self) -> Vec<i64> {
        self.lan.hosts()
    }

    pub(crate) fn all_but(&self, without: &[i64]) -> Vec<i64> {
        let mut all = self.all();
        all.retain(|member| !without.contains(member));
        all
    }

    /// From now on these members neither send nor receive.
    pub(crate) fn leave_out(&self, members: &[i64]) {
        self.traffic.leave_out(members);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn seat(&self, member: i64) -> MutexGuard<'_, Option<Process>> {
        self.seats[&member].lock().unwrap()
    }

    /// Starts the process of a member that has none.
    #[track_caller]
    pub(crate) fn launch(&self, member: i64) {
        let mut seat = self.seat(member);
        assert!(seat.is_none(), "one process for each member");
        let servers: Vec<(i64, String)> = self
            .all()
            .iter()
            .map(|peer| (*peer, format!("{}:{PORT}", name(*peer))))
            .collect();
        let servers: Vec<(i64, &str)> = servers
            .iter()
            .map(|(peer, address)| (*peer, address.as_str()))
            .collect();
        let mut command = self.lan.command(member, program_path());
        command.env_remove("RUST_LOG");
        (self.shape)(&mut command);
        let dead_after = self.dead_after.as_millis().to_string();
        let mut peer = Peer::start_by(
            command,
            member,
            &servers,
            // Room for frames that are printed late on a busy machine.
            &[
                "--peer-dead-after-ms",
                &dead_after,
                "--capacity",
                "65536",
                "--congestion-control",
                CONGESTION_CONTROL,
            ],
        );
        let lines = mem::replace(&mut peer.lines, channel().1);
        self.ledger().on_process_start(member);
        let ledger = Arc::clone(&self.ledger);
        let reader = thread::spawn(move || {
            for line in lines {
                let at = run_time::now();
                ledger.lock().unwrap().on_line(member, &line, at);
            }
        });
        *seat = Some(Process {
            peer,
            reader,
            is_stopped: false,
        });
        drop(seat);
        run_time::wait("the member listens", || {
            let listens = self.ledger().process(member).is_listening;
            missing(listens, || format!("member {member}"))
        });
    }

    /// Kills the process, and reads the rest of its output.
    pub(crate) fn kill(&self, member: i64) {
        let process = self.seat(member).take();
        let Process {
            mut peer, reader, ..
        } = process.expect("the member has a process");
        peer.child.kill().unwrap();
        peer.child.wait().unwrap();
        reader.join().unwrap();
    }

    /// Ends the process by the command `quit`.
    #[track_caller]
    pub(crate) fn quit(&self, member: i64) {
        let process = self.seat(member).take();
        let Process { peer, reader, .. } = process.expect("the member has a process");
        let mut peer = peer;
        peer.tell("quit");
        let (code, _, errors) = peer.end();
        reader.join().unwrap();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{member} has quit");
    }

    /// Stops or continues the process. It is given no frames while it is stopped.
    pub(crate) fn stop(&self, member: i64, is_stopped: bool) {
        let mut seat = self.seat(member);
        let process = seat.as_mut().expect("the member has a process");
        let which = if is_stopped {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        signal(process.peer.child.id(), which).unwrap();
        process.is_stopped = is_stopped;
    }

    pub(crate) fn pid(&self, member: i64) -> u32 {
        let seat = self.seat(member);
        seat.as_ref()
            .expect("the member has a process")
            .peer
            .child
            .id()
    }

    /// Waits until the links are not new any more, and returns the time. After a retransmitted handshake the kernel overestimates
    /// the round-trip time until it has more samples, and a new link ignores knocks.
    pub(crate) fn let_links_age(&self) -> Duration {
        run_time::pass(KNOCK_CROSSING * 3 / 2);
        run_time::now()
    }

    /// Waits until each live member has noticed that its links with the dead ones have ended. Returns the time of the slowest.
    #[track_caller]
    pub(crate) fn wait_noticed(&self, live: &[i64], dead: &[i64], since: Duration) -> Duration {
        let mut slowest = (Duration::ZERO, 0, 0);
        for member in live {
            for peer in dead.iter().filter(|peer| *peer != member) {
                let mut at = None;
                run_time::wait("a dead peer is noticed", || {
                    let ledger = self.ledger();
                    ledger.assert_no_violation();
                    at = ledger.down(*member, *peer, since);
                    missing(at.is_some(), || format!("{member} has a link with {peer}"))
                });
                slowest = slowest.max((at.unwrap() - since, *member, *peer));
            }
        }
        // Linux counts from its first retransmission, whose delay depends on the measured round-trip time. The rest is tolerance
        // for a slow machine.
        let limit = self.dead_after * 4 + Duration::from_secs(2);
        let (time, by, of) = slowest;
        assert!(
            time <= limit,
            "{by} has noticed {of} after {time:?}, more than {limit:?}: {:#?}",
            self.changes(since, |_| true)
        );
        time
    }

    fn changes(&self, since: Duration, which: impl Fn(&Change) -> bool) -> Vec<String> {
        let ledger = self.ledger();
        let changes = ledger.since(since).filter(|change| which(change));
        changes.map(Change::to_string).collect()
    }

    /// Checks that no link between these members has ended since then.
    #[track_caller]
    pub(crate) fn assert_no_link_ended(&self, live: &[i64], since: Duration) {
        let ended = self.changes(since, |change| {
            !change.is_up && live.contains(&change.member) && live.contains(&change.peer)
        });
        assert!(
            ended.is_empty(),
            "links of healthy members have ended: {ended:#?}"
        );
    }

    /// Waits until every pair of these members is linked and a new frame has arrived in every direction. Then checks all promises
    /// among them. `since` is the time at which the fault ended.
    #[track_caller]
    pub(crate) fn wait_recovered(&self, live: &[i64], since: Duration) -> Recovery {
        let sent = self.ledger().sent();
        run_time::wait("all are linked, and frames arrive", || {
            let ledger = self.ledger();
            ledger.assert_no_violation();
            [ledger.unlinked(live), ledger.silent(live, &sent)].concat()
        });
        let through = run_time::now() - since;
        self.check(live);
        let last_up = self.ledger().last_up(live, since);
        Recovery {
            linked: last_up.map_or(Duration::ZERO, |at| at - since),
            through,
        }
    }

    /// Adds a round of a fault to the table.
    pub(crate) fn record(&self, fault: &str, noticed: Option<Duration>, recovery: Recovery) {
        table::record(fault, self.all().len(), noticed, recovery);
    }

    /// Pauses the driver and checks: the newest frames have arrived, all counters balance, every pair has one link.
    #[track_caller]
    fn check(&self, live: &[i64]) {
        self.traffic.pause(true);
        run_time::wait("all promises hold", || self.broken(live));
        self.traffic.pause(false);
    }

    /// What does not hold (yet).
    #[track_caller]
    fn broken(&self, live: &[i64]) -> Vec<String> {
        let ledger = self.ledger();
        ledger.assert_no_violation();
        let mut broken = [ledger.late(live), ledger.unlinked(live)].concat();
        drop(ledger);
        if broken.is_empty() {
            broken.extend(sockets::violations(&self.sockets(live)));
            broken.extend(self.unbalanced(live));
        }
        broken
    }

    fn sockets(&self, live: &[i64]) -> Vec<sockets::Listed> {
        live.iter()
            .map(|member| {
                let connections = established(self.pid(*member));
                (*member, self.lan.address(*member), connections)
            })
            .collect()
    }

    /// The counters of these members that disagree with what they were given and have printed, or with each other.
    #[track_caller]
    fn unbalanced(&self, live: &[i64]) -> Vec<String> {
        let stats: BTreeMap<i64, Value> = live
            .iter()
            .map(|member| (*member, self.stats(*member)))
            .collect();
        let ledger = self.ledger();
        let mut unbalanced: Vec<String> = stats
            .iter()
            .filter_map(|(member, stats)| {
                accounts::check(ledger.process(*member), live, stats).err()
            })
            .collect();
        unbalanced.extend(each_way(live).filter_map(|(from, to)| {
            let lost = accounts::lost((from, &stats[&from]), (to, &stats[&to]))?;
            Some(format!(
                "{lost} frames are lost from {from} to {to} on a live link"
            ))
        }));
        unbalanced
    }

    /// All counters of a member.
    #[track_caller]
    pub(crate) fn stats(&self, member: i64) -> Value {
        self.ledger().process_mut(member).stats = None;
        self.seat(member)
            .as_mut()
            .expect("the member has a process")
            .peer
            .tell("stats");
        let mut stats = None;
        run_time::wait("the member prints its counters", || {
            stats = self.ledger().process_mut(member).stats.take();
            missing(stats.is_some(), || format!("member {member}"))
        });
        stats.unwrap()
    }
}

/// The text, if the condition does not hold.
fn missing(holds: bool, what: impl Fn() -> String) -> Vec<String> {
    if holds { Vec::new() } else { vec![what()] }
}
