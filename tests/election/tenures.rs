//! Whether an elected leader leads still.

use std::time::Duration;

use quorum_cnx::Sid;

use crate::{
    election::Outcome,
    notification::{Notification, State, Vote},
    quorum::Quorum,
    tenure::{Loss, Tenure},
};

const LIMIT: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_secs(1);

const VOTE: Vote = Vote {
    leader: Sid(3),
    zxid: 0,
    round: 5,
    epoch: 0,
};

/// The tenure of server 3 of five, as this one sees it, since time 0.
fn tenure(own: i64) -> Tenure {
    let state = if own == 3 {
        State::Leading
    } else {
        State::Following
    };
    let outcome = Outcome {
        state,
        vote: VOTE,
        was_told: false,
    };
    let quorum = Quorum::majority((1..=5).map(Sid));
    Tenure::new(Sid(own), quorum, outcome, LIMIT, Duration::ZERO)
}

fn says(state: State, leader: i64, round: i64) -> Notification {
    Notification {
        state,
        vote: Vote {
            leader: Sid(leader),
            round,
            ..VOTE
        },
        version: 2,
    }
}

fn sids<const N: usize>(sids: [i64; N]) -> Result<Vec<Sid>, Loss> {
    Ok(sids.map(Sid).to_vec())
}

#[test]
fn a_silent_leader_is_asked_twice_and_then_given_up() {
    let mut tenure = tenure(1);
    for (step, expected) in [
        (1, sids([])),
        (2, sids([3])),
        (3, sids([3])),
        (4, Err(Loss::Silent)),
    ] {
        assert_eq!(tenure.deadline(), STEP * step);
        assert_eq!(
            tenure.on_time(STEP * step - STEP / 2),
            sids([]),
            "too early"
        );
        assert_eq!(tenure.on_time(STEP * step), expected);
    }
}

#[test]
fn a_leader_that_says_so_is_kept() {
    let mut tenure = tenure(1);
    for step in 1..100 {
        let now = STEP * step;
        assert!(tenure.on_time(now).is_ok());
        let word = says(State::Leading, 3, 5);
        assert_eq!(tenure.on_notification(now, Sid(3), &word), Ok(()));
    }
    // What others say, or a question, is no word of the leader.
    let now = STEP * 100;
    for (from, heard) in [
        (2, says(State::Following, 3, 5)),
        (2, says(State::Looking, 2, 6)),
        (3, Notification::QUESTION),
        (3, says(State::Looking, 3, 5)),
    ] {
        assert_eq!(tenure.on_notification(now, Sid(from), &heard), Ok(()));
    }
    assert_eq!(tenure.on_time(STEP * 103), Err(Loss::Silent));
}

#[test]
fn a_leader_that_looks_again_or_follows_has_resigned() {
    for heard in [
        says(State::Looking, 3, 6),
        // It has started again.
        says(State::Looking, 3, 1),
        says(State::Following, 4, 6),
        says(State::Leading, 4, 6),
    ] {
        let heard = tenure(1).on_notification(STEP, Sid(3), &heard);
        assert_eq!(heard, Err(Loss::Resigned));
    }
}

#[test]
fn a_leader_asks_those_who_are_silent_and_resigns_without_a_quorum() {
    let mut tenure = tenure(3);
    let word = says(State::Following, 3, 5);
    assert_eq!(tenure.on_time(STEP), sids([]));
    assert_eq!(tenure.on_time(STEP * 2), sids([1, 2, 4, 5]));
    for from in [1, 2] {
        assert_eq!(tenure.on_notification(STEP * 2, Sid(from), &word), Ok(()));
    }
    assert_eq!(tenure.on_time(STEP * 3), sids([4, 5]));
    assert_eq!(
        tenure.on_time(STEP * 4),
        sids([1, 2, 4, 5]),
        "three are enough"
    );
    let other = says(State::Following, 4, 6);
    for heard in [other, says(State::Looking, 1, 6), Notification::QUESTION] {
        assert_eq!(tenure.on_notification(STEP * 5, Sid(1), &heard), Ok(()));
    }
    assert_eq!(tenure.on_notification(STEP * 5, Sid(2), &word), Ok(()));
    assert_eq!(tenure.on_time(STEP * 6), Err(Loss::Alone));
    for loss in [Loss::Alone, Loss::Silent, Loss::Resigned] {
        assert!(!loss.to_string().is_empty());
    }
}
