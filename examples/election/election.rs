//! The rules of ZooKeeper's fast leader election, for one server.
//!
//! There is no clock, no socket and no random number here: events come in with their time, and actions are returned.
//!
//! Each server begins with a vote for itself, and sends it to all others. A server that receives a better vote adopts it, and
//! sends that to all others. When a quorum has the same vote, and no better one arrives for [`FINALIZE_WAIT`], its candidate is
//! elected. Elections are numbered by *rounds*. A vote of an earlier round is not counted; a server that receives a vote of a
//! later round enters that round. A server that comes late learns from the others that they follow a leader, and follows it, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    notification::{Notification, State, Vote},
    quorum::Quorum,
};

/// How long a server waits for a better vote when a quorum agrees. In a healthy network every message arrives sooner.
pub(crate) const FINALIZE_WAIT: Duration = Duration::from_millis(200);

/// Default of the first interval after which a vote is sent again ([`Election::resending`]). Each interval is twice as long as
/// the one before.
pub(crate) const RESEND_FIRST: Duration = Duration::from_millis(200);

/// Default of the longest interval after which a vote is sent again ([`Election::resending`]).
pub(crate) const RESEND_LAST: Duration = Duration::from_secs(60);

/// Age up to which a vote counts that arrived before its receiver looked for a leader. It is the time for which the failure of a
/// leader may go unnoticed with the values of ZooKeeper's sample file (5 ticks of 2 s). A server that still looks after that time
/// has sent its vote again; the vote of a server that looks no more is of no use.
pub(crate) const EARLY_MAX: Duration = Duration::from_secs(10);

/// Servers without a vote whose last answers are remembered: more than are linked at one time. When there are more, all are
/// forgotten, and some of these servers are answered once more than needed.
const ANSWERED_MAX: usize = 1024;

/// The transaction number of a server that has lost its data: it must neither be elected nor elect (ZOOKEEPER-261).
const ZXID_OF_LOST_DATA: i64 = -1;

/// The last transaction of a server without data. It is smaller than all others, so that such a server is elected only if no
/// other server can be. Its high half is an epoch that is smaller than all others, too, for messages that hold no epoch. A real
/// server without data sends 0, since it can serve.
pub(crate) const ZXID_OF_NO_DATA: i64 = -1 << 32;

/// What the caller must do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this to this server.
    Send(Sid, Notification),
    /// Report that this is the own vote from now on.
    Propose(Vote),
    /// Connect to every voter that is not linked.
    Connect,
    /// Report that the election is over.
    Elect(Outcome),
}

/// How an election has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The state of this server from now on.
    pub(crate) state: State,
    pub(crate) vote: Vote,
    /// True exactly when other servers had decided before, and reported it.
    pub(crate) decided_by_others: bool,
}

/// The election as one server sees it.
///
/// ```text
///   New --look--> Looking --a quorum agrees, or reports a leader--> Decided
///                    ^                                                 |
///                    +------------------- look ------------------------+
/// ```
pub(crate) struct Election {
    own: Sid,
    quorum: Quorum,
    /// The vote of this server for itself, with which it begins a round if it votes.
    claim: Vote,
    /// True exactly when it never votes, even if it is among the voters.
    observes: bool,
    resend_first: Duration,
    resend_last: Duration,
    round: i64,
    phase: Phase,
    /// The last vote of each server that looks for a leader while this one has a leader, and its time.
    early: BTreeMap<Sid, (Duration, Notification)>,
    /// The last answers to servers without a vote, of the last [`RESEND_FIRST`].
    answered: BTreeMap<Sid, Answer>,
}

/// The last message of a server without a vote, the answer to it, and its time.
struct Answer {
    question: Notification,
    answer: Notification,
    at: Duration,
}

enum Phase {
    New,
    Looking(Looking),
    Decided(Outcome),
}

struct Looking {
    proposal: Vote,
    /// The last vote of each voter in this round, the own one included.
    received: BTreeMap<Sid, Ballot>,
    /// The last message of each voter that has decided, of any round.
    outside: BTreeMap<Sid, Ballot>,
    /// Time after which the vote is sent again, since it was sent last. ZooKeeper counts from the last message that it received
    /// instead: a server that answers each message could keep it from ever sending its vote to the others.
    interval: Duration,
    resend_at: Duration,
    /// When the proposal is elected; `None` while no quorum agrees with it.
    settled_at: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Ballot {
    state: State,
    vote: Vote,
    version: i32,
}

impl Ballot {
    /// Whether both are for the same leader. Votes of servers that look must agree in everything. Servers that have decided may
    /// have decided in different rounds, and by an earlier transaction (ZOOKEEPER-1732, 1805). The epoch of version 0 has
    /// another meaning than that of later versions.
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
    /// A voter with this last transaction and epoch, or an observer if `own` is not among the voters. The election begins
    /// with [`look`](Self::look).
    pub(crate) fn new(own: Sid, quorum: Quorum, zxid: i64, epoch: i64) -> Self {
        let claim = Vote {
            leader: own,
            zxid,
            round: 0,
            epoch,
        };
        Self {
            own,
            quorum,
            claim,
            observes: false,
            resend_first: RESEND_FIRST,
            resend_last: RESEND_LAST,
            round: 0,
            phase: Phase::New,
            early: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// A server that does not vote, even if the configuration has it as a voter.
    pub(crate) fn observer(own: Sid, quorum: Quorum) -> Self {
        let none = Notification::QUESTION.vote;
        Self {
            observes: true,
            ..Self::new(own, quorum, none.zxid, none.epoch)
        }
    }

    /// Sends the vote again after `first`, then after twice the last interval each time, up to `last`. As in ZooKeeper, the
    /// first interval is `first` even if that is longer than `last`.
    pub(crate) fn resending(mut self, first: Duration, last: Duration) -> Self {
        self.resend_first = first;
        self.resend_last = last;
        self
    }

    /// The round in which this server votes, or has decided.
    pub(crate) fn round(&self) -> i64 {
        self.round
    }

    /// The message with the present state and vote of this server.
    pub(crate) fn current(&self) -> Notification {
        let (state, vote) = match &self.phase {
            Phase::New => (State::Looking, self.initial()),
            Phase::Looking(looking) => (State::Looking, looking.proposal),
            Phase::Decided(outcome) => (outcome.state, outcome.vote),
        };
        Notification {
            state,
            vote,
            version: 2,
        }
    }

    /// Whether the own vote counts.
    fn votes(&self) -> bool {
        !self.observes && self.quorum.is_voter(self.own)
    }

    /// The vote of this server at the beginning of a round.
    fn initial(&self) -> Vote {
        match self.votes() {
            true => self.claim,
            false => Notification::QUESTION.vote,
        }
    }

    /// The ensemble has other voters now, perhaps with or without this server. Returns whether this server must
    /// [`look`](Self::look) for a leader: if it was looking, since votes of servers that left do not count, or if its leader left.
    ///
    /// A leader that is still a voter stays, as in ZooKeeper.
    #[must_use]
    pub(crate) fn reconfigure(&mut self, quorum: Quorum) -> bool {
        self.quorum = quorum;
        self.early.retain(|sid, _| self.quorum.is_voter(*sid));
        let votes = self.votes();
        match &mut self.phase {
            Phase::New => false,
            Phase::Looking(_) => true,
            Phase::Decided(outcome) => {
                outcome.state = state_with(votes, self.own, outcome.vote.leader);
                !self.quorum.is_voter(outcome.vote.leader)
            }
        }
    }

    /// From the next round on, claims to have no data, so that this server is elected only if no other one can be. It has led,
    /// and could not serve.
    pub(crate) fn claim_no_data(&mut self) {
        self.claim.zxid = ZXID_OF_NO_DATA;
        self.claim.epoch = ZXID_OF_NO_DATA >> 32;
    }

    /// When [`on_time`](Self::on_time) must be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Looking(looking) => Some(looking.settled_at.unwrap_or(looking.resend_at)),
            Phase::New | Phase::Decided(_) => None,
        }
    }

    /// There is no leader, or none any more: a new round begins.
    ///
    /// Servers that noticed it earlier have sent their votes already. ZooKeeper drops these votes, and receives them when they
    /// are sent again. Here they count as if they arrived now.
    pub(crate) fn look(&mut self, now: Duration, actions: &mut Vec<Action>) {
        // Another server may claim any round, `i64::MAX` included.
        self.round = self.round.saturating_add(1);
        self.phase = Phase::Looking(Looking {
            proposal: self.initial(),
            received: BTreeMap::new(),
            outside: BTreeMap::new(),
            interval: self.resend_first,
            resend_at: now,
            settled_at: None,
        });
        self.propose(now, self.initial(), actions);
        self.review(now);
        for (from, (at, message)) in std::mem::take(&mut self.early) {
            if now.saturating_sub(at) <= EARLY_MAX {
                self.on_vote(now, from, message, actions);
            }
        }
    }

    /// The link to a server has ended. Its early vote is forgotten: its process may have ended. A process that runs sends the vote
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
            // Sends to linked servers, and dials the others. A vote that waits in an outbox is superseded by itself. ZooKeeper
            // does one of both, depending on what is undelivered.
            self.send_to_all(actions);
            actions.push(Action::Connect);
        }
    }

    /// A message of a server has arrived.
    pub(crate) fn on_notification(
        &mut self,
        now: Duration,
        from: Sid,
        message: Notification,
        actions: &mut Vec<Action>,
    ) {
        let looks = message.state == State::Looking;
        let is_voter = self.quorum.is_voter(from);
        let owes_answer = match self.phase {
            // An observer, or a server that wants to join: answered, and not counted.
            _ if !is_voter => true,
            Phase::New | Phase::Looking(_) => message.vote.round < self.round,
            Phase::Decided(_) => true,
        };
        // Only servers that look are answered, and only by voters. ZooKeeper is less strict: there, an observer in a later round
        // and a voter that does not enter that round answer each other without a pause.
        let owes_answer = owes_answer && looks && self.votes();
        if owes_answer && (is_voter || self.is_new(now, from, message)) {
            actions.push(Action::Send(from, self.current()));
        }
        if !is_voter || message.is_question() || !self.quorum.is_voter(message.vote.leader) {
            return;
        }
        let Phase::Looking(_) = self.phase else {
            self.on_notification_with_leader(now, from, message);
            return;
        };
        match message.state {
            State::Looking => self.on_vote(now, from, message, actions),
            State::Following | State::Leading => self.on_decision(now, from, message, actions),
            State::Observing => {}
        }
    }

    /// Whether a server without a vote must be answered, since the answer differs from the last one; remembers the answer if so.
    ///
    /// While both look, a real server in a later round answers every answer: the two would send without a pause. A server
    /// whose answer was lost asks again, after [`RESEND_FIRST`] at the earliest.
    fn is_new(&mut self, now: Duration, from: Sid, message: Notification) -> bool {
        let answer = self.current();
        self.answered
            .retain(|_, last| now.saturating_sub(last.at) < RESEND_FIRST);
        let last = self.answered.get(&from);
        if last.is_some_and(|last| last.question == message && last.answer == answer) {
            return false;
        }
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.clear();
        }
        let last = Answer {
            question: message,
            answer,
            at: now,
        };
        self.answered.insert(from, last);
        true
    }

    /// A message of a voter has arrived while this server has a leader.
    fn on_notification_with_leader(&mut self, now: Duration, from: Sid, message: Notification) {
        if message.state == State::Looking {
            self.early.insert(from, (now, message));
            return;
        }
        self.early.remove(&from);
        let Phase::Decided(outcome) = &mut self.phase else {
            return;
        };
        let vote = &mut outcome.vote;
        let is_leader = message.state == State::Leading && from == message.vote.leader;
        if is_leader && from == vote.leader {
            // The leader has begun a new epoch since. A server that comes late compares the epochs in all answers.
            vote.epoch = vote.epoch.max(message.vote.epoch);
        }
    }

    /// A vote of another server that looks.
    fn on_vote(
        &mut self,
        now: Duration,
        from: Sid,
        message: Notification,
        actions: &mut Vec<Action>,
    ) {
        let vote = message.vote;
        if self.initial().zxid == ZXID_OF_LOST_DATA || vote.zxid == ZXID_OF_LOST_DATA {
            return;
        }
        let initial = self.initial();
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        if vote.round < self.round {
            return;
        }
        if vote.round > self.round {
            self.round = vote.round;
            looking.received.clear();
            let proposal = self.better(vote, initial).unwrap_or(initial);
            self.propose(now, proposal, actions);
        } else {
            let proposal = looking.proposal;
            if let Some(better) = self.better(vote, proposal) {
                self.propose(now, better, actions);
            }
        }
        self.record(from, message);
        self.review(now);
    }

    /// A message of another server that has a leader.
    fn on_decision(
        &mut self,
        now: Duration,
        from: Sid,
        message: Notification,
        actions: &mut Vec<Action>,
    ) {
        let Notification {
            state,
            vote,
            version,
        } = message;
        let ballot = Ballot {
            state,
            vote,
            version,
        };
        if vote.round == self.round {
            self.record(from, message);
        }
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        looking.outside.insert(from, ballot);
        let Phase::Looking(looking) = &self.phase else {
            return;
        };
        let is_decided = |ballots: &BTreeMap<Sid, Ballot>| {
            self.quorum.is_met_by(&agreeing_voters(ballots, &ballot))
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

    /// Whether the leader itself reports that it leads. Without that, its followers may not have noticed that it stopped leading
    /// (ZOOKEEPER-1514).
    fn leads(&self, ballots: &BTreeMap<Sid, Ballot>, leader: Sid, round: i64) -> bool {
        if leader == self.own && self.votes() {
            return round == self.round;
        }
        let own_ballot = ballots.get(&leader);
        own_ballot.is_some_and(|ballot| ballot.state == State::Leading)
    }

    /// `new`, if it beats `current`: by the later epoch, then the later transaction, then the larger sid.
    fn better(&self, new: Vote, current: Vote) -> Option<Vote> {
        let rank = |vote: Vote| (vote.epoch, vote.zxid, vote.leader);
        (self.quorum.has_weight(new.leader) && rank(new) > rank(current)).then_some(new)
    }

    /// Makes a vote the own one, and sends it to all.
    fn propose(&mut self, now: Duration, vote: Vote, actions: &mut Vec<Action>) {
        let votes = self.votes();
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let vote = Vote {
            round: self.round,
            ..vote
        };
        looking.proposal = vote;
        looking.resend_at = now + looking.interval;
        if votes {
            let ballot = Ballot {
                state: State::Looking,
                vote,
                version: 0,
            };
            looking.received.insert(self.own, ballot);
        }
        actions.push(Action::Propose(vote));
        self.send_to_all(actions);
    }

    fn send_to_all(&self, actions: &mut Vec<Action>) {
        let others = self.quorum.voters().filter(|sid| *sid != self.own);
        actions.extend(others.map(|sid| Action::Send(sid, self.current())));
    }

    fn record(&mut self, from: Sid, message: Notification) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let ballot = Ballot {
            state: message.state,
            vote: message.vote,
            // As in ZooKeeper, so that a decision of the own round is compared by its leader alone.
            version: 0,
        };
        looking.received.insert(from, ballot);
    }

    /// A vote was counted: if a quorum agrees now, starts the wait for a better vote.
    ///
    /// ZooKeeper drops votes that arrive during this wait, unless they are better. Here they count.
    fn review(&mut self, now: Duration) {
        let Phase::Looking(looking) = &mut self.phase else {
            return;
        };
        let ours = Ballot {
            state: State::Looking,
            vote: looking.proposal,
            version: 0,
        };
        let agree = agreeing_voters(&looking.received, &ours);
        looking.settled_at = self.quorum.is_met_by(&agree).then_some(now + FINALIZE_WAIT);
    }

    fn decide(&mut self, vote: Vote, decided_by_others: bool, actions: &mut Vec<Action>) {
        let state = state_with(self.votes(), self.own, vote.leader);
        let outcome = Outcome {
            state,
            vote,
            decided_by_others,
        };
        self.phase = Phase::Decided(outcome);
        actions.push(Action::Elect(outcome));
    }
}

/// The state of a server that has this leader.
fn state_with(votes: bool, own: Sid, leader: Sid) -> State {
    match (votes, leader == own) {
        (true, true) => State::Leading,
        (true, false) => State::Following,
        (false, _) => State::Observing,
    }
}

fn agreeing_voters(ballots: &BTreeMap<Sid, Ballot>, with: &Ballot) -> BTreeSet<Sid> {
    let agree = ballots.iter().filter(|(_, ballot)| ballot.agrees(with));
    agree.map(|(sid, _)| *sid).collect()
}
