//! A simulated ensemble: servers with their elections and tenures, a network that loses, delays, doubles and cuts, crashes
//! and restarts, in virtual time.
//!
//! Nothing here but the seed decides what happens, and nothing is believed that a server says of itself: what it votes and
//! decides is written down, and looked at by what must hold.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt::Write as _,
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    chance::Rng,
    election::{Action, Election, Outcome, ZXID_OF_NO_DATA},
    notification::{Notification, State},
    quorum::Quorum,
    tenure::{Loss, Tenure},
};

/// More than any world needs; one that needs more is one in which messages beget messages.
const EVENTS_MAX: u64 = 40_000;

/// What happens to messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u32,
    pub(crate) twice_permille: u32,
    pub(crate) delay_ms: (u64, u64),
    /// True exactly when messages between two servers stay in their order, as on the library's links.
    pub(crate) in_order: bool,
}

impl Weather {
    pub(crate) const CALM: Self = Self {
        loss_permille: 0,
        twice_permille: 0,
        delay_ms: (1, 40),
        in_order: true,
    };
}

/// How far a server has come with its data; it keeps that over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) epoch: i64,
    pub(crate) zxid: i64,
    pub(crate) sid: Sid,
}

/// Something that was seen to be wrong.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

struct Host {
    /// Less from when it has stood back.
    rank: Rank,
    /// That with which it began: an older vote for it still says so.
    first_rank: Rank,
    /// False exactly when it only votes, so that those who can serve leave it.
    serves: bool,
    /// `None` while it is down.
    running: Option<Running>,
    /// Which part of the network it is in.
    part: usize,
    has_restarted: bool,
    /// When it is woken next.
    alarm: Option<Duration>,
}

struct Running {
    election: Election,
    tenure: Option<Tenure>,
    decided: Option<Outcome>,
    /// How often it has decided.
    decisions: u64,
}

#[derive(Debug)]
enum What {
    /// It looks whether the leader of this decision of its own serves, or is served for.
    Doubt {
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

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) weather: Weather,
    pub(crate) quorum: Quorum,
    /// How long leaders and followers may be silent.
    pub(crate) limit: Duration,
    /// How long a new leader and those who follow it wait for each other.
    pub(crate) init_limit: Duration,
    /// True exactly when a leader that does not serve opens its port.
    pub(crate) is_silent_port: bool,
    rng: Rng,
    hosts: Vec<Host>,
    /// By time, then in the order in which they were made: the heap's greatest is the earliest.
    queue: BinaryHeap<std::cmp::Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, What>,
    made: u64,
    /// The latest arrival on each way.
    last: BTreeMap<(usize, usize), Duration>,
    /// Who has ever voted for a leader, in a round.
    voted: BTreeMap<(i64, Sid), BTreeSet<Sid>>,
    /// Who has ever decided for a leader, in a round.
    decided: BTreeMap<(i64, Sid), BTreeSet<Sid>>,
    history: Option<String>,
}

impl World {
    pub(crate) fn new(quorum: Quorum, ranks: Vec<Rank>, rng: Rng, verbose: bool) -> Self {
        let host = |rank| Host {
            rank,
            first_rank: rank,
            serves: false,
            running: None,
            part: 0,
            has_restarted: false,
            alarm: None,
        };
        Self {
            now: Duration::ZERO,
            weather: Weather::CALM,
            quorum,
            limit: Duration::from_secs(4),
            init_limit: Duration::from_secs(5),
            is_silent_port: false,
            rng,
            hosts: ranks.into_iter().map(host).collect(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            made: 0,
            last: BTreeMap::new(),
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

    /// What it has decided, if it is up and has.
    pub(crate) fn outcome(&self, at: usize) -> Option<Outcome> {
        self.hosts[at].running.as_ref()?.decided
    }

    pub(crate) fn cut(&mut self, at: usize, part: usize) {
        self.note(|| format!("server at {at} is in part {part}"));
        self.hosts[at].part = part;
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
        self.look(at)
    }

    /// It serves, if it leads, those who serve as well; and leaves whoever does not serve it.
    pub(crate) fn serves(&mut self, at: usize) {
        self.hosts[at].serves = true;
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

    /// Lets things happen until this time.
    pub(crate) fn run_until(&mut self, end: Duration) -> Result<(), Failure> {
        while let Some(std::cmp::Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            let what = self.events.remove(&number).expect("it was queued");
            self.now = at;
            if self.made > EVENTS_MAX {
                return Err(Failure("messages beget messages without end".into()));
            }
            match what {
                What::Arrive {
                    to,
                    from,
                    notification,
                } => self.arrive(to, from, notification)?,
                What::Wake(host) => self.wake(host)?,
                What::Doubt { at, decision } => self.doubt(at, decision)?,
            }
        }
        self.now = end;
        Ok(())
    }

    fn look(&mut self, at: usize) -> Result<(), Failure> {
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
        // What was on its way when the network was cut is lost.
        if self.hosts[to].part != self.hosts[from].part {
            return Ok(());
        }
        let receiver = self.hosts[to].rank.sid;
        self.note(|| format!("{receiver} hears {sender}: {notification:?}"));
        let Some(running) = &mut self.hosts[to].running else {
            return Ok(());
        };
        let mut actions = Vec::new();
        running
            .election
            .on_notification(now, sender, notification, &mut actions);
        let tenure = running.tenure.as_mut();
        let word = tenure.map(|tenure| tenure.on_notification(now, sender, &notification));
        self.act(to, actions)?;
        match word {
            Some(Err(loss)) => self.lose(to, &loss),
            _ => Ok(()),
        }
    }

    fn wake(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.now;
        // An earlier alarm has taken its place.
        if self.hosts[at].alarm != Some(now) {
            return Ok(());
        }
        self.hosts[at].alarm = None;
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

    /// What a server that serves does when its time with a new leader is over, and what one does that only votes: nothing.
    fn doubt(&mut self, at: usize, decision: u64) -> Result<(), Failure> {
        let Some(running) = &self.hosts[at].running else {
            return Ok(());
        };
        let Some(outcome) = running.decided.filter(|_| running.decisions == decision) else {
            return Ok(());
        };
        let leader = outcome.vote.leader;
        let follows = |host: &&Host| {
            let decided = host.running.as_ref().and_then(|running| running.decided);
            host.serves && decided.is_some_and(|decided| decided.vote.leader == leader)
        };
        let followers: BTreeSet<Sid> = self
            .hosts
            .iter()
            .filter(follows)
            .map(|host| host.rank.sid)
            .collect();
        let is_served = followers.contains(&leader) && self.quorum.is_met_by(&followers);
        if self.hosts[at].serves && !is_served {
            self.note(|| format!("{leader} does not serve"));
            return self.look(at);
        }
        Ok(())
    }

    fn lose(&mut self, at: usize, loss: &Loss) -> Result<(), Failure> {
        let sid = self.hosts[at].rank.sid;
        if *loss == Loss::Unserved {
            self.hosts[at].rank.epoch = ZXID_OF_NO_DATA >> 32;
            self.hosts[at].rank.zxid = ZXID_OF_NO_DATA;
            if let Some(running) = &mut self.hosts[at].running {
                running.election.stand_back();
            }
        }
        self.note(|| format!("{sid}: {loss}"));
        self.look(at)
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
                    let patience = self.patience();
                    let host = &mut self.hosts[at];
                    if let Some(running) = &mut host.running {
                        let mut tenure = Tenure::new(sid, quorum, outcome, limit, now);
                        if !host.serves {
                            tenure = tenure.on_trial(init_limit, now);
                        }
                        running.tenure = Some(tenure);
                        running.decided = Some(outcome);
                        running.decisions += 1;
                        let decision = running.decisions;
                        self.later(now + patience, What::Doubt { at, decision });
                    }
                    let key = (outcome.vote.round, outcome.vote.leader);
                    self.decided.entry(key).or_default().insert(sid);
                    self.check(at, outcome)?;
                }
            }
        }
        self.set_alarm(at);
        Ok(())
    }

    /// How long it stays with a leader that does not serve: a port that nobody has opened refuses it soon, and one at which
    /// nothing is said does not.
    fn patience(&mut self) -> Duration {
        match self.is_silent_port {
            true => self.init_limit,
            false => self.rng.millis(400, 600),
        }
    }

    fn set_alarm(&mut self, at: usize) {
        let Some(running) = &self.hosts[at].running else {
            return;
        };
        let tenure = running.tenure.as_ref().map(Tenure::deadline);
        let next = [running.election.deadline(), tenure].into_iter().flatten();
        let next = next.min().map(|next| next.max(self.now));
        let alarm = self.hosts[at].alarm;
        // An alarm that comes too early does no harm.
        if let Some(next) = next.filter(|next| alarm.is_none_or(|alarm| *next < alarm)) {
            self.hosts[at].alarm = Some(next);
            self.later(next, What::Wake(at));
        }
    }

    fn send(&mut self, from: usize, to: Sid, notification: Notification) {
        let Some(to) = self.hosts.iter().position(|host| host.rank.sid == to) else {
            return;
        };
        let weather = self.weather;
        if self.hosts[from].part != self.hosts[to].part || self.rng.permille(weather.loss_permille)
        {
            return;
        }
        let copies = 1 + u32::from(self.rng.permille(weather.twice_permille));
        for _ in 0..copies {
            let (low, high) = weather.delay_ms;
            let mut at = self.now + self.rng.millis(low, high);
            if weather.in_order {
                let last = self.last.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.later(
                at,
                What::Arrive {
                    to,
                    from,
                    notification,
                },
            );
        }
    }

    fn later(&mut self, at: Duration, what: What) {
        self.made += 1;
        self.queue.push(std::cmp::Reverse((at, self.made)));
        self.events.insert(self.made, what);
    }

    /// What must be true of every decision.
    fn check(&self, at: usize, outcome: Outcome) -> Result<(), Failure> {
        let sid = self.hosts[at].rank.sid;
        let wrong = |what: &str| Err(Failure(format!("{what}: {sid} decides {outcome:?}")));
        let (leader, round) = (outcome.vote.leader, outcome.vote.round);
        let none = BTreeSet::new();
        let voters = self.voted.get(&(round, leader)).unwrap_or(&none);
        if outcome.was_told {
            let followers = self.decided.iter().filter(|((_, of), _)| *of == leader);
            let followers: BTreeSet<Sid> = followers.flat_map(|(_, sids)| sids).copied().collect();
            // Those who voted for it in this round may count as well, if it is the own one.
            let all: BTreeSet<Sid> = followers.union(voters).copied().collect();
            if !self.quorum.is_met_by(&all) {
                return wrong("no quorum follows");
            }
            // In whatever round: those who follow it may have joined it in different ones.
            if !followers.contains(&leader) {
                return wrong("the leader has never led");
            }
        } else if !self.quorum.is_met_by(voters) {
            return wrong("no quorum has voted so");
        }
        if (leader == sid) != (outcome.state == State::Leading) {
            return wrong("another state than the leader's");
        }
        let Some(rank) = self.hosts.iter().find(|host| host.rank.sid == leader) else {
            return wrong("nobody of this name");
        };
        let rank = rank.first_rank;
        let behind = self.hosts.iter().filter(|host| host.rank <= rank);
        let behind: BTreeSet<Sid> = behind.map(|host| host.rank.sid).collect();
        if !self.quorum.has_weight(leader) || !self.quorum.is_met_by(&behind) {
            return wrong("the leader may lack what a quorum has");
        }
        self.check_rivals(outcome)
    }

    /// No two leaders of a round, each followed by a quorum: at one time, and ever if nobody has forgotten anything.
    fn check_rivals(&self, outcome: Outcome) -> Result<(), Failure> {
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
        let nobody_forgets = self.hosts.iter().all(|host| !host.has_restarted);
        if leaders(&mut now.values()) > 1 || (nobody_forgets && leaders(&mut ever.into_iter()) > 1)
        {
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
