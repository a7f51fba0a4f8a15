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
    /// Too few have said of late that they follow.
    Alone,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resigned => "the leader says that it does not lead any more",
            Self::Silent => "the leader has not answered for syncLimit ticks",
            Self::Alone => "no quorum of followers has answered for syncLimit ticks",
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
    /// When those on whom it depends have last said what keeps it up.
    words: BTreeMap<Sid, Duration>,
    next_at: Duration,
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
            words: depends_on.into_iter().map(|sid| (sid, now)).collect(),
            next_at: now + limit / STEPS,
        }
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
        let since = |at: &Duration| now.saturating_sub(*at);
        let words = self.words.iter();
        let lately = words.filter(|(_, at)| since(at) < self.limit);
        let mut lately: BTreeSet<Sid> = lately.map(|(sid, _)| *sid).collect();
        if self.outcome.state == State::Leading {
            lately.insert(self.own);
            if !self.quorum.is_met_by(&lately) {
                return Err(Loss::Alone);
            }
        } else if lately.is_empty() {
            return Err(Loss::Silent);
        }
        let words = self.words.iter();
        let silent = words.filter(|(_, at)| since(at) >= self.limit / STEPS * 2);
        Ok(silent.map(|(sid, _)| *sid).collect())
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
            if heard.state == State::Following && heard.vote.leader == leader {
                *word = now;
            }
            return Ok(());
        }
        match heard.state {
            State::Leading if heard.vote.leader == leader => *word = now,
            // Its vote of this round may come late, or once more.
            State::Looking if heard.vote.round == round => {}
            _ => return Err(Loss::Resigned),
        }
        Ok(())
    }
}
