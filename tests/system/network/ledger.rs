//! Records what all members were given and have printed, and detects broken promises.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{hex::from_hex, numbered::number_of};

use crate::frames;

/// Frames in flight whose start times are remembered, for each direction.
const TIMED_MAX: usize = 1024;

/// Everything that was observed from the outside.
#[derive(Default)]
pub(crate) struct Ledger {
    directions: BTreeMap<(i64, i64), Direction>,
    processes: BTreeMap<i64, ProcessRecord>,
    /// Links that came up or ended, in the order of the printed lines.
    changes: Vec<Change>,
    /// Broken promises.
    violations: Vec<String>,
    /// The latencies of arrived frames, while they are measured.
    timed: Option<Vec<(i64, i64, Duration)>>,
}

/// The frames from one member to another.
#[derive(Default)]
struct Direction {
    /// The number of the last frame that was given to the sender.
    sent: u64,
    /// The last one that the sender's process has accepted.
    accepted: Option<u64>,
    /// The last one that arrived, at any process of the receiver.
    arrived: u64,
    /// The last one that arrived at the current process of the receiver.
    arrived_now: u64,
    times: VecDeque<(u64, Instant)>,
}

/// What one process of a member has printed.
#[derive(Default)]
pub(crate) struct ProcessRecord {
    linked: BTreeSet<i64>,
    /// Frames that it was given and has not yet answered by `sent`.
    unanswered: VecDeque<(i64, u64)>,
    pub(crate) accepted: u64,
    pub(crate) frames: u64,
    pub(crate) is_listening: bool,
    pub(crate) stats: Option<Value>,
}

#[derive(Debug)]
pub(crate) struct Change {
    /// By the clock of `run_time`.
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
        write!(f, "{at:?}: link of {member} with {peer} {what} {reason}")
    }
}

impl Ledger {
    /// A new process of this member starts, without any state.
    pub(crate) fn on_process_start(&mut self, member: i64) {
        self.processes.insert(member, ProcessRecord::default());
        for ((from, to), direction) in &mut self.directions {
            if *from == member {
                direction.accepted = None;
                direction.times.clear();
            }
            if *to == member {
                direction.arrived_now = 0;
            }
        }
    }

    /// The next frame in this direction, which the sender is about to be given.
    pub(crate) fn next_frame(&mut self, from: i64, to: i64) -> String {
        let direction = self.directions.entry((from, to)).or_default();
        direction.sent += 1;
        let number = direction.sent;
        if self.timed.is_some() && !frames::is_long(number) && direction.times.len() < TIMED_MAX {
            direction.times.push_back((number, Instant::now()));
        }
        self.process_mut(from).unanswered.push_back((to, number));
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
            "listening" => self.process_mut(member).is_listening = true,
            "stats" => self.process_mut(member).stats = Some(line.clone()),
            // Allowed at any time.
            "dial-failed" | "rejected" | "slow-turn" | "halted" => {}
            _ => self.add_violation(format!("{member} printed {line}")),
        }
    }

    fn on_frame(&mut self, from: i64, to: i64, hex: &str) {
        self.process_mut(to).frames += 1;
        let frame = from_hex(hex).unwrap_or_default();
        let number = match number_of(from, to, &frame) {
            Ok(number) => number,
            Err(why) => {
                return self.add_violation(format!("torn frame from {from} to {to}: {why}"));
            }
        };
        let direction = self.directions.entry((from, to)).or_default();
        if number < direction.arrived || number > direction.sent {
            let (arrived, sent) = (direction.arrived, direction.sent);
            return self.add_violation(format!(
                "{number} from {from} to {to} after {arrived}, of {sent}"
            ));
        }
        // A frame that arrives again is measured once.
        let is_new = number > direction.arrived;
        (direction.arrived, direction.arrived_now) = (number, number);
        while let Some((timed, sent_at)) = direction.times.front().copied() {
            if timed > number {
                break;
            }
            direction.times.pop_front();
            if let Some(times) = self.timed.as_mut().filter(|_| timed == number && is_new) {
                times.push((from, to, sent_at.elapsed()));
            }
        }
    }

    fn on_sent(&mut self, member: i64, peer: i64) {
        let process = self.process_mut(member);
        process.accepted += 1;
        match process.unanswered.pop_front() {
            Some((to, number)) if to == peer => {
                self.directions.entry((member, to)).or_default().accepted = Some(number);
            }
            other => self.add_violation(format!("{member} answers for {peer}, expected {other:?}")),
        }
    }

    fn on_change(&mut self, change: Change) {
        let linked = &mut self.process_mut(change.member).linked;
        let is_change = if change.is_up {
            linked.insert(change.peer)
        } else {
            linked.remove(&change.peer)
        };
        if !is_change {
            self.add_violation(format!("printed twice: {change}"));
        }
        self.changes.push(change);
    }

    fn add_violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Checks that no promise was broken so far.
    #[track_caller]
    pub(crate) fn assert_no_violation(&self) {
        assert!(self.violations.is_empty(), "{:#?}", self.violations);
    }

    pub(crate) fn process(&self, member: i64) -> &ProcessRecord {
        &self.processes[&member]
    }

    pub(crate) fn process_mut(&mut self, member: i64) -> &mut ProcessRecord {
        self.processes.entry(member).or_default()
    }

    /// The links among these members that are missing, by what they have printed.
    pub(crate) fn unlinked(&self, live: &[i64]) -> Vec<String> {
        each_way(live)
            .filter(|(member, peer)| !self.process(*member).linked.contains(peer))
            .map(|(member, peer)| format!("{member} has no link with {peer}"))
            .collect()
    }

    /// The last frame that was given to its sender, for each direction.
    pub(crate) fn sent(&self) -> BTreeMap<(i64, i64), u64> {
        let sent = self.directions.iter();
        sent.map(|(direction, state)| (*direction, state.sent))
            .collect()
    }

    /// The directions between these members in which no frame after `sent` has arrived.
    pub(crate) fn silent(&self, live: &[i64], sent: &BTreeMap<(i64, i64), u64>) -> Vec<String> {
        let arrived = |direction: &(i64, i64)| {
            self.directions
                .get(direction)
                .map_or(0, |state| state.arrived_now)
        };
        each_way(live)
            .filter(|direction| arrived(direction) <= sent.get(direction).copied().unwrap_or(0))
            .map(|(from, to)| format!("nothing new from {from} to {to}"))
            .collect()
    }

    /// The directions between these members in which the newest accepted frame has not arrived, and the members that have not
    /// answered for all frames.
    pub(crate) fn late(&self, live: &[i64]) -> Vec<String> {
        let mut late = Vec::new();
        for (from, to) in each_way(live) {
            let Some(direction) = self.directions.get(&(from, to)) else {
                continue;
            };
            if direction
                .accepted
                .is_some_and(|newest| direction.arrived_now < newest)
            {
                let (accepted, arrived) = (direction.accepted, direction.arrived_now);
                late.push(format!(
                    "from {from} to {to}: {accepted:?} accepted, {arrived} arrived"
                ));
            }
        }
        for member in live {
            let unanswered = self.process(*member).unanswered.len();
            if unanswered > 0 {
                late.push(format!("{member} has not answered for {unanswered} frames"));
            }
        }
        late
    }

    /// The first time since then at which the member printed that its link with the peer has ended.
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

    /// The changes of links since then.
    pub(crate) fn since(&self, since: Duration) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.at >= since)
    }

    /// Starts or stops the measurement of latencies. Returns the earlier ones: from, to, latency.
    pub(crate) fn time(&mut self, on: bool) -> Vec<(i64, i64, Duration)> {
        let old = std::mem::replace(&mut self.timed, on.then(Vec::new));
        for direction in self.directions.values_mut() {
            direction.times.clear();
        }
        old.unwrap_or_default()
    }
}

/// All ordered pairs of different members.
pub(crate) fn each_way(live: &[i64]) -> impl Iterator<Item = (i64, i64)> + '_ {
    live.iter()
        .flat_map(move |from| live.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from != to)
}
