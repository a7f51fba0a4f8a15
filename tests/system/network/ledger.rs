//! What all members were told and what they said, and which promises that breaks.
//!
//! Nothing here talks to them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::frames;

/// Frames under way whose time is remembered, for each way.
const TIMED_MAX: usize = 1024;

/// Everything that was seen from the outside.
#[derive(Default)]
pub(crate) struct Ledger {
    ways: BTreeMap<(i64, i64), Way>,
    lives: BTreeMap<i64, Life>,
    /// Links that came up and went down, in the order in which they were told.
    changes: Vec<Change>,
    /// Promises that were broken.
    wrongs: Vec<String>,
    /// Where the time of a frame goes that arrives; nowhere most of the time.
    timed: Option<Vec<(i64, i64, Duration)>>,
}

/// From one member to another.
#[derive(Default)]
struct Way {
    /// The last that was given to the sender.
    given: u64,
    /// The last that the sender's process has accepted.
    accepted: Option<u64>,
    /// The last that arrived, at whichever process of the receiver.
    arrived: u64,
    /// The last that arrived at the present one.
    arrived_here: u64,
    times: VecDeque<(u64, Instant)>,
}

/// What one process of a member has said.
#[derive(Default)]
pub(crate) struct Life {
    linked: BTreeSet<i64>,
    /// Frames that it was given and has not answered for.
    unanswered: VecDeque<(i64, u64)>,
    pub(crate) accepted: u64,
    pub(crate) frames: u64,
    pub(crate) is_listening: bool,
    pub(crate) stats: Option<Value>,
}

#[derive(Debug)]
pub(crate) struct Change {
    /// By the clock of the run.
    pub(crate) at: Duration,
    pub(crate) member: i64,
    pub(crate) peer: i64,
    pub(crate) is_up: bool,
    pub(crate) reason: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            member,
            peer,
            is_up,
            reason,
        } = self;
        let what = if *is_up { "up" } else { "down" };
        write!(
            f,
            "{at:?}: {member} has its link with {peer} {what} {reason}"
        )
    }
}

impl Ledger {
    /// A new process of this member: it knows nothing, and has promised nothing.
    pub(crate) fn on_birth(&mut self, member: i64) {
        self.lives.insert(member, Life::default());
        for ((from, to), way) in &mut self.ways {
            if *from == member {
                way.accepted = None;
                way.times.clear();
            }
            if *to == member {
                way.arrived_here = 0;
            }
        }
    }

    /// The next frame for this way, which the sender is about to be given.
    pub(crate) fn give(&mut self, from: i64, to: i64) -> String {
        let way = self.ways.entry((from, to)).or_default();
        way.given += 1;
        let number = way.given;
        if self.timed.is_some() && !frames::is_long(number) && way.times.len() < TIMED_MAX {
            way.times.push_back((number, Instant::now()));
        }
        self.life_mut(from).unanswered.push_back((to, number));
        frames::text(from, to, number)
    }

    /// A member has printed this.
    pub(crate) fn on_line(&mut self, member: i64, line: &Value, at: Duration) {
        let peer = line["sid"].as_i64().unwrap_or_default();
        match line["event"].as_str().unwrap_or_default() {
            "frame" => self.on_frame(peer, member, line["hex"].as_str().unwrap_or_default()),
            "sent" => self.on_sent(member, peer),
            "up" | "down" => self.on_change(Change {
                at,
                member,
                peer,
                is_up: line["event"] == "up",
                reason: line["reason"].as_str().unwrap_or_default().to_owned(),
            }),
            "listening" => self.life_mut(member).is_listening = true,
            "stats" => self.life_mut(member).stats = Some(line.clone()),
            // Tell of the machine and of the network, which are as they are.
            "dial-failed" | "rejected" | "slow-turn" | "halted" => {}
            _ => self.wrong(format!("{member} said {line}")),
        }
    }

    fn on_frame(&mut self, from: i64, to: i64, hex: &str) {
        self.life_mut(to).frames += 1;
        let number = match frames::number(from, to, hex) {
            Ok(number) => number,
            Err(why) => return self.wrong(format!("torn frame from {from} to {to}: {why}")),
        };
        let way = self.ways.entry((from, to)).or_default();
        if number < way.arrived || number > way.given {
            let (arrived, given) = (way.arrived, way.given);
            return self.wrong(format!(
                "{number} from {from} to {to} after {arrived}, of {given}"
            ));
        }
        // A frame that comes again is timed once.
        let is_new = number > way.arrived;
        (way.arrived, way.arrived_here) = (number, number);
        while let Some((timed, given_at)) = way.times.front().copied() {
            if timed > number {
                break;
            }
            way.times.pop_front();
            if let Some(times) = self.timed.as_mut().filter(|_| timed == number && is_new) {
                times.push((from, to, given_at.elapsed()));
            }
        }
    }

    fn on_sent(&mut self, member: i64, peer: i64) {
        let life = self.life_mut(member);
        life.accepted += 1;
        match life.unanswered.pop_front() {
            Some((to, number)) if to == peer => {
                self.ways.entry((member, to)).or_default().accepted = Some(number);
            }
            other => self.wrong(format!("{member} answers for {peer}, not for {other:?}")),
        }
    }

    fn on_change(&mut self, change: Change) {
        let linked = &mut self.life_mut(change.member).linked;
        let is_news = if change.is_up {
            linked.insert(change.peer)
        } else {
            linked.remove(&change.peer)
        };
        if !is_news {
            self.wrong(format!("told twice: {change}"));
        }
        self.changes.push(change);
    }

    fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    /// Nothing may be wrong at any time.
    #[track_caller]
    pub(crate) fn assert_right(&self) {
        assert!(self.wrongs.is_empty(), "{:#?}", self.wrongs);
    }

    pub(crate) fn life(&self, member: i64) -> &Life {
        &self.lives[&member]
    }

    pub(crate) fn life_mut(&mut self, member: i64) -> &mut Life {
        self.lives.entry(member).or_default()
    }

    /// Who of these does not say that it is linked with whom.
    pub(crate) fn unlinked(&self, live: &[i64]) -> Vec<String> {
        each_way(live)
            .filter(|(member, peer)| !self.life(*member).linked.contains(peer))
            .map(|(member, peer)| format!("{member} has no link with {peer}"))
            .collect()
    }

    /// The last frames that were given to their senders.
    pub(crate) fn given(&self) -> BTreeMap<(i64, i64), u64> {
        let given = self.ways.iter();
        given.map(|(way, state)| (*way, state.given)).collect()
    }

    /// The ways between these on which no frame has arrived that was given to its sender after those.
    pub(crate) fn silent(&self, live: &[i64], given: &BTreeMap<(i64, i64), u64>) -> Vec<String> {
        let arrived = |way: &(i64, i64)| self.ways.get(way).map_or(0, |state| state.arrived_here);
        each_way(live)
            .filter(|way| arrived(way) <= given.get(way).copied().unwrap_or(0))
            .map(|(from, to)| format!("nothing new from {from} to {to}"))
            .collect()
    }

    /// The ways between these on which the newest frame that was accepted has not arrived, and those that have not answered
    /// for all that they were given.
    pub(crate) fn late(&self, live: &[i64]) -> Vec<String> {
        let mut late = Vec::new();
        for (from, to) in each_way(live) {
            let Some(way) = self.ways.get(&(from, to)) else {
                continue;
            };
            if way.accepted.is_some_and(|newest| way.arrived_here < newest) {
                let (accepted, arrived) = (way.accepted, way.arrived_here);
                late.push(format!(
                    "from {from} to {to}: {accepted:?} accepted, {arrived} arrived"
                ));
            }
        }
        for member in live {
            let unanswered = self.life(*member).unanswered.len();
            if unanswered > 0 {
                late.push(format!("{member} has not answered for {unanswered} frames"));
            }
        }
        late
    }

    /// The first time since then at which the member said that its link to the peer is down.
    pub(crate) fn down(&self, member: i64, peer: i64, since: Duration) -> Option<Duration> {
        self.since(since)
            .find(|change| !change.is_up && (change.member, change.peer) == (member, peer))
            .map(|change| change.at)
    }

    /// The last time since then at which a link among these came up.
    pub(crate) fn last_up(&self, live: &[i64], since: Duration) -> Option<Duration> {
        self.since(since)
            .filter(|change| {
                change.is_up && live.contains(&change.member) && live.contains(&change.peer)
            })
            .map(|change| change.at)
            .max()
    }

    /// What has happened to links since then.
    pub(crate) fn since(&self, since: Duration) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.at >= since)
    }

    /// Remembers, or forgets, how long frames take; returns what was remembered: from, to, time.
    pub(crate) fn time(&mut self, on: bool) -> Vec<(i64, i64, Duration)> {
        let old = std::mem::replace(&mut self.timed, on.then(Vec::new));
        for way in self.ways.values_mut() {
            way.times.clear();
        }
        old.unwrap_or_default()
    }
}

/// All ordered pairs.
pub(crate) fn each_way(live: &[i64]) -> impl Iterator<Item = (i64, i64)> + '_ {
    live.iter()
        .flat_map(move |from| live.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from != to)
}
