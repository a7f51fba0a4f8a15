//! Tests single cases of an election, among them those of ZooKeeper's own tests, by their names.

use std::time::Duration;

use quorum_cnx::{Sid, ZooCfg};

use crate::{
    election::{
        Action, EARLY_MAX, Election, FINALIZE_WAIT, Outcome, RESEND_FIRST, RESEND_LAST,
        ZXID_OF_NO_DATA,
    },
    notification::{Format, Notification, State, Vote},
    quorum::Quorum,
};

/// One server with a virtual clock.
struct Server {
    election: Election,
    now: Duration,
}

impl Server {
    /// One of `voters` servers, in its first round.
    fn new(own: i64, voters: i64) -> Self {
        Self::with(own, Quorum::majority((1..=voters).map(Sid)), 0, 0)
    }

    fn with(own: i64, quorum: Quorum, zxid: i64, epoch: i64) -> Self {
        let mut server = Self {
            election: Election::new(Sid(own), quorum, zxid, epoch),
            now: Duration::from_secs(1000),
        };
        server.look();
        server
    }

    /// Server 2 of five, which has decided for server 5 in the first round.
    fn follower_of_five() -> Self {
        let mut server = Self::new(2, 5);
        server.receive(5, looking(5, 1));
        server.receive(1, looking(5, 1));
        server.decide();
        server
    }

    fn look(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.election.look(self.now, &mut actions);
        actions
    }

    fn receive(&mut self, from: i64, received: Notification) -> Vec<Action> {
        let mut actions = Vec::new();
        self.election
            .on_notification(self.now, Sid(from), received, &mut actions);
        actions
    }

    /// Advances the clock. Returns the actions meanwhile, and when they came.
    fn advance(&mut self, time: Duration) -> Vec<(Duration, Action)> {
        let (start, end) = (self.now, self.now + time);
        let mut done = Vec::new();
        while let Some(at) = self.election.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut actions = Vec::new();
            self.election.on_time(self.now, &mut actions);
            let since = self.now - start;
            done.extend(actions.into_iter().map(|action| (since, action)));
        }
        self.now = end;
        done
    }

    /// Waits until the server decides, and returns its decision.
    #[track_caller]
    fn decide(&mut self) -> Outcome {
        let done = self.advance(FINALIZE_WAIT);
        match done[..] {
            [(FINALIZE_WAIT, Action::Elect(outcome))] => outcome,
            _ => panic!("{done:?}"),
        }
    }

    #[track_caller]
    fn elects_nobody(&mut self, time: Duration) {
        let done = self.advance(time);
        let is_elected = |(_, done): &(_, Action)| matches!(done, Action::Elect(_));
        assert!(!done.iter().any(is_elected), "{done:?}");
    }

    fn proposal(&self) -> i64 {
        self.election.current().vote.leader.0
    }
}

pub(crate) fn vote(leader: i64, round: i64) -> Vote {
    Vote {
        leader: Sid(leader),
        zxid: 0,
        round,
        epoch: 0,
    }
}

fn notification(state: State, vote: Vote) -> Notification {
    Notification {
        state,
        vote,
        version: 2,
    }
}

pub(crate) fn looking(leader: i64, round: i64) -> Notification {
    notification(State::Looking, vote(leader, round))
}

pub(crate) fn following(leader: i64, round: i64) -> Notification {
    notification(State::Following, vote(leader, round))
}

pub(crate) fn leading(leader: i64, round: i64) -> Notification {
    notification(State::Leading, vote(leader, round))
}

fn elected(actions: &[Action]) -> Option<Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Elect(outcome) => Some(*outcome),
        _ => None,
    })
}

fn send_to_all(sids: &[i64], notification: Notification) -> Vec<Action> {
    let send = |sid: &i64| Action::Send(Sid(*sid), notification);
    sids.iter().map(send).collect()
}

#[test]
fn round_begins_with_the_own_vote_sent_to_all() {
    let mut server = Server::new(2, 3);
    assert_eq!(server.proposal(), 2);
    let mut expected = vec![Action::Propose(vote(2, 2))];
    expected.extend(send_to_all(&[1, 3], looking(2, 2)));
    assert_eq!(server.look(), expected);
}

#[test]
fn better_vote_is_adopted_sent_and_elected() {
    let mut server = Server::new(2, 5);
    let mut expected = vec![Action::Propose(vote(4, 1))];
    expected.extend(send_to_all(&[1, 3, 4, 5], looking(4, 1)));
    assert_eq!(server.receive(4, looking(4, 1)), expected);
    // A worse vote changes nothing.
    assert_eq!(server.receive(3, looking(3, 1)), []);
    assert_eq!(server.proposal(), 4);
    // With the third vote there is a quorum.
    assert_eq!(server.receive(3, looking(4, 1)), []);
    let outcome = server.decide();
    assert_eq!(outcome.state, State::Following);
    assert_eq!(
        (outcome.vote, outcome.decided_by_others),
        (vote(4, 1), false)
    );
    assert_eq!(server.election.deadline(), None);
}

#[test]
fn server_with_a_quorum_of_votes_leads() {
    let mut server = Server::new(3, 3);
    assert_eq!(server.receive(1, looking(3, 1)), []);
    assert_eq!(server.decide().state, State::Leading);
    let alone = &mut Server::new(1, 1);
    assert_eq!(alone.decide().state, State::Leading);
}

#[test]
fn better_vote_counts_until_the_decision() {
    let mut server = Server::new(2, 5);
    server.receive(1, looking(2, 1));
    server.receive(3, looking(2, 1));
    let almost = FINALIZE_WAIT - Duration::from_nanos(1);
    assert_eq!(server.advance(almost), []);
    server.receive(5, looking(5, 1));
    assert_eq!(server.proposal(), 5);
    assert_eq!(server.advance(almost), [], "no quorum for 5 yet");
    server.receive(1, looking(5, 1));
    assert_eq!(server.decide().vote.leader, Sid(5));
}

#[test]
fn each_counted_vote_restarts_the_final_wait() {
    let mut server = Server::new(3, 3);
    server.receive(1, looking(3, 1));
    server.advance(FINALIZE_WAIT / 2);
    server.receive(2, looking(2, 1));
    assert_eq!(server.decide().vote.leader, Sid(3));
}

#[test]
fn quorum_that_is_lost_elects_no_leader() {
    let mut server = Server::new(3, 3);
    server.receive(1, looking(3, 1));
    // Server 1 has restarted, and votes for itself.
    server.receive(1, looking(1, 1));
    server.elects_nobody(FINALIZE_WAIT * 3);
}

#[test]
fn votes_are_ordered_by_epoch_zxid_and_sid() {
    let of = |leader: i64, zxid: i64, epoch: i64| {
        let vote = Vote {
            leader: Sid(leader),
            zxid,
            round: 1,
            epoch,
        };
        notification(State::Looking, vote)
    };
    let own = || Server::with(2, Quorum::majority([1, 2, 3].map(Sid)), 5, 5);
    for (received, wins) in [
        (of(3, 5, 5), true),
        (of(1, 5, 5), false),
        (of(2, 5, 5), false),
        (of(1, 6, 5), true),
        (of(3, 4, 5), false),
        (of(1, 0, 6), true),
        (of(3, i64::MAX, 4), false),
        (of(3, i64::MAX, i64::MIN), false),
        (of(1, i64::MIN, i64::MAX), true),
    ] {
        let mut server = own();
        let before = server.election.current();
        server.receive(received.vote.leader.0, received);
        let expected = if wins { received } else { before };
        assert_eq!(server.election.current(), expected, "{received:?}");
    }
}

#[test]
fn vote_of_an_earlier_round_is_answered_and_not_counted() {
    let mut server = Server::new(3, 3);
    server.look();
    let answer = vec![Action::Send(Sid(1), looking(3, 2))];
    assert_eq!(server.receive(1, looking(3, 1)), answer);
    server.elects_nobody(FINALIZE_WAIT);
}

#[test]
fn vote_of_a_later_round_advances_the_receiver() {
    let mut server = Server::new(2, 3);
    // A vote of the first round does not count in the ninth.
    server.receive(3, looking(3, 1));
    let mut expected = vec![Action::Propose(vote(2, 9))];
    expected.extend(send_to_all(&[1, 3], looking(2, 9)));
    assert_eq!(server.receive(1, looking(1, 9)), expected);
    assert_eq!(server.proposal(), 2, "its own vote, which is better");
    server.receive(1, looking(2, 9));
    assert_eq!(server.decide().vote, vote(2, 9));
    // The last round has no successor, and the server does not panic.
    let mut server = Server::new(2, 3);
    server.receive(1, looking(1, i64::MAX));
    server.look();
    assert_eq!(server.election.round(), i64::MAX);
}

#[test]
fn votes_of_an_earlier_round_are_dropped() {
    let mut server = Server::new(2, 5);
    server.receive(3, looking(3, 1));
    server.receive(4, looking(3, 1));
    server.receive(1, looking(3, 2));
    assert_eq!(server.election.current(), looking(3, 2));
    // Of five, only 1 and 2 itself vote for 3 in the second round.
    server.elects_nobody(FINALIZE_WAIT);
    server.receive(4, looking(3, 2));
    assert_eq!(server.decide().vote, vote(3, 2));
}

#[test]
fn decisions_of_an_earlier_round_are_dropped() {
    let follows = |epoch, round| Vote {
        epoch,
        ..vote(3, round)
    };
    let mut server = Server::new(1, 5);
    server.receive(2, notification(State::Following, follows(1, 1)));
    server.receive(4, notification(State::Following, follows(2, 1)));
    server.receive(5, looking(5, 2));
    // Only the leader has sent a decision of this round. Decisions of other rounds count only if their epochs are equal.
    let actions = server.receive(3, notification(State::Leading, follows(3, 2)));
    assert_eq!(elected(&actions), None);
}

#[test]
fn votes_for_one_leader_agree_only_with_the_same_zxid() {
    let mut server = Server::new(2, 5);
    let further = Vote {
        zxid: 5,
        ..vote(3, 1)
    };
    server.receive(3, notification(State::Looking, further));
    server.receive(1, looking(3, 1));
    server.elects_nobody(FINALIZE_WAIT);
    server.receive(1, notification(State::Looking, further));
    assert_eq!(server.decide().vote, further);
}

#[test]
fn vote_is_resent_at_doubling_intervals() {
    let mut server = Server::new(2, 3);
    let done = server.advance(Duration::from_secs(300));
    let actions = done.iter().filter(|(_, done)| *done == Action::Connect);
    let (mut at, mut interval, mut expected) = (RESEND_FIRST, RESEND_FIRST, Vec::new());
    while at <= Duration::from_secs(300) {
        expected.push(at);
        interval = (interval * 2).min(RESEND_LAST);
        at += interval;
    }
    assert_eq!(actions.map(|(at, _)| *at).collect::<Vec<_>>(), expected);
    assert_eq!(interval, RESEND_LAST);
    let to_all = send_to_all(&[1, 3], looking(2, 1));
    let messages = done.iter().map(|(_, done)| *done);
    let messages: Vec<Action> = messages.filter(|done| *done != Action::Connect).collect();
    assert_eq!(messages, to_all.repeat(expected.len()));
    // A new round starts from the beginning.
    server.look();
    assert_eq!(server.advance(RESEND_FIRST).len(), 3);
}

/// `fastleader.minNotificationInterval` and `fastleader.maxNotificationInterval` of a zoo.cfg.
#[test]
fn vote_is_resent_at_the_configured_intervals() {
    for (first, last, expected) in [
        (3000, 60_000, [3000, 6000, 12_000, 24_000, 48_000, 60_000]),
        (200, 1000, [200, 400, 800, 1000, 1000, 1000]),
        (5000, 1000, [5000, 1000, 1000, 1000, 1000, 1000]),
        (1, 1, [1; 6]),
    ] {
        let [first, last] = [first, last].map(Duration::from_millis);
        let quorum = Quorum::majority((1..=3).map(Sid));
        let mut server = Server {
            election: Election::new(Sid(1), quorum, 0, 0).resending(first, last),
            now: Duration::from_secs(1000),
        };
        // A second round begins with the first interval, too.
        for _round in 0..2 {
            server.look();
            for interval in expected.map(Duration::from_millis) {
                let early = server.advance(interval - Duration::from_nanos(1));
                assert_eq!(early, [], "before {interval:?}");
                assert_eq!(server.advance(Duration::from_nanos(1)).len(), 3);
            }
        }
    }
}

#[test]
fn only_a_new_own_vote_delays_the_resend() {
    let mut server = Server::new(2, 5);
    server.advance(RESEND_FIRST / 2);
    server.receive(1, looking(1, 1));
    server.receive(4, leading(4, 3));
    let actions = server.advance(RESEND_FIRST / 2);
    assert_eq!(actions.len(), 5, "four messages, and a request to link all");
    server.advance(RESEND_FIRST);
    server.receive(3, looking(3, 1));
    assert_eq!(
        server.advance(RESEND_FIRST * 2 - Duration::from_nanos(1)),
        []
    );
    assert_eq!(server.advance(Duration::from_nanos(1)).len(), 5);
}

#[test]
fn server_without_a_zxid_neither_elects_nor_is_elected() {
    let without_data = Vote {
        zxid: -1,
        epoch: 9,
        ..vote(3, 1)
    };
    let mut server = Server::new(2, 3);
    assert_eq!(
        server.receive(3, notification(State::Looking, without_data)),
        []
    );
    assert_eq!(server.proposal(), 2);
    let mut lost = Server::with(2, Quorum::majority([1, 2, 3].map(Sid)), -1, 0);
    assert_eq!(lost.receive(3, looking(3, 1)), []);
    assert_eq!(lost.proposal(), 2);
    // It learns the result from servers that have decided.
    lost.receive(3, leading(3, 4));
    let actions = lost.receive(1, following(3, 4));
    assert_eq!(elected(&actions).unwrap().vote, vote(3, 4));
}

#[test]
fn server_without_data_is_elected_only_as_last_resort() {
    let none = ZXID_OF_NO_DATA;
    let nothing = |leader: i64| {
        let (zxid, epoch) = (none, none >> 32);
        notification(
            State::Looking,
            Vote {
                zxid,
                epoch,
                ..vote(leader, 1)
            },
        )
    };
    let mut server = Server::with(3, Quorum::majority((1..=3).map(Sid)), none, none >> 32);
    server.receive(2, nothing(2));
    assert_eq!(server.proposal(), 3);
    // An empty server that can serve, with a smaller sid.
    server.receive(1, looking(1, 1));
    assert_eq!(server.proposal(), 1);
    // A message of the oldest format has no epoch, and means the same.
    let bytes = nothing(2).write(Format::Bare, "");
    let (read, _) = Notification::read(&bytes).unwrap();
    assert_eq!(read.vote, nothing(2).vote);
}

#[test]
fn server_that_stands_back_votes_as_if_without_data() {
    let mut server = Server::with(3, Quorum::majority((1..=3).map(Sid)), 7, 5);
    server.election.claim_no_data();
    assert_eq!(server.election.current().vote.zxid, 7, "in this round");
    server.look();
    let own = server.election.current().vote;
    assert_eq!((own.leader, own.zxid), (Sid(3), ZXID_OF_NO_DATA));
    server.receive(1, looking(1, 2));
    assert_eq!(server.proposal(), 1);
}

#[test]
fn votes_of_and_for_non_members_do_not_count() {
    let mut server = Server::new(2, 3);
    let answer = vec![Action::Send(Sid(7), looking(2, 1))];
    assert_eq!(server.receive(7, looking(7, 5)), answer);
    // Its votes for members and for later rounds do not count either.
    assert_eq!(server.receive(7, looking(3, 1)), answer);
    assert_eq!(server.receive(7, looking(3, 5)), answer);
    assert_eq!(server.receive(7, Notification::QUESTION), answer);
    // An answer to an answer would never end.
    assert_eq!(
        server.receive(7, notification(State::Observing, vote(3, 1))),
        []
    );
    assert_eq!(server.receive(3, looking(7, 1)), []);
    assert_eq!(server.proposal(), 2);
    assert_eq!(server.election.round(), 1);
    for sid in [3, 1] {
        assert_eq!(server.receive(sid, leading(7, 1)), []);
        assert_eq!(
            server.receive(sid, notification(State::Observing, vote(3, 1))),
            []
        );
    }
    assert_eq!(server.election.current(), looking(2, 1));
}

#[test]
fn answers_to_a_joiner_in_a_later_round_are_limited() {
    let mut server = Server::new(2, 3);
    let answer = |leader| vec![Action::Send(Sid(7), looking(leader, 1))];
    // The joiner answers each answer of an earlier round.
    assert_eq!(server.receive(7, looking(7, 5)), answer(2));
    assert_eq!(server.receive(7, looking(7, 5)), []);
    // It is answered again when the vote has changed, and when it sends its vote again after a while.
    server.receive(3, looking(3, 1));
    assert_eq!(server.receive(7, looking(7, 5)), answer(3));
    server.advance(RESEND_FIRST);
    assert_eq!(server.receive(7, looking(7, 5)).len(), 1);
    // This holds for any number of joiners.
    for joiner in 0..5000 {
        let joiner = Sid(100 + joiner);
        assert_eq!(server.receive(joiner.0, looking(7, 5)).len(), 1);
    }
}

/// Found by a simulation: an observer in a later round than a voter, and each answered the other without end.
#[test]
fn server_without_a_vote_does_not_answer() {
    let mut server = Server::with(9, Quorum::majority([1, 2, 3].map(Sid)), 0, 0);
    server.look();
    assert_eq!(server.receive(1, looking(1, 1)), []);
    server.receive(3, looking(3, 2));
    server.receive(1, looking(3, 2));
    server.decide();
    assert_eq!(server.receive(1, looking(1, 3)), []);
    assert_eq!(server.receive(1, Notification::QUESTION), []);
}

#[test]
fn question_is_always_answered_and_never_counted() {
    let mut server = Server::new(2, 3);
    // The questions of a real observer and of a voter.
    let questions = [Notification::QUESTION, Notification::question(Sid(2))];
    let answer = vec![Action::Send(Sid(1), looking(2, 1))];
    for question in questions {
        assert_eq!(server.receive(1, question), answer);
    }
    server.advance(FINALIZE_WAIT);
    assert_eq!(
        server.election.current(),
        looking(2, 1),
        "a question is no vote"
    );
    server.receive(1, looking(2, 1));
    server.decide();
    let answer = vec![Action::Send(Sid(1), leading(2, 1))];
    for question in questions {
        assert_eq!(server.receive(1, question), answer);
    }
    // A question does not count in the next round either.
    let actions = send_to_all(&[1, 3], looking(2, 2));
    assert_eq!(server.look()[1..], actions);
    assert_eq!(server.election.round(), 2);
}

#[test]
fn decided_server_answers_only_looking_servers() {
    let mut server = Server::new(2, 3);
    server.receive(3, looking(3, 1));
    server.decide();
    let answer = following(3, 1);
    for round in [0, 1, 7] {
        let expected = vec![Action::Send(Sid(1), answer)];
        assert_eq!(server.receive(1, looking(1, round)), expected);
    }
    for state in [State::Following, State::Leading, State::Observing] {
        assert_eq!(server.receive(1, notification(state, vote(1, 7))), []);
    }
    assert_eq!(server.election.current(), answer);
}

#[test]
fn early_vote_counts_when_its_round_begins() {
    let mut server = Server::follower_of_five();
    // The leader dies. These servers notice it earlier. Server 3 follows it again.
    for (from, received) in [
        (4, looking(4, 2)),
        (1, looking(4, 2)),
        (3, looking(4, 2)),
        (3, following(5, 1)),
        (7, looking(7, 2)),
    ] {
        server.receive(from, received);
    }
    let actions = server.look();
    let proposals = actions
        .iter()
        .filter(|done| matches!(done, Action::Propose(_)));
    assert_eq!(proposals.count(), 2, "its own, and the better one");
    assert_eq!(server.decide().vote, vote(4, 2));
    // Votes of an earlier round do not count.
    server.receive(1, looking(1, 1));
    server.look();
    assert_eq!(server.election.current(), looking(2, 3));
    // The votes of 3 and 4 are too old, and no other server looks.
    assert_eq!(server.advance(FINALIZE_WAIT).len(), 5);
}

#[test]
fn early_vote_is_dropped_when_its_sender_has_a_leader() {
    let mut server = Server::follower_of_five();
    server.receive(4, looking(4, 2));
    server.receive(3, looking(4, 2));
    server.receive(3, following(5, 1));
    server.look();
    // Its own vote and that of 4 are two of five.
    assert_eq!(server.election.current(), looking(4, 2));
    assert_eq!(
        server.advance(FINALIZE_WAIT).len(),
        5,
        "resent, and not elected"
    );
}

#[test]
fn early_vote_is_dropped_with_its_link_or_when_old() {
    let elects = |time: Duration, unlinked: &[i64]| {
        let mut server = Server::follower_of_five();
        server.receive(4, looking(4, 2));
        server.receive(3, looking(4, 2));
        for sid in unlinked {
            server.election.on_unlinked(Sid(*sid));
        }
        server.advance(time);
        server.look();
        let done = server.advance(FINALIZE_WAIT);
        let actions: Vec<Action> = done.into_iter().map(|(_, action)| action).collect();
        elected(&actions).is_some()
    };
    assert!(elects(EARLY_MAX, &[1, 5]));
    assert!(!elects(EARLY_MAX, &[3]), "two of five are left");
    assert!(!elects(EARLY_MAX + Duration::from_millis(1), &[]));
}

#[test]
fn new_epoch_of_the_leader_is_sent_to_latecomers() {
    let later = Vote {
        epoch: 7,
        ..vote(3, 1)
    };
    let mut server = Server::new(2, 3);
    server.receive(3, looking(3, 1));
    server.decide();
    // Other servers cannot change the epoch.
    server.receive(1, notification(State::Following, later));
    let another = Vote {
        leader: Sid(1),
        ..later
    };
    server.receive(3, notification(State::Following, another));
    assert_eq!(server.election.current().vote, vote(3, 1));
    server.receive(3, notification(State::Leading, later));
    assert_eq!(
        server.election.current(),
        notification(State::Following, later)
    );
}

#[test]
fn latecomer_follows_a_confirmed_leader_with_a_quorum() {
    let mut server = Server::new(1, 5);
    let later = following(3, 6);
    assert_eq!(server.receive(2, later), []);
    assert_eq!(server.receive(4, later), []);
    assert_eq!(
        server.receive(5, later),
        [],
        "the leader has not confirmed it"
    );
    let actions = server.receive(3, leading(3, 6));
    let outcome = elected(&actions).unwrap();
    assert_eq!(
        (outcome.state, outcome.decided_by_others),
        (State::Following, true)
    );
    assert_eq!(outcome.vote, vote(3, 6));
    assert_eq!(server.election.round(), 6);
}

#[test]
fn a_leader_without_a_quorum_is_not_followed() {
    let mut server = Server::new(1, 5);
    assert_eq!(server.receive(3, leading(3, 6)), []);
    assert_eq!(server.receive(2, following(3, 6)), []);
    assert_eq!(server.receive(4, following(5, 6)), []);
    assert_eq!(server.election.current(), looking(1, 1));
    assert!(elected(&server.receive(5, following(3, 6))).is_some());
}

#[test]
fn followers_agree_by_leader_and_epoch_only() {
    let is_elected = |epochs: [i64; 3], versions: [i32; 3]| {
        let mut server = Server::new(1, 5);
        let mut outcome = None;
        for (at, sid) in [2, 4, 3].into_iter().enumerate() {
            let vote = Vote {
                leader: Sid(3),
                zxid: at as i64,
                round: 4 + at as i64,
                epoch: epochs[at],
            };
            let state = if sid == 3 {
                State::Leading
            } else {
                State::Following
            };
            let received = Notification {
                state,
                vote,
                version: versions[at],
            };
            outcome = elected(&server.receive(sid, received));
        }
        outcome.is_some()
    };
    assert!(is_elected([2, 2, 2], [2, 1, 2]));
    assert!(!is_elected([1, 2, 2], [2, 2, 2]));
    // A notification of version 0 has the epoch from before the election.
    assert!(is_elected([1, 2, 2], [0, 2, 2]));
    assert!(!is_elected([1, 1, 2], [0, 0, 0]));
}

#[test]
fn decision_of_the_own_round_counts_as_a_vote() {
    let mut server = Server::new(1, 5);
    server.receive(4, looking(4, 1));
    server.receive(3, looking(4, 1));
    // With its own vote and the vote of 3, which is looking, this is a quorum.
    let actions = server.receive(4, leading(4, 1));
    assert_eq!(elected(&actions).unwrap().vote, vote(4, 1));
    // In another round it is not a quorum.
    let mut server = Server::new(1, 5);
    server.receive(4, looking(4, 1));
    server.receive(3, looking(4, 1));
    server.advance(FINALIZE_WAIT / 2);
    let actions = server.receive(4, leading(4, 2));
    assert_eq!(elected(&actions), None);
}

#[test]
fn an_observer_follows_without_a_vote() {
    let quorum = Quorum::majority([1, 2, 3].map(Sid));
    let mut server = Server::with(9, quorum.clone(), 77, 7);
    assert_eq!(server.election.current().vote.leader, Sid(i64::MIN));
    server.receive(3, looking(3, 1));
    server.receive(1, looking(3, 1));
    assert_eq!(server.decide().state, State::Observing);
    // A voter that runs as an observer, whose vote the quorum lacks.
    let mut silent = Server {
        election: Election::observer(Sid(3), quorum),
        now: Duration::ZERO,
    };
    silent.look();
    silent.receive(2, looking(2, 1));
    silent.receive(1, looking(2, 1));
    assert_eq!(silent.decide().state, State::Observing);
    silent.look();
    silent.receive(2, following(3, 1));
    let actions = silent.receive(1, following(3, 1));
    assert_eq!(elected(&actions), None, "an observer does not lead");
}

#[test]
fn server_without_weight_is_not_elected() {
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\ngroup.1=1:2:3\nweight.3=0";
    let quorum = Quorum::of(&ZooCfg::parse(text).unwrap()).unwrap();
    let mut server = Server::with(1, quorum, 0, 0);
    assert_eq!(server.receive(3, looking(3, 1)), []);
    assert_eq!(server.proposal(), 1);
    server.receive(2, looking(2, 1));
    assert_eq!(server.proposal(), 2);
    assert_eq!(
        server.decide().vote.leader,
        Sid(2),
        "1 and 2 have all the weight"
    );
}

/// A server looks. Before it resends its vote, it learns that another server already follows it.
#[test]
fn fle_lost_message() {
    let mut server = Server::new(2, 3);
    server.receive(1, looking(1, 1));
    let actions = server.receive(1, following(2, 1));
    assert_eq!(elected(&actions).unwrap().state, State::Leading);
}

/// Two servers follow this one in round 1, so that it leads. In the next round the same old messages must not make it lead.
#[test]
fn fle_backward_election_round() {
    let mut server = Server::new(3, 3);
    let old = following(3, 1);
    assert!(elected(&server.receive(1, old)).is_some());
    server.look();
    assert_eq!(server.receive(1, old), []);
    assert_eq!(server.receive(2, old), []);
    assert_eq!(server.election.current(), looking(3, 2));
}

/// After any messages, a server that then receives a quorum of votes elects.
#[test]
fn quorum_elects_a_leader_after_any_messages() {
    use proptest::prelude::*;
    let numbers = || prop_oneof![Just(i64::MIN), Just(-1), Just(i64::MAX), -2_i64..6];
    let states = (0_usize..4).prop_map(|at| {
        [
            State::Looking,
            State::Following,
            State::Leading,
            State::Observing,
        ][at]
    });
    let message = (
        0_i64..5,
        states,
        [numbers(), numbers(), numbers(), numbers()],
        -1_i32..4,
    );
    let messages = proptest::collection::vec(message, 0..60);
    proptest!(|(messages in messages)| {
        let mut server = Server::new(2, 3);
        for (from, state, [leader, zxid, round, epoch], version) in messages {
            let vote = Vote { leader: Sid(leader), zxid, round, epoch };
            server.receive(from, Notification { state, vote, version });
            server.advance(Duration::from_millis(10));
        }
        // A quorum votes as it does. If it has decided, it begins a new round first.
        if server.election.current().state != State::Looking {
            server.look();
        }
        let current = server.election.current();
        let mut outcome = elected(&server.receive(1, current));
        outcome = outcome.or_else(|| elected(&server.receive(3, current)));
        prop_assume!(current.vote.zxid != -1);
        let done = server.advance(FINALIZE_WAIT);
        let later = done.iter().find_map(|(_, action)| elected(&[*action]));
        prop_assert_eq!(outcome.or(later).map(|outcome| outcome.vote), Some(current.vote));
    });
}

fn majority<const N: usize>(sids: [i64; N]) -> Quorum {
    Quorum::majority(sids.map(Sid))
}

#[test]
fn leader_that_stays_is_kept_by_new_voters() {
    let mut server = Server::follower_of_five();
    assert!(!server.election.reconfigure(majority([2, 4, 5, 6])));
    assert_eq!(server.election.current().state, State::Following);
    // The next election is that of the new voters: 1 and 3 do not count, and 6 does.
    server.look();
    let round = server.election.round();
    server.receive(6, looking(6, round));
    assert_eq!(server.proposal(), 6);
    server.receive(1, looking(6, round));
    server.receive(3, looking(6, round));
    server.elects_nobody(FINALIZE_WAIT);
    server.receive(4, looking(6, round));
    assert_eq!(server.decide().vote.leader, Sid(6));
}

#[test]
fn leader_that_is_removed_is_lost() {
    let mut server = Server::follower_of_five();
    assert!(server.election.reconfigure(majority([1, 2, 3])));
    // So is an election among voters of which some are removed: their votes do not count any more.
    let mut server = Server::new(2, 5);
    server.receive(4, looking(5, 1));
    assert!(server.election.reconfigure(majority([1, 2, 3])));
    let actions = server.look();
    assert_eq!(
        actions[1..],
        send_to_all(&[1, 3], looking(2, server.election.round()))
    );
}

#[test]
fn removed_server_goes_on_without_a_vote_until_it_is_added_again() {
    let mut server = Server::follower_of_five();
    assert!(!server.election.reconfigure(majority([3, 4, 5])));
    assert_eq!(server.election.current().state, State::Observing);
    let asks = |action: &Action| matches!(action, Action::Send(Sid(5), sent) if sent.is_question());
    assert!(server.look().iter().any(asks));
    // The own vote, and those of 1 and 2, which left, do not count.
    let round = server.election.round();
    server.receive(3, looking(5, round));
    server.receive(1, looking(5, round));
    server.elects_nobody(FINALIZE_WAIT);
    assert!(server.election.reconfigure(majority([2, 3, 5])));
    let actions = server.look();
    let own = looking(2, server.election.round());
    assert!(actions.contains(&Action::Send(Sid(5), own)));
}

#[test]
fn early_vote_of_a_removed_server_does_not_count() {
    let mut server = Server::follower_of_five();
    server.receive(4, looking(4, 2));
    assert!(!server.election.reconfigure(majority([1, 2, 5])));
    server.look();
    assert_eq!(server.proposal(), 2);
}
