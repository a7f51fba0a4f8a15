//! Members on the hosts of a network, one process each, the driver that gives them frames for each other, and what is asked
//! of them when the dust has settled.
//!
//! Nothing here breaks anything but at the word of a test.

use std::{
    collections::BTreeMap,
    mem,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, mpsc::channel},
    thread,
    time::Duration,
};

use quorum_cnx::limits::KNOCK_CROSSING;
use serde_json::Value;
use support::program::{Peer, program_path};

use crate::{
    accounts,
    lan::{Lan, PORT, name},
    ledger::{Change, Ledger, each_way},
    namespace, run_time, sockets,
    traffic::{Process, Seat, Traffic},
};

/// What every kernel has, and what notices in time whatever the machine's default is.
pub(crate) const CONGESTION_CONTROL: &str = "reno";

/// How long a peer may be silent: the shortest time that is allowed.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);

/// A mesh of processes.
pub(crate) struct Quorum {
    // Dropped in this order: nobody is given anything any more, the processes end, the network goes.
    traffic: Traffic,
    seats: Arc<Vec<Seat>>,
    ledger: Arc<Mutex<Ledger>>,
    pub(crate) lan: Lan,
    dead_after: Duration,
    shape: Box<dyn Fn(&mut Command) + Send>,
}

/// How long it took until all was well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    /// Until the last link had come up that was still to come; nothing if none was.
    pub(crate) linked: Duration,
    /// Until a frame had arrived on every way that was given to its sender since.
    pub(crate) through: Duration,
}

impl Quorum {
    /// All members of this network, linked, with a frame for every way in each `pace`.
    #[track_caller]
    pub(crate) fn start(lan: Lan, pace: Duration) -> Self {
        Self::start_as(lan, pace, DEAD_AFTER, |_| {})
    }

    /// The same with another time after which a peer is dead, and with processes whose command is changed first.
    #[track_caller]
    pub(crate) fn start_as(
        lan: Lan,
        pace: Duration,
        dead_after: Duration,
        shape: impl Fn(&mut Command) + Send + 'static,
    ) -> Self {
        let seats: Arc<Vec<Seat>> = Arc::new(
            lan.hosts()
                .into_iter()
                .map(|member| Seat {
                    member,
                    process: Mutex::new(None),
                })
                .collect(),
        );
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
        quorum.settle(&quorum.all(), run_time::now());
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

    /// From now on nothing is given to these or for them.
    pub(crate) fn leave_out(&self, members: &[i64]) {
        self.traffic.leave_out(members);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn seat(&self, member: i64) -> MutexGuard<'_, Option<Process>> {
        let seat = self.seats.iter().find(|seat| seat.member == member);
        seat.expect("it is a member").process.lock().unwrap()
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
            // Room for what is printed late on a busy machine.
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
        self.ledger().on_birth(member);
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
            let listens = self.ledger().life(member).is_listening;
            missing(listens, || format!("{member} does not"))
        });
    }

    /// Ends the process without its knowledge, and hears what it has still said.
    pub(crate) fn kill(&self, member: i64) {
        let process = self.seat(member).take();
        let Process {
            mut peer, reader, ..
        } = process.expect("it has a process");
        peer.child.kill().unwrap();
        peer.child.wait().unwrap();
        reader.join().unwrap();
    }

    /// Ends the process in peace.
    #[track_caller]
    pub(crate) fn quit(&self, member: i64) {
        let process = self.seat(member).take();
        let Process { peer, reader, .. } = process.expect("it has a process");
        let mut peer = peer;
        peer.tell("quit");
        let (code, _, errors) = peer.end();
        reader.join().unwrap();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{member} has quit");
    }

    /// Lets the process stand still, or go on; it is given nothing meanwhile.
    pub(crate) fn stop(&self, member: i64, is_stopped: bool) {
        let mut seat = self.seat(member);
        let process = seat.as_mut().expect("it has a process");
        let signal = if is_stopped { "-STOP" } else { "-CONT" };
        namespace::run(Command::new("kill").args([signal, &process.peer.child.id().to_string()]));
        process.is_stopped = is_stopped;
    }

    pub(crate) fn pid(&self, member: i64) -> u32 {
        let seat = self.seat(member);
        seat.as_ref().expect("it has a process").peer.child.id()
    }

    /// Lets all links carry frames for a while, and says when that is done. A kernel that had to repeat a handshake takes round
    /// trips for long ones until it has seen enough of them, and a link that is young answers no knock.
    pub(crate) fn aged(&self) -> Duration {
        run_time::pass(KNOCK_CROSSING * 3 / 2);
        run_time::now()
    }

    /// Waits until each of these has noticed that the others are gone; returns how long the slowest took.
    #[track_caller]
    pub(crate) fn notice(&self, live: &[i64], gone: &[i64], since: Duration) -> Duration {
        let mut slowest = (Duration::ZERO, 0, 0);
        for member in live {
            for peer in gone.iter().filter(|peer| *peer != member) {
                let mut at = None;
                run_time::wait("a dead peer is noticed", || {
                    let ledger = self.ledger();
                    ledger.assert_right();
                    at = ledger.down(*member, *peer, since);
                    missing(at.is_some(), || format!("{member} has a link with {peer}"))
                });
                slowest = slowest.max((at.unwrap() - since, *member, *peer));
            }
        }
        // Linux counts from the first byte that it sends again, and how long it waits before that depends on how long answers
        // took so far: the rest is for a machine on which everything takes longer.
        let most = self.dead_after * 4 + Duration::from_secs(2);
        let (time, by, of) = slowest;
        assert!(
            time <= most,
            "{by} has noticed {of} after {time:?}, which may take {most:?}: {:#?}",
            self.changes(since, |_| true)
        );
        time
    }

    fn changes(&self, since: Duration, which: impl Fn(&Change) -> bool) -> Vec<String> {
        let ledger = self.ledger();
        let changes = ledger.since(since).filter(|change| which(change));
        changes.map(Change::to_string).collect()
    }

    /// Since then no link between these has ended.
    #[track_caller]
    pub(crate) fn undisturbed(&self, live: &[i64], since: Duration) {
        let ended = self.changes(since, |change| {
            !change.is_up && live.contains(&change.member) && live.contains(&change.peer)
        });
        assert!(
            ended.is_empty(),
            "links of the healthy have ended: {ended:#?}"
        );
    }

    /// Waits until these are linked, each with each, and a frame that was given to its sender after now has arrived on every
    /// way; then checks all promises among them. `since`: when the network was whole again.
    #[track_caller]
    pub(crate) fn settle(&self, live: &[i64], since: Duration) -> Recovery {
        let given = self.ledger().given();
        run_time::wait("all are linked and hear each other", || {
            let ledger = self.ledger();
            ledger.assert_right();
            [ledger.unlinked(live), ledger.silent(live, &given)].concat()
        });
        let through = run_time::now() - since;
        self.check(live);
        let last_up = self.ledger().last_up(live, since);
        Recovery {
            linked: last_up.map_or(Duration::ZERO, |at| at - since),
            through,
        }
    }

    /// In silence: the newest frames have arrived, every account balances, there is one link for each pair.
    #[track_caller]
    fn check(&self, live: &[i64]) {
        self.traffic.pause(true);
        run_time::wait("all promises hold", || self.broken(live));
        self.traffic.pause(false);
    }

    /// What does not hold, or not yet.
    #[track_caller]
    fn broken(&self, live: &[i64]) -> Vec<String> {
        let ledger = self.ledger();
        ledger.assert_right();
        let mut broken = [ledger.late(live), ledger.unlinked(live)].concat();
        drop(ledger);
        if broken.is_empty() {
            broken.extend(sockets::odd(&self.sockets(live)));
            broken.extend(self.unbalanced(live));
        }
        broken
    }

    fn sockets(&self, live: &[i64]) -> Vec<sockets::Listed> {
        live.iter()
            .map(|member| {
                let connections = sockets::established(self.pid(*member));
                (*member, self.lan.address(*member), connections)
            })
            .collect()
    }

    /// The accounts of these that do not agree with what they were given and have printed, or with each other.
    #[track_caller]
    fn unbalanced(&self, live: &[i64]) -> Vec<String> {
        let stats: BTreeMap<i64, Value> = live
            .iter()
            .map(|member| (*member, self.stats(*member)))
            .collect();
        let ledger = self.ledger();
        let mut unbalanced: Vec<String> = stats
            .iter()
            .filter_map(|(member, stats)| accounts::check(ledger.life(*member), live, stats).err())
            .collect();
        unbalanced.extend(each_way(live).filter_map(|(from, to)| {
            let lost = accounts::lost((from, &stats[&from]), (to, &stats[&to]))?;
            Some(format!(
                "{lost} frames are lost from {from} to {to}, whose link lives"
            ))
        }));
        unbalanced
    }

    /// All counters of a member.
    #[track_caller]
    pub(crate) fn stats(&self, member: i64) -> Value {
        self.ledger().life_mut(member).stats = None;
        self.seat(member)
            .as_mut()
            .expect("it has a process")
            .peer
            .tell("stats");
        let mut stats = None;
        run_time::wait("the member tells its counters", || {
            stats = self.ledger().life_mut(member).stats.take();
            missing(stats.is_some(), || format!("{member} does not"))
        });
        stats.unwrap()
    }
}

/// Nothing, or what is not there yet.
fn missing(is_there: bool, what: impl Fn() -> String) -> Vec<String> {
    if is_there { Vec::new() } else { vec![what()] }
}
