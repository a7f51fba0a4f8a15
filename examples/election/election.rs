//! The rules of ZooKeeper's fast leader election, for one server.
//!
//! Nothing here looks at a clock, a socket or chance: what happened comes in with the time at which it did, and what is to
//! be done leaves as actions.
//!
//! Everybody begins with a vote for itself and tells it to all. Who hears a better one makes it his own and tells that to
//! all. When a quorum holds the same vote, and for [`FINALIZE_WAIT`] nothing better comes, its server is elected. Elections
//! are numbered, by *rounds*: a vote of an earlier round is not counted, and one of a later round takes its hearer there.
//! Who comes late hears from the others that they follow already, and follows as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    notification::{Notification, State, Vote},
    quorum::Quorum,
};

/// How long something better may still come when a quorum agrees. The slowest message of a healthy network is faster.
pub(crate) const FINALIZE_WAIT: Duration = Duration::from_millis(200);

/// When a vote is told again for the first time unless [`Election::resending`] says another time; each time it takes twice
/// as long.
pub(crate) const RESEND_FIRST: Duration = Duration::from_millis(200);

/// The longest time after which a vote is told again unless [`Election::resending`] says another time.
pub(crate) const RESEND_LAST: Duration = Duration::from_secs(60);

/// How old a vote may be that was cast before its hearer looked. As long as a leader's end may go unnoticed with the times of
/// ZooKeeper's sample file (5 ticks of 2 s); who still looks by then has told its vote again meanwhile, and who does not has
/// cast it for nothing.
pub(crate) const EARLY_MAX: Duration = Duration::from_secs(10);

/// Servers without a vote whose last answers are remembered: more than are linked at one time. When there are more they are
/// forgotten, and some are answered once more than needed.
const ANSWERED_MAX: usize = 1024;

/// The transaction number of a server that has lost its data and does not know yet what it knew: it is not to be elected,
/// and not to elect (ZOOKEEPER-261).
const ZXID_OF_NOBODY: i64 = -1;

/// The last transaction of a server without data: it comes before all others, so that such a server is elected only where
/// nobody else can be. Its high half is an epoch that comes before all others as well, also in a message that holds no epoch.
/// A real server without data says 0, and it can do what is needed then: serve.
pub(crate) const ZXID_OF_NO_DATA: i64 = -1 << 32;

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Hold this out to this server.
    Send(Sid, Notification),
    /// Say that this is the own vote from now on.
    Propose(Vote),
    /// See that every voter is linked.
    Connect,
    /// Say that the election is over.
    Elect(Outcome),
}

/// How an election has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What this server does from now on.
    pub(crate) state: State,
    pub(crate) vote: Vote,
    /// True exactly when others had decided it before, and said so.
    pub(crate) was_told: bool,
}

/// The election as one server sees it.
///
/// ```text
///   New --look--> Looking --a quorum agrees, or says that it follows--> Decided
///                    ^                                                     |
///                    +--------------------- look --------------------------+
/// ```
pub(crate) struct Election {
    own: Sid,
    quorum: Quorum,
    /// What this server votes before it has heard of anybody better.
    initial: Vote,
    /// True exactly when the own vote counts.
    votes: bool,
    resend_first: Duration,
    resend_last: Duration,
    round: i64,
    phase: Phase,
    /// What those said who looked while this server had a leader, and when: the last vote of each.
    early: BTreeMap<Sid, (Duration, Notification)>,
    /// The last answers to servers without a vote, of the last [`RESEND_FIRST`].
    answered: BTreeMap<Sid, Answer>,
}

/// What a server without a vote has said, what it was answered, and when.
struct Answer {
    heard: Notification,
    said: Notification,
    at: Duration,
}

enum Phase {
    New,
    Looking(Looking),
    Decided(Outcome),
}

struct Looking {
    proposal: Vote,
    /// The votes of this round, the own one among them: the last one of each voter.
    received: BTreeMap<Sid, Ballot>,
    /// What those say who look no more, of whatever round.
    outside: BTreeMap<Sid, Ballot>,
    /// How long after it was told the vote is told again. ZooKeeper counts from what it heard last instead: one who answers
    /// each of its messages could keep it from ever speaking to the others.
    interval: Duration,
    resend_at: Duration,
    /// When the proposal is elected; `None` as long as no quorum agrees with it.
    settled_at: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Ballot {
    state: State,
    vote: Vote,
    version: i32,
}

impl Ballot {
    /// Whether both are for the same leader. Those who look must agree in everything. Those who have decided may have
    /// decided in different rounds, and by an earlier transaction (ZOOKEEPER-1732, 1805); the epoch of version 0 is another
    /// thing than that of later ones.
    fn agrees(&self, other: &Self) -> bool {
        if self.state == State::Looking || other.state == State::Looking {
            return self.vote == other.vote;
        }
        let comparable = (self.version > 0) == (other.version > 0);
        self.vote.leader == other.vote.leader
            && (!comparable || self.vote.epoch == other.vote.epoch)
    }
}

impl Election {
    /// A voter, or an observer if it is not among the voters. Its last transaction is `zxid`, and its epoch `epoch`.
    /// Nothing happens before it [looks](Self::look).
    pub(crate) fn new(own: Sid, quorum: Quorum, zxid: i64, epoch: i64) -> Self {
        let initial = Vote {
            leader: own,
            zxid,
            round: 0,
            epoch,
        };
        match quorum.is_voter(own) {
            true => Self::begin(own, quorum, initial, true),
            false => Self::observer(own, quorum),
        }
    }

    /// Somebody who has no vote, even if it is in the place of a voter.
    pub(crate) fn observer(own: Sid, quorum: Quorum) -> Self {
        Self::begin(own, quorum, Notification::QUESTION.vote, false)
    }

    fn begin(own: Sid, quorum: Quorum, initial: Vote, votes: bool) -> Self {
        Self {
            own,
            quorum,
            initial,
            votes,
            resend_first: RESEND_FIRST,
            resend_last: RESEND_LAST,
            round: 0,
            phase: Phase::New,
            early: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Tells its vote again after `first`, then each time after twice as long, but after no more than `last`. As in
    /// ZooKeeper `first` holds even if it is the longer one.
    pub(crate) fn resending(mut self, first: Duration, last: Duration) -> Self {
        self.resend_first = first;
        self.resend_last = last;
        self
    }

    /// The number of the election in which it is, or in which it has decided.
    pub(crate) fn round(&self) -> i64 {
        self.round
    }

    /// What this server tells about itself now.
    pub(crate) fn current(&self) -> Notification {
        let (state, vote) = match &self.phase {
            Phase::New => (State::Looking, self.initial),
            Phase::Looking(looking) => (State::Looking, looking.proposal),
            Phase::Decided(outcome) => (outcome.state, outcome.vote),
        };
        Notification {
            state,
            vote,
            version: 2,
        }
    }

    /// From the next round on this server is elected only where nobody else can be: it has led, and could not serve.
    pub(crate) fn stand_back(&mut self) {
        self.initial.zxid = ZXID_OF_NO_DATA;
        self.initial.epoch = ZXID_OF_NO_DATA >> 32;
    }

    /// When time alone changes something, if it does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Looking(looking) => Some(looking.settled_at.unwrap_or(looking.resend_at)),
            Phase::New | Phase::Decided(_) => None,
        }
    }

    /// There is no leader, or no more: a new round begins.
    ///
    /// Those who noticed it earlier have cast their votes already. ZooKeeper has dropped them, and hears them when they are
    /// told again; here they count as if the network had held them back a little.
    pub(crate) fn look(&mut self, now: Duration, actions: &mut Vec<Action>) {
        // A neighbour may claim any round, the last one there is included.
        self.round = self.round.saturating_add(1);
        self.phase = Phase::Looking(Looking {
            proposal: self.initial,
            received: BTreeMap::new(),
            outside: BTreeMap::new(),
            interval: self.resend_first,
            resend_at: now,
            settled_at: None,
        });
        self.propose(now, self.initial, actions);
        self.review(now);
        for (from, (at, heard)) in std::mem::take(&mut self.early) {
            if now.saturating_sub(at) <= EARLY_MAX {
                self.on_vote(now, from, heard, actions);
            }
        }
    }

    /// The link to a server has ended. What it said early may be that of a process that is no more; whoever is there says it
    /// again over the next link.
    pub(crate) fn on_unlinked(&mut self, sid: Sid) {
        self.early.remove(&sid);
    }

    /// The time has come to [`deadline`](Self::deadline).
    pub(crate) fn on_time(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        if looking.settled_at.is_some_and(|at| at <= now) {
            let vote = looking.proposal;
            self.decide(vote, false, actions);
        } else if looking.settled_at.is_none() && looking.resend_at <= now {
            looking.interval = (looking.interval * 2).min(self.resend_last);
            looking.resend_at = now + looking.interval;
            // ZooKeeper does the one or the other, by what is undelivered. Who is linked is told again, and who is not is
            // dialed; a vote that waits for somebody is replaced by itself.
            self.tell_all(actions);
            actions.push(Action::Connect);
        }
    }

    /// A server has said something.
    pub(crate) fn on_notification(
        &mut self,
        now: Duration,
        from: Sid,
        heard: Notification,
        actions: &mut Vec<Action>,
    ) {
        let looks = heard.state == State::Looking;
        let is_voter = self.quorum.is_voter(from);
        let owes_answer = match self.phase {
            // An observer, or a server that is to join: told, and not counted.
            _ if !is_voter => true,
            Phase::New | Phase::Looking(_) => heard.vote.round < self.round,
            Phase::Decided(_) => true,
        };
        // Only those who look are answered, and only by those who vote. ZooKeeper is less strict, and an observer in a later
        // round and a voter who does not follow it there answer each other as fast as they can.
        let owes_answer = owes_answer && looks && self.votes;
        if owes_answer && (is_voter || self.is_new(now, from, heard)) {
            actions.push(Action::Send(from, self.current()));
        }
        if !is_voter || heard.is_question() || !self.quorum.is_voter(heard.vote.leader) {
            return;
        }
        let Phase::Looking(_) = self.phase else {
            self.on_word(now, from, heard);
            return;
        };
        match heard.state {
            State::Looking => self.on_vote(now, from, heard, actions),
            State::Following | State::Leading => self.on_decision(now, from, heard, actions),
            State::Observing => {}
        }
    }

    /// Whether an answer to this would tell a server without a vote anything new; remembers it if so.
    ///
    /// A real server that looks and is in a later round answers every answer, as long as this one looks, too: the two would
    /// go on as fast as they can. When its answer is lost it repeats itself after [`RESEND_FIRST`] at the earliest.
    fn is_new(&mut self, now: Duration, from: Sid, heard: Notification) -> bool {
        let said = self.current();
        self.answered
            .retain(|_, answer| now.saturating_sub(answer.at) < RESEND_FIRST);
        let last = self.answered.get(&from);
        if last.is_some_and(|last| last.heard == heard && last.said == said) {
            return false;
        }
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.clear();
        }
        let at = now;
        self.answered.insert(from, Answer { heard, said, at });
        true
    }

    /// Somebody has said something while this server has a leader.
    fn on_word(&mut self, now: Duration, from: Sid, heard: Notification) {
        if heard.state == State::Looking {
            self.early.insert(from, (now, heard));
            return;
        }
        self.early.remove(&from);
        let Phase::Decided(outcome) = &mut self.phase else {
            return;
        };
        let vote = &mut outcome.vote;
        let is_leader = heard.state == State::Leading && from == heard.vote.leader;
        if is_leader && from == vote.leader {
            // It has begun a new epoch meanwhile: who comes late compares what it is told by all.
            vote.epoch = vote.epoch.max(heard.vote.epoch);
        }
    }

    /// Another one looks, too.
    fn on_vote(
        &mut self,
        now: Duration,
        from: Sid,
        heard: Notification,
        actions: &mut Vec<Action>,
    ) {
        let vote = heard.vote;
        if self.initial.zxid == ZXID_OF_NOBODY || vote.zxid == ZXID_OF_NOBODY {
            return;
        }
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        if vote.round < self.round {
            return;
        }
        if vote.round > self.round {
            self.round = vote.round;
            looking.received.clear();
            let proposal = self.better(vote, self.initial).unwrap_or(self.initial);
            self.propose(now, proposal, actions);
        } else {
            let proposal = looking.proposal;
            if let Some(better) = self.better(vote, proposal) {
                self.propose(now, better, actions);
            }
        }
        self.record(from, heard);
        self.review(now);
    }

    /// Another one has a leader.
    fn on_decision(
        &mut self,
        now: Duration,
        from: Sid,
        heard: Notification,
        actions: &mut Vec<Action>,
    ) {
        let Notification {
            state,
            vote,
            version,
        } = heard;
        let ballot = Ballot {
            state,
            vote,
            version,
        };
        if vote.round == self.round {
            self.record(from, heard);
        }
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        looking.outside.insert(from, ballot);
        let Phase::Looking(looking) = &self.phase else {
            return;
        };
        let is_decided = |ballots: &BTreeMap<Sid, Ballot>| {
            self.quorum.is_met_by(&those_who_agree(ballots, &ballot))
                && self.leads(ballots, vote.leader, vote.round)
        };
        if (vote.round == self.round && is_decided(&looking.received))
            || is_decided(&looking.outside)
        {
            self.round = vote.round;
            self.decide(vote, true, actions);
        } else {
            self.review(now);
        }
    }

    /// Whether a leader says so itself: without its word, those who follow it may have been left by it (ZOOKEEPER-1514).
    fn leads(&self, ballots: &BTreeMap<Sid, Ballot>, leader: Sid, round: i64) -> bool {
        if leader == self.own && self.votes {
            return round == self.round;
        }
        let word = ballots.get(&leader);
        word.is_some_and(|ballot| ballot.state == State::Leading)
    }

    /// The first vote, if it beats the second one: the later epoch, then the later transaction, then the larger sid.
    fn better(&self, new: Vote, current: Vote) -> Option<Vote> {
        let rank = |vote: Vote| (vote.epoch, vote.zxid, vote.leader);
        (self.quorum.has_weight(new.leader) && rank(new) > rank(current)).then_some(new)
    }

    /// Makes a vote the own one, and tells all.
    fn propose(&mut self, now: Duration, vote: Vote, actions: &mut Vec<Action>) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let vote = Vote {
            round: self.round,
            ..vote
        };
        looking.proposal = vote;
        looking.resend_at = now + looking.interval;
        if self.votes {
            let ballot = Ballot {
                state: State::Looking,
                vote,
                version: 0,
            };
            looking.received.insert(self.own, ballot);
        }
        actions.push(Action::Propose(vote));
        self.tell_all(actions);
    }

    fn tell_all(&self, actions: &mut Vec<Action>) {
        let others = self.quorum.voters().filter(|sid| *sid != self.own);
        actions.extend(others.map(|sid| Action::Send(sid, self.current())));
    }

    fn record(&mut self, from: Sid, heard: Notification) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let ballot = Ballot {
            state: heard.state,
            vote: heard.vote,
            // As ZooKeeper keeps it, so that a decision of the own round is compared by its leader alone.
            version: 0,
        };
        looking.received.insert(from, ballot);
    }

    /// Something was heard that counts: whether a quorum agrees now, and how long to wait for something better.
    ///
    /// ZooKeeper forgets what it hears while it waits, unless it is better. Here it counts as ever.
    fn review(&mut self, now: Duration) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let ours = Ballot {
            state: State::Looking,
            vote: looking.proposal,
            version: 0,
        };
        let agree = those_who_agree(&looking.received, &ours);
        looking.settled_at = self.quorum.is_met_by(&agree).then_some(now + FINALIZE_WAIT);
    }

    fn decide(&mut self, vote: Vote, was_told: bool, actions: &mut Vec<Action>) {
        let state = match (self.votes, vote.leader == self.own) {
            (true, true) => State::Leading,
            (true, false) => State::Following,
            (false, _) => State::Observing,
        };
        let outcome = Outcome {
            state,
            vote,
            was_told,
        };
        self.phase = Phase::Decided(outcome);
        actions.push(Action::Elect(outcome));
    }
}

fn those_who_agree(ballots: &BTreeMap<Sid, Ballot>, with: &Ballot) -> BTreeSet<Sid> {
    let agree = ballots.iter().filter(|(_, ballot)| ballot.agrees(with));
    agree.map(|(sid, _)| *sid).collect()
}
