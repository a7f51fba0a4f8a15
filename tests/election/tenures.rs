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
    let losses = [
        Loss::Alone,
        Loss::Silent,
        Loss::Resigned,
        Loss::Gone,
        Loss::Unserved,
    ];
    for loss in losses {
        assert!(!loss.to_string().is_empty());
    }
}

const INIT_LIMIT: Duration = Duration::from_secs(10);

/// Hears what servers say to server 3, which leads, each second from one to another.
fn hear_each_second(
    tenure: &mut Tenure,
    seconds: std::ops::Range<u32>,
    says: &[(i64, Notification)],
) -> Result<(), Loss> {
    for second in seconds {
        let now = STEP * second;
        for (from, heard) in says {
            tenure.on_notification(now, Sid(*from), heard)?;
        }
        if tenure.deadline() <= now {
            tenure.on_time(now)?;
        }
    }
    Ok(())
}

#[test]
fn a_leader_whose_followers_do_not_stay_steps_down_after_init_limit() {
    let mut tenure = tenure(3).on_trial(INIT_LIMIT, Duration::ZERO);
    let follows = says(State::Following, 3, 5);
    let leaves = says(State::Looking, 1, 6);
    // They leave, hear that the others follow, and come back; one of them stays.
    let all = [
        (1, leaves),
        (1, follows),
        (2, leaves),
        (2, follows),
        (4, follows),
    ];
    assert_eq!(hear_each_second(&mut tenure, 1..10, &all), Ok(()));
    assert_eq!(tenure.deadline(), INIT_LIMIT);
    assert_eq!(tenure.on_time(INIT_LIMIT), Err(Loss::Unserved));
}

#[test]
fn a_leader_that_loses_its_quorum_later_steps_down_at_once() {
    let mut tenure = tenure(3).on_trial(INIT_LIMIT, Duration::ZERO);
    let all = [1, 2].map(|sid| (sid, says(State::Following, 3, 5)));
    assert_eq!(hear_each_second(&mut tenure, 1..11, &all), Ok(()));
    let leaves = says(State::Looking, 2, 6);
    let heard = tenure.on_notification(INIT_LIMIT, Sid(2), &leaves);
    assert_eq!(heard, Err(Loss::Unserved));
}

#[test]
fn a_leader_whose_followers_stay_leads_on() {
    let mut tenure = tenure(3).on_trial(INIT_LIMIT, Duration::ZERO);
    let follows = says(State::Following, 3, 5);
    let stay = [1, 2].map(|sid| (sid, follows));
    // Two more come and go, and a late vote of its own round, or that of a server that has just started, is no farewell.
    let come_and_go = [4, 5].map(|sid| (sid, says(State::Looking, sid, 6)));
    let harmless = [
        (1, says(State::Looking, 1, 5)),
        (1, says(State::Looking, 1, 1)),
        (2, Notification::QUESTION),
    ];
    let all = [&stay[..], &come_and_go, &harmless].concat();
    assert_eq!(hear_each_second(&mut tenure, 1..60, &all), Ok(()));
}

#[test]
fn a_follower_that_came_back_counts_when_it_has_stayed() {
    let mut tenure = tenure(3).on_trial(INIT_LIMIT, Duration::ZERO);
    let follows = [1, 2, 4].map(|sid| (sid, says(State::Following, 3, 5)));
    assert_eq!(hear_each_second(&mut tenure, 1..20, &follows), Ok(()));
    let leaves = |sid| says(State::Looking, sid, 6);
    assert_eq!(
        tenure.on_notification(STEP * 20, Sid(1), &leaves(1)),
        Ok(())
    );
    // Back for longer than anybody stays who is not served: another one may leave.
    assert_eq!(hear_each_second(&mut tenure, 21..42, &follows), Ok(()));
    assert_eq!(
        tenure.on_notification(STEP * 42, Sid(2), &leaves(2)),
        Ok(())
    );
    assert_eq!(
        tenure.on_notification(STEP * 43, Sid(4), &leaves(4)),
        Err(Loss::Unserved)
    );
}

#[test]
fn a_follower_never_steps_down_for_a_lack_of_followers() {
    let mut tenure = tenure(1).on_trial(INIT_LIMIT, Duration::ZERO);
    let all = [
        (3, says(State::Leading, 3, 5)),
        (2, says(State::Looking, 2, 6)),
    ];
    assert_eq!(hear_each_second(&mut tenure, 1..60, &all), Ok(()));
}

#[test]
fn a_leader_that_is_gone_is_given_up_at_once() {
    let mut tenure = tenure(1);
    assert_eq!(tenure.on_gone(STEP, Sid(2)), Ok(()), "not the leader");
    assert_eq!(tenure.on_gone(STEP, Sid(3)), Err(Loss::Gone));
}

#[test]
fn a_leader_without_a_quorum_that_is_there_resigns_at_once() {
    let mut tenure = tenure(3);
    let follows = says(State::Following, 3, 5);
    assert_eq!(tenure.on_gone(STEP, Sid(1)), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(2)), Ok(()), "three are enough");
    // One of them has started again.
    assert_eq!(tenure.on_notification(STEP, Sid(1), &follows), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(4)), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(5)), Err(Loss::Alone));
}
