//! Finds out whether an elected leader still leads, by questions over the election port.
//!
//! There is no clock and no socket here. ZooKeeper notices the end of a leader in its replication, which this program does not
//! have. Here a follower asks its leader, and a leader asks all voters, for their votes. They ask so often that two answers may be
//! lost, and so seldom that the logs of real servers stay short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    election::Outcome,
    notification::{Notification, State},
    quorum::Quorum,
};

/// Parts of the limit. A server is asked when it has been silent for two of them.
const PARTS: u32 = 4;

/// Why a leader is lost, or steps down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It reports that it looks for a leader, or that it follows another one.
    Resigned,
    /// It has not reported for too long that it leads.
    Silent,
    /// Its link has ended, and its address refuses connections.
    Gone,
    /// Too few servers have reported recent that they follow.
    Alone,
    /// Too few followers have stayed: this program does not serve them.
    FollowersLeft,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resigned => "the leader says that it does not lead any more",
            Self::Silent => "the leader has not answered for syncLimit ticks",
            Self::Gone => "its connection has ended, and nobody listens at its election address",
            Self::Alone => "no quorum of followers has answered for syncLimit ticks",
            Self::FollowersLeft => {
                "initLimit ticks are over and too few followers stay: this program does not serve them"
            }
        })
    }
}

/// The time of one leader, as seen by one of its followers, or by the leader itself.
pub(crate) struct Tenure {
    own: Sid,
    quorum: Quorum,
    outcome: Outcome,
    /// For how long a report counts.
    limit: Duration,
    /// The last reports that confirm the tenure: of the leader, or of each follower; `None` for a server whose process has ended.
    reports: BTreeMap<Sid, Option<Duration>>,
    next_at: Duration,
    trial: Option<Trial>,
}

/// Whether the followers of this leader stay with it.
///
/// A real follower that is not served leaves: it looks for a leader as soon as it is refused, or after `initLimit` ticks of
/// silence. Then it learns that the others follow, and comes back. So its messages report most of the time that it follows. For
/// that reason a follower that has left does not count, unless it stays for twice the time after which an unserved one leaves.
struct Trial {
    init_limit: Duration,
    /// Before this time followers may leave and come back, as with a real leader.
    until: Duration,
    /// The servers that have looked for a leader since the election, each with the time since which it follows again, if it does.
    left: BTreeMap<Sid, Option<Duration>>,
}

impl Trial {
    fn has_left(&self, sid: Sid, now: Duration) -> bool {
        match self.left.get(&sid) {
            None => false,
            Some(None) => true,
            Some(Some(back)) => now.saturating_sub(*back) < self.init_limit * 2,
        }
    }
}

impl Tenure {
    pub(crate) fn new(
        own: Sid,
        quorum: Quorum,
        outcome: Outcome,
        limit: Duration,
        now: Duration,
    ) -> Self {
        let reports = depends_on(own, &quorum, outcome);
        Self {
            own,
            outcome,
            limit,
            reports: reports.map(|sid| (sid, Some(now))).collect(),
            quorum,
            next_at: now + limit / PARTS,
            trial: None,
        }
    }

    /// Makes a leader step down when its followers do not stay: `init_limit` after `now`, when a real leader steps down that has
    /// not brought a quorum up to date.
    pub(crate) fn with_trial(mut self, init_limit: Duration, now: Duration) -> Self {
        if self.outcome.state == State::Leading {
            self.trial = Some(Trial {
                init_limit,
                until: now + init_limit,
                left: BTreeMap::new(),
            });
            self.next_at = self.next_at.min(now + init_limit);
        }
        self
    }

    /// The ensemble has other voters now, and its leader has stayed. A follower that has just joined gets the time to report.
    pub(crate) fn reconfigure(&mut self, quorum: Quorum, now: Duration) {
        let since = |sid| (sid, self.reports.get(&sid).copied().unwrap_or(Some(now)));
        let reports = depends_on(self.own, &quorum, self.outcome).map(since);
        self.reports = reports.collect();
        self.quorum = quorum;
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.next_at
    }

    /// To be called at [`deadline`](Self::deadline). Returns the servers to ask, or an error if the leader is lost.
    pub(crate) fn on_time(&mut self, now: Duration) -> Result<Vec<Sid>, Loss> {
        if now < self.next_at {
            return Ok(Vec::new());
        }
        self.next_at = now + self.limit / PARTS;
        if let Some(trial) = self.trial.as_ref().filter(|trial| now < trial.until) {
            self.next_at = self.next_at.min(trial.until);
        }
        self.check(now)?;
        let is_due = |at: &Option<Duration>| {
            at.is_none_or(|at| now.saturating_sub(at) >= self.limit / PARTS * 2)
        };
        let silent = self.reports.iter().filter(|(_, at)| is_due(at));
        Ok(silent.map(|(sid, _)| *sid).collect())
    }

    /// Whether there are enough recent reports.
    fn check(&self, now: Duration) -> Result<(), Loss> {
        let is_recent =
            |at: &Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) < self.limit);
        let recent = self.reports.iter().filter(|(_, at)| is_recent(at));
        let mut recent: BTreeSet<Sid> = recent.map(|(sid, _)| *sid).collect();
        if self.outcome.state != State::Leading {
            return match recent.is_empty() {
                true => Err(Loss::Silent),
                false => Ok(()),
            };
        }
        recent.insert(self.own);
        if !self.quorum.is_met_by(&recent) {
            return Err(Loss::Alone);
        }
        if let Some(trial) = self.trial.as_ref().filter(|trial| trial.until <= now) {
            recent.retain(|sid| !trial.has_left(*sid, now));
            if !self.quorum.is_met_by(&recent) {
                return Err(Loss::FollowersLeft);
            }
        }
        Ok(())
    }

    /// The process of a server has ended.
    pub(crate) fn on_gone(&mut self, now: Duration, sid: Sid) -> Result<(), Loss> {
        let Some(report) = self.reports.get_mut(&sid) else {
            return Ok(());
        };
        *report = None;
        match self.outcome.state {
            State::Leading => self.check(now),
            _ => Err(Loss::Gone),
        }
    }

    /// A message of a server has arrived.
    pub(crate) fn on_notification(
        &mut self,
        now: Duration,
        from: Sid,
        message: &Notification,
    ) -> Result<(), Loss> {
        let Some(report) = self.reports.get_mut(&from) else {
            return Ok(());
        };
        if message.is_question() {
            return Ok(());
        }
        let (leader, round) = (self.outcome.vote.leader, self.outcome.vote.round);
        if self.outcome.state == State::Leading {
            let follows = message.state == State::Following && message.vote.leader == leader;
            if follows {
                *report = Some(now);
            }
            // A vote of this round, or of one before, may be late, or from a server that has just started.
            let looks_again = message.state == State::Looking && message.vote.round > round;
            if let Some(trial) = &mut self.trial {
                if looks_again {
                    trial.left.insert(from, None);
                } else if let Some(back) = trial.left.get_mut(&from).filter(|_| follows) {
                    back.get_or_insert(now);
                }
            }
            return match looks_again {
                true => self.check(now),
                false => Ok(()),
            };
        }
        match message.state {
            State::Leading if message.vote.leader == leader => *report = Some(now),
            // A vote of this round may be late, or a repetition.
            State::Looking if message.vote.round == round => {}
            _ => return Err(Loss::Resigned),
        }
        Ok(())
    }
}

/// The servers whose reports confirm the tenure: all followers of a leader, or the leader of a follower.
fn depends_on(own: Sid, quorum: &Quorum, outcome: Outcome) -> impl Iterator<Item = Sid> + use<> {
    let sids: Vec<Sid> = match outcome.state {
        State::Leading => quorum.voters().filter(|sid| *sid != own).collect(),
        _ => vec![outcome.vote.leader],
    };
    sids.into_iter()
}
