//! Whether who was elected leads still: what is asked over the election port, and what is made of the answers.
//!
//! Nothing here looks at a clock or a socket.
//!
//! ZooKeeper knows it by what it replicates, which is none of an election's business. Here a follower asks its leader, and a
//! leader asks all, for their votes: often enough that two answers may be lost, and seldom enough for the logs of those
//! who are asked.

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

/// Into so many parts the limit is cut: for the first two of them nobody is asked.
const STEPS: u32 = 4;

/// Why the time of a leader is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It says that it looks for a leader itself, or that it follows another.
    Resigned,
    /// It has not said for too long that it leads.
    Silent,
    /// Its link has ended, and nobody listens where it was.
    Gone,
    /// Too few have said of late that they follow.
    Alone,
    /// Followers came and left again, and too few are left that did not: they find here nothing to follow.
    Unserved,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resigned => "the leader says that it does not lead any more",
            Self::Silent => "the leader has not answered for syncLimit ticks",
            Self::Gone => "its connection has ended, and nobody listens at its election address",
            Self::Alone => "no quorum of followers has answered for syncLimit ticks",
            Self::Unserved => {
                "initLimit ticks are over and too few followers stay: this program does not serve them"
            }
        })
    }
}

/// The time of one leader, as one of its followers sees it, or it itself.
pub(crate) struct Tenure {
    own: Sid,
    quorum: Quorum,
    outcome: Outcome,
    /// How long a word is good for.
    limit: Duration,
    /// When those on whom it depends have last said what keeps it up; `None` when they cannot be reached any more.
    words: BTreeMap<Sid, Option<Duration>>,
    next_at: Duration,
    trial: Option<Trial>,
}

/// Whether the followers of this leader stay with it.
///
/// A follower that is not served leaves: a real one looks again as soon as it is refused, or after `initLimit` ticks of
/// silence, hears that the others follow, and comes back. By what they say they follow most of the time. So a follower that
/// has left counts no more, unless it stays for twice as long as one that is not served could.
struct Trial {
    init_limit: Duration,
    /// Until then followers may come and go, as they may with a real leader.
    until: Duration,
    /// Who has looked again since the election, and since when it follows once more, if it does.
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
        let depends_on: Vec<Sid> = match outcome.state {
            State::Leading => quorum.voters().filter(|sid| *sid != own).collect(),
            _ => vec![outcome.vote.leader],
        };
        Self {
            own,
            quorum,
            outcome,
            limit,
            words: depends_on.into_iter().map(|sid| (sid, Some(now))).collect(),
            next_at: now + limit / STEPS,
            trial: None,
        }
    }

    /// A leader steps down when followers do not stay: after `init_limit` from `now`, as a real leader does that has not
    /// brought a quorum up to date by then. Without this it does not look whether they stay.
    pub(crate) fn on_trial(mut self, init_limit: Duration, now: Duration) -> Self {
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

    pub(crate) fn deadline(&self) -> Duration {
        self.next_at
    }

    /// The time has come to [`deadline`](Self::deadline): who is to be asked, or that it is over.
    pub(crate) fn on_time(&mut self, now: Duration) -> Result<Vec<Sid>, Loss> {
        if now < self.next_at {
            return Ok(Vec::new());
        }
        self.next_at = now + self.limit / STEPS;
        if let Some(trial) = self.trial.as_ref().filter(|trial| now < trial.until) {
            self.next_at = self.next_at.min(trial.until);
        }
        self.check(now)?;
        let is_due = |at: &Option<Duration>| {
            at.is_none_or(|at| now.saturating_sub(at) >= self.limit / STEPS * 2)
        };
        let silent = self.words.iter().filter(|(_, at)| is_due(at));
        Ok(silent.map(|(sid, _)| *sid).collect())
    }

    /// Whether those on whom it depends keep it up.
    fn check(&self, now: Duration) -> Result<(), Loss> {
        let is_recent =
            |at: &Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) < self.limit);
        let lately = self.words.iter().filter(|(_, at)| is_recent(at));
        let mut lately: BTreeSet<Sid> = lately.map(|(sid, _)| *sid).collect();
        if self.outcome.state != State::Leading {
            return match lately.is_empty() {
                true => Err(Loss::Silent),
                false => Ok(()),
            };
        }
        lately.insert(self.own);
        if !self.quorum.is_met_by(&lately) {
            return Err(Loss::Alone);
        }
        if let Some(trial) = self.trial.as_ref().filter(|trial| trial.until <= now) {
            lately.retain(|sid| !trial.has_left(*sid, now));
            if !self.quorum.is_met_by(&lately) {
                return Err(Loss::Unserved);
            }
        }
        Ok(())
    }

    /// The link to a server has ended, and nobody listens where it was.
    pub(crate) fn on_gone(&mut self, now: Duration, sid: Sid) -> Result<(), Loss> {
        let Some(word) = self.words.get_mut(&sid) else {
            return Ok(());
        };
        *word = None;
        match self.outcome.state {
            State::Leading => self.check(now),
            _ => Err(Loss::Gone),
        }
    }

    /// A server has said something.
    pub(crate) fn on_notification(
        &mut self,
        now: Duration,
        from: Sid,
        heard: &Notification,
    ) -> Result<(), Loss> {
        let Some(word) = self.words.get_mut(&from) else {
            return Ok(());
        };
        if heard.is_question() {
            return Ok(());
        }
        let (leader, round) = (self.outcome.vote.leader, self.outcome.vote.round);
        if self.outcome.state == State::Leading {
            let follows = heard.state == State::Following && heard.vote.leader == leader;
            if follows {
                *word = Some(now);
            }
            // A vote of this round, or of one before it, may come late, or from a server that has just started.
            let looks_again = heard.state == State::Looking && heard.vote.round > round;
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
        match heard.state {
            State::Leading if heard.vote.leader == leader => *word = Some(now),
            // Its vote of this round may come late, or once more.
            State::Looking if heard.vote.round == round => {}
            _ => return Err(Loss::Resigned),
        }
        Ok(())
    }
}
