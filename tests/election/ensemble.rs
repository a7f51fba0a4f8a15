//! Simulates an ensemble in virtual time: servers with their elections and tenures, a network that loses, delays and duplicates
//! messages, partitions, crashes and restarts.
//!
//! The seed decides everything. All votes and decisions are recorded, and each decision is checked against the invariants.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt::Write as _,
    time::Duration,
};

use quorum_cnx::Sid;

use support::rng::Rng;

use crate::{
    election::{Action, Election, Outcome, ZXID_OF_NO_DATA},
    notification::{Notification, State},
    quorum::Quorum,
    tenure::{Loss, Tenure},
};

/// More than any simulation needs. One that exceeds it has an endless exchange of messages.
const EVENTS_MAX: u64 = 40_000;

/// How the network treats messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) loss_permille: u32,
    pub(crate) duplicate_permille: u32,
    pub(crate) delay_ms: (u64, u64),
    /// True exactly when messages between two servers stay in their order, as on the library's links.
    pub(crate) in_order: bool,
}

impl Network {
    pub(crate) const GOOD: Self = Self {
        loss_permille: 0,
        duplicate_permille: 0,
        delay_ms: (1, 40),
        in_order: true,
    };
}

/// The state of a server's data. It survives restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) epoch: i64,
    pub(crate) zxid: i64,
    pub(crate) sid: Sid,
}

/// A violated invariant.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

struct Host {
    /// It decreases when the server stands back.
    rank: Rank,
    /// Its rank at the start, which older votes for it still have.
    first_rank: Rank,
    /// False exactly when it only votes. Servers that can serve do not stay with such a leader.
    can_serve: bool,
    /// `None` while it is down.
    running: Option<Running>,
    /// Its part of a partitioned network.
    partition: usize,
    has_restarted: bool,
    /// When it wakes next.
    wake_at: Option<Duration>,
}

struct Running {
    election: Election,
    tenure: Option<Tenure>,
    decided: Option<Outcome>,
    /// Number of its decisions.
    decisions: u64,
}

#[derive(Debug)]
enum Event {
    /// After this decision, the server checks whether its leader can serve.
    CheckLeader {
        at: usize,
        decision: u64,
    },
    Arrive {
        to: usize,
        from: usize,
        notification: Notification,
    },
    Wake(usize),
}

pub(crate) struct Ensemble {
    pub(crate) now: Duration,
    pub(crate) network: Network,
    pub(crate) quorum: Quorum,
    /// How long leaders and followers may be silent.
    pub(crate) limit: Duration,
    /// How long a new leader and its followers wait for each other.
    pub(crate) init_limit: Duration,
    /// True exactly when a leader that cannot serve has an open port.
    pub(crate) has_silent_port: bool,
    rng: Rng,
    hosts: Vec<Host>,
    /// Events by time, then in the order in which they were scheduled. The heap's greatest is the earliest.
    queue: BinaryHeap<std::cmp::Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    /// The latest arrival for each sender and receiver.
    last_arrival: BTreeMap<(usize, usize), Duration>,
    /// Which servers have ever voted for a leader, by round and leader.
    voted: BTreeMap<(i64, Sid), BTreeSet<Sid>>,
    /// Which servers have ever decided for a leader, by round and leader.
    decided: BTreeMap<(i64, Sid), BTreeSet<Sid>>,
    history: Option<String>,
}

impl Ensemble {
    pub(crate) fn new(quorum: Quorum, ranks: Vec<Rank>, rng: Rng, verbose: bool) -> Self {
        let host = |rank| Host {
            rank,
            first_rank: rank,
            can_serve: false,
            running: None,
            partition: 0,
            has_restarted: false,
            wake_at: None,
        };
        Self {
            now: Duration::ZERO,
            network: Network::GOOD,
            quorum,
            limit: Duration::from_secs(4),
            init_limit: Duration::from_secs(5),
            has_silent_port: false,
            rng,
            hosts: ranks.into_iter().map(host).collect(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            last_arrival: BTreeMap::new(),
            voted: BTreeMap::new(),
            decided: BTreeMap::new(),
            history: verbose.then(String::new),
        }
    }

    pub(crate) fn history(&self) -> &str {
        self.history.as_deref().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn rank(&self, at: usize) -> Rank {
        self.hosts[at].rank
    }

    pub(crate) fn is_up(&self, at: usize) -> bool {
        self.hosts[at].running.is_some()
    }

    /// Its decision, if it is up and has one.
    pub(crate) fn outcome(&self, at: usize) -> Option<Outcome> {
        self.hosts[at].running.as_ref()?.decided
    }

    pub(crate) fn cut(&mut self, at: usize, partition: usize) {
        self.note(|| format!("server at {at} is in partition {partition}"));
        self.hosts[at].partition = partition;
    }

    pub(crate) fn start(&mut self, at: usize) -> Result<(), Failure> {
        let Rank { epoch, zxid, sid } = self.hosts[at].rank;
        self.note(|| format!("{sid} starts"));
        self.hosts[at].running = Some(Running {
            election: Election::new(sid, self.quorum.clone(), zxid, epoch),
            tenure: None,
            decided: None,
            decisions: 0,
        });
        self.start_looking(at)
    }

    /// This server can serve others that can serve. It does not stay with a leader that cannot.
    pub(crate) fn set_can_serve(&mut self, at: usize) {
        self.hosts[at].can_serve = true;
    }

    pub(crate) fn crash(&mut self, at: usize) {
        let sid = self.hosts[at].rank.sid;
        self.note(|| format!("{sid} crashes"));
        self.hosts[at].running = None;
        self.hosts[at].has_restarted = true;
        for other in self
            .hosts
            .iter_mut()
            .filter_map(|host| host.running.as_mut())
        {
            other.election.on_unlinked(sid);
        }
    }

    /// Processes events until this time.
    pub(crate) fn run_until(&mut self, end: Duration) -> Result<(), Failure> {
        while let Some(std::cmp::Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            let what = self
                .events
                .remove(&number)
                .expect("every number in the queue has an event");
            self.now = at;
            if self.scheduled > EVENTS_MAX {
                return Err(Failure("endless exchange of messages".into()));
            }
            match what {
                Event::Arrive {
                    to,
                    from,
                    notification,
                } => self.arrive(to, from, notification)?,
                Event::Wake(host) => self.wake(host)?,
                Event::CheckLeader { at, decision } => self.check_leader(at, decision)?,
            }
        }
        self.now = end;
        Ok(())
    }

    fn start_looking(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.now;
        let Some(running) = &mut self.hosts[at].running else {
            return Ok(());
        };
        (running.tenure, running.decided) = (None, None);
        let mut actions = Vec::new();
        running.election.look(now, &mut actions);
        self.act(at, actions)
    }

    fn arrive(
        &mut self,
        to: usize,
        from: usize,
        notification: Notification,
    ) -> Result<(), Failure> {
        let (now, sender) = (self.now, self.hosts[from].rank.sid);
        // A message in flight is lost when the network is partitioned.
        if self.hosts[to].partition != self.hosts[from].partition {
            return Ok(());
        }
        let receiver = self.hosts[to].rank.sid;
        self.note(|| format!("{receiver} receives from {sender}: {notification:?}"));
        let Some(running) = &mut self.hosts[to].running else {
            return Ok(());
        };
        let mut actions = Vec::new();
        running
            .election
            .on_notification(now, sender, notification, &mut actions);
        let tenure = running.tenure.as_mut();
        let standing = tenure.map(|tenure| tenure.on_notification(now, sender, &notification));
        self.act(to, actions)?;
        match standing {
            Some(Err(loss)) => self.lose(to, &loss),
            _ => Ok(()),
        }
    }

    fn wake(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.now;
        // An earlier wakeup has replaced this one.
        if self.hosts[at].wake_at != Some(now) {
            return Ok(());
        }
        self.hosts[at].wake_at = None;
        let Some(running) = &mut self.hosts[at].running else {
            return Ok(());
        };
        let mut actions = Vec::new();
        if running.election.deadline().is_some_and(|at| at <= now) {
            running.election.on_time(now, &mut actions);
        }
        let mut lost = None;
        match running.tenure.as_mut().map(|tenure| tenure.on_time(now)) {
            Some(Ok(asked)) => {
                let ask = |sid| Action::Send(sid, Notification::question(sid));
                actions.extend(asked.into_iter().map(ask));
            }
            Some(Err(loss)) => lost = Some(loss),
            None => {}
        }
        self.act(at, actions)?;
        match lost {
            Some(loss) => self.lose(at, &loss),
            None => Ok(()),
        }
    }

    /// A server that can serve leaves a leader that cannot. A server that only votes does nothing.
    fn check_leader(&mut self, at: usize, decision: u64) -> Result<(), Failure> {
        let Some(running) = &self.hosts[at].running else {
            return Ok(());
        };
        let Some(outcome) = running.decided.filter(|_| running.decisions == decision) else {
            return Ok(());
        };
        let leader = outcome.vote.leader;
        let follows = |host: &&Host| {
            let decided = host.running.as_ref().and_then(|running| running.decided);
            host.can_serve && decided.is_some_and(|decided| decided.vote.leader == leader)
        };
        let followers: BTreeSet<Sid> = self
            .hosts
            .iter()
            .filter(follows)
            .map(|host| host.rank.sid)
            .collect();
        let leader_can_serve = followers.contains(&leader) && self.quorum.is_met_by(&followers);
        if self.hosts[at].can_serve && !leader_can_serve {
            self.note(|| format!("{leader} cannot serve"));
            return self.start_looking(at);
        }
        Ok(())
    }

    fn lose(&mut self, at: usize, loss: &Loss) -> Result<(), Failure> {
        let sid = self.hosts[at].rank.sid;
        if *loss == Loss::FollowersLeft {
            self.hosts[at].rank.epoch = ZXID_OF_NO_DATA >> 32;
            self.hosts[at].rank.zxid = ZXID_OF_NO_DATA;
            if let Some(running) = &mut self.hosts[at].running {
                running.election.claim_no_data();
            }
        }
        self.note(|| format!("{sid}: {loss}"));
        self.start_looking(at)
    }

    fn act(&mut self, at: usize, actions: Vec<Action>) -> Result<(), Failure> {
        let sid = self.hosts[at].rank.sid;
        for action in actions {
            match action {
                Action::Send(to, notification) => self.send(at, to, notification),
                Action::Propose(vote) => {
                    let key = (vote.round, vote.leader);
                    self.voted.entry(key).or_default().insert(sid);
                    self.note(|| format!("{sid} votes for {vote:?}"));
                }
                Action::Connect => {}
                Action::Elect(outcome) => {
                    self.note(|| format!("{sid} decides: {outcome:?}"));
                    let (now, quorum) = (self.now, self.quorum.clone());
                    let (limit, init_limit) = (self.limit, self.init_limit);
                    let leader_check_delay = self.leader_check_delay();
                    let host = &mut self.hosts[at];
                    if let Some(running) = &mut host.running {
                        let mut tenure = Tenure::new(sid, quorum, outcome, limit, now);
                        if !host.can_serve {
                            tenure = tenure.with_trial(init_limit, now);
                        }
                        running.tenure = Some(tenure);
                        running.decided = Some(outcome);
                        running.decisions += 1;
                        let decision = running.decisions;
                        self.schedule(
                            now + leader_check_delay,
                            Event::CheckLeader { at, decision },
                        );
                    }
                    let key = (outcome.vote.round, outcome.vote.leader);
                    self.decided.entry(key).or_default().insert(sid);
                    self.check(at, outcome)?;
                }
            }
        }
        self.schedule_wake(at);
        Ok(())
    }

    /// How long a server stays with a leader that cannot serve: a closed port refuses it soon, an open and silent one does not.
    fn leader_check_delay(&mut self) -> Duration {
        match self.has_silent_port {
            true => self.init_limit,
            false => self.rng.millis(400, 600),
        }
    }

    fn schedule_wake(&mut self, at: usize) {
        let Some(running) = &self.hosts[at].running else {
            return;
        };
        let tenure = running.tenure.as_ref().map(Tenure::deadline);
        let next = [running.election.deadline(), tenure].into_iter().flatten();
        let next = next.min().map(|next| next.max(self.now));
        let wake_at = self.hosts[at].wake_at;
        // A wakeup that comes too early has no effect.
        if let Some(next) = next.filter(|next| wake_at.is_none_or(|wake_at| *next < wake_at)) {
            self.hosts[at].wake_at = Some(next);
            self.schedule(next, Event::Wake(at));
        }
    }

    fn send(&mut self, from: usize, to: Sid, notification: Notification) {
        let Some(to) = self.hosts.iter().position(|host| host.rank.sid == to) else {
            return;
        };
        let network = self.network;
        if self.hosts[from].partition != self.hosts[to].partition
            || self.rng.permille(network.loss_permille)
        {
            return;
        }
        let copies = 1 + u32::from(self.rng.permille(network.duplicate_permille));
        for _ in 0..copies {
            let (low, high) = network.delay_ms;
            let mut at = self.now + self.rng.millis(low, high);
            if network.in_order {
                let last_arrival = self.last_arrival.entry((from, to)).or_default();
                at = at.max(*last_arrival);
                *last_arrival = at;
            }
            self.schedule(
                at,
                Event::Arrive {
                    to,
                    from,
                    notification,
                },
            );
        }
    }

    fn schedule(&mut self, at: Duration, what: Event) {
        self.scheduled += 1;
        self.queue.push(std::cmp::Reverse((at, self.scheduled)));
        self.events.insert(self.scheduled, what);
    }

    /// Checks the invariants of every decision.
    fn check(&self, at: usize, outcome: Outcome) -> Result<(), Failure> {
        let sid = self.hosts[at].rank.sid;
        let violation = |what: &str| Err(Failure(format!("{what}: {sid} decides {outcome:?}")));
        let (leader, round) = (outcome.vote.leader, outcome.vote.round);
        let none = BTreeSet::new();
        let voters = self.voted.get(&(round, leader)).unwrap_or(&none);
        if outcome.decided_by_others {
            let followers = self.decided.iter().filter(|((_, of), _)| *of == leader);
            let followers: BTreeSet<Sid> = followers.flat_map(|(_, sids)| sids).copied().collect();
            // Servers that voted for it in this round may count, too.
            let all: BTreeSet<Sid> = followers.union(voters).copied().collect();
            if !self.quorum.is_met_by(&all) {
                return violation("no quorum follows the leader");
            }
            // In any round: its followers may have joined it in different ones.
            if !followers.contains(&leader) {
                return violation("the leader has never led");
            }
        } else if !self.quorum.is_met_by(voters) {
            return violation("no quorum has voted for the leader");
        }
        if (leader == sid) != (outcome.state == State::Leading) {
            return violation("the state does not match the leader");
        }
        let Some(rank) = self.hosts.iter().find(|host| host.rank.sid == leader) else {
            return violation("the leader does not exist");
        };
        let rank = rank.first_rank;
        let behind = self.hosts.iter().filter(|host| host.rank <= rank);
        let behind: BTreeSet<Sid> = behind.map(|host| host.rank.sid).collect();
        if !self.quorum.has_weight(leader) || !self.quorum.is_met_by(&behind) {
            return violation("the leader may lack data that a quorum has");
        }
        self.check_rival_leaders(outcome)
    }

    /// At no time do two leaders of a round each have a quorum. If no server has restarted, this holds over all time.
    fn check_rival_leaders(&self, outcome: Outcome) -> Result<(), Failure> {
        let round = outcome.vote.round;
        let mut now: BTreeMap<Sid, BTreeSet<Sid>> = BTreeMap::new();
        for host in &self.hosts {
            let decided = host.running.as_ref().and_then(|running| running.decided);
            if let Some(decided) = decided.filter(|decided| decided.vote.round == round) {
                let followers = now.entry(decided.vote.leader).or_default();
                followers.insert(host.rank.sid);
            }
        }
        let ever = self.decided.iter().filter(|((of, _), _)| *of == round);
        let ever: Vec<&BTreeSet<Sid>> = ever.map(|(_, sids)| sids).collect();
        let leaders = |all: &mut dyn Iterator<Item = &BTreeSet<Sid>>| {
            all.filter(|sids| self.quorum.is_met_by(sids)).count()
        };
        let no_restarts = self.hosts.iter().all(|host| !host.has_restarted);
        if leaders(&mut now.values()) > 1 || (no_restarts && leaders(&mut ever.into_iter()) > 1) {
            return Err(Failure(format!(
                "two leaders in round {round}, each with a quorum: {:?}",
                self.decided
            )));
        }
        Ok(())
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(history) = &mut self.history {
            // Writing to a string cannot fail.
            let _ = writeln!(history, "{now:?} {}", what());
        }
    }
}
