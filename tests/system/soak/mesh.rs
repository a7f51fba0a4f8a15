//! All members, the paths between them, and what must hold when there are no faults.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use support::{
    MEMBER_IP,
    counters::{count, imbalance, linked},
    eventually,
    process::{ProcessResources, mebibytes},
    proxy::{PathState, Proxy},
};

use crate::{frame_checker::FrameChecker, log::Log, member::Member};

/// Number of members.
const MEMBERS: i64 = 5;

/// Where members are after a move.
const OTHER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Members that are never killed, so that their memory can be compared over the whole run.
pub(crate) const NEVER_KILLED: [i64; 2] = [2, 4];

/// Allowed growth of such a member: memory of waiting frames that the allocator has kept.
const GROWTH_MAX: u64 = 16 << 20;

/// A process ends by itself this long after the test should have ended it.
const GRACE: Duration = Duration::from_secs(600);

pub(crate) struct Mesh {
    members: BTreeMap<i64, Member>,
    /// By sender and receiver. The receiver is at the first one, and sometimes moves to the other.
    proxies: BTreeMap<(i64, i64), [Proxy; 2]>,
    checker: Arc<FrameChecker>,
    log: Log,
}

/// Memory and descriptors of each member when there are no faults, with its process id.
pub(crate) struct Snapshot(BTreeMap<i64, (Option<u32>, ProcessResources)>);

impl Snapshot {
    /// Checks that each member has as many descriptors as before, and that a process that has run all the time has not grown.
    #[track_caller]
    pub(crate) fn compare(&self, first: &Self) {
        for (sid, (process, holdings)) in &self.0 {
            let (old_process, before) = first.0[sid];
            assert_eq!(
                holdings.descriptors, before.descriptors,
                "descriptors of {sid}"
            );
            if old_process == *process {
                let growth = holdings.growth_since(before);
                assert!(
                    growth <= GROWTH_MAX,
                    "{sid} had {before} and has {holdings} now"
                );
            }
        }
    }
}

impl Mesh {
    /// Starts all members, and waits until they are linked.
    #[track_caller]
    pub(crate) fn start(log: Log, lifetime: Duration) -> Self {
        let checker = Arc::default();
        let mut members: BTreeMap<i64, Member> = (1..=MEMBERS)
            .map(|sid| (sid, Member::new(sid, &checker)))
            .collect();
        let mut proxies = BTreeMap::new();
        for &from in members.keys() {
            for (&to, member) in members.iter().filter(|(to, _)| **to != from) {
                let at = |ip| Proxy::at(ip, member.address());
                proxies.insert((from, to), [MEMBER_IP, OTHER_IP].map(at));
            }
        }
        let seconds = (lifetime + GRACE).as_secs();
        for (&sid, member) in &mut members {
            let mut options: Vec<String> = vec![
                "--capacity=20".into(),
                "--peer-dead-after-ms=2000".into(),
                "--handshake-timeout-ms=2000".into(),
                format!("--seconds={seconds}"),
            ];
            for to in 1..=MEMBERS {
                let address = proxies
                    .get(&(sid, to))
                    .map(|[proxy, _]| proxy.address.as_str());
                let address = address.unwrap_or_else(|| member.address());
                options.push(format!("--server={to}={address}"));
            }
            member.set_options(options);
            member.start();
        }
        let mesh = Self {
            members,
            proxies,
            checker,
            log,
        };
        mesh.wait_linked();
        mesh.log.note("all members are linked");
        mesh
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The addresses of the members.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |member: &Member| member.address().to_owned();
        self.members.values().map(address).collect()
    }

    pub(crate) fn sids(&self) -> Vec<i64> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn pairs(&self) -> Vec<(i64, i64)> {
        self.proxies.keys().copied().collect()
    }

    pub(crate) fn member(&mut self, sid: i64) -> &mut Member {
        self.members.get_mut(&sid).expect("a member's sid")
    }

    pub(crate) fn proxies(&self, pair: (i64, i64)) -> &[Proxy; 2] {
        &self.proxies[&pair]
    }

    /// Sets the path between these two, whichever address is in use.
    pub(crate) fn set_path(&self, pair: (i64, i64), state: PathState) {
        self.proxies(pair).iter().for_each(|proxy| proxy.set(state));
    }

    /// Ends all connections between these two.
    pub(crate) fn cut(&self, pair: (i64, i64)) {
        self.proxies(pair).iter().for_each(Proxy::cut);
    }

    /// Every one is a member of every other one again, at its first address.
    #[track_caller]
    pub(crate) fn restore_members(&mut self) {
        for (&(at, sid), [proxy, _]) in &self.proxies {
            let member = self.members.get_mut(&at).expect("a member's sid");
            member.set_server_blocking(sid, &proxy.address);
        }
    }

    /// Waits until the mesh is complete, all frames have arrived and all counters balance. Returns what the members hold.
    #[track_caller]
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.wait_linked();
        for &(from, to) in self.proxies.keys() {
            self.members[&from].send_blocking(to, 100);
        }
        eventually("the newest frame of each pair arrives", || {
            self.checker.assert_no_failure();
            let missing = self.checker.missing();
            if missing.is_empty() {
                return true;
            }
            self.log.note_waiting(format!("not yet: {missing}"));
            false
        });
        for (sid, member) in &self.members {
            eventually("all counters balance", || {
                let (stats, sent_commands) = member.stats();
                let accepted = count(&stats, "/sent/accepted") == sent_commands;
                let waiting = count(&stats, "/pending") + count(&stats, "/sent/waiting");
                let imbalance = imbalance(&stats);
                let holds = accepted && waiting == 0 && imbalance.is_none();
                if !holds {
                    self.log.note_waiting(format!(
                        "{sid}, not yet: {imbalance:?}, told to send {sent_commands}: {stats}"
                    ));
                }
                holds
            });
        }
        self.checker.assert_no_failure();
        let holdings = |(sid, member): (&i64, &Member)| {
            let holdings = member.holdings();
            (*sid, (member.process_id(), holdings))
        };
        let snapshot = Snapshot(self.members.iter().map(holdings).collect());
        let describe = |(sid, (_, holdings)): (&i64, &(Option<u32>, ProcessResources))| {
            let mark = if NEVER_KILLED.contains(sid) { "*" } else { "" };
            format!("{sid}{mark}: {holdings}")
        };
        let held: Vec<String> = snapshot.0.iter().map(describe).collect();
        let own = ProcessResources::own();
        self.log.note(format!(
            "no faults: {} frames received; {}; this test: {:.1} MiB, {}",
            self.checker.frames(),
            held.join("; "),
            mebibytes(own.resident),
            own.descriptors
        ));
        snapshot
    }

    /// Halts all members.
    #[track_caller]
    pub(crate) fn end(mut self) {
        for member in self.members.values_mut() {
            member.quit();
        }
        self.log.note("all members have halted");
    }

    /// Waits until every pair of members has one link.
    #[track_caller]
    fn wait_linked(&self) {
        for member in self.members.values() {
            eventually("every pair has one link", || {
                let (stats, _) = member.stats();
                let others = self.members.len() as u64 - 1;
                // There is no other connection.
                let is_linked = (linked(&stats), count(&stats, "/connections")) == (others, others);
                if !is_linked {
                    self.log.note_waiting(format!("not yet linked: {stats}"));
                }
                is_linked
            });
        }
    }
}
