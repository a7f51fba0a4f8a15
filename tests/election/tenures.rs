//! Tests how long an elected leader is kept.

use std::time::Duration;

use quorum_cnx::Sid;

use crate::{
    cases::{following, leading, looking, vote},
    election::Outcome,
    notification::{Notification, State},
    quorum::Quorum,
    tenure::{Loss, Tenure},
};

const LIMIT: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_secs(1);

/// The tenure of server 3 of five, which begins at time 0, as server `own` sees it.
fn tenure(own: i64) -> Tenure {
    let outcome = Outcome {
        state: if own == 3 {
            State::Leading
        } else {
            State::Following
        },
        vote: vote(3, 5),
        decided_by_others: false,
    };
    let quorum = Quorum::majority((1..=5).map(Sid));
    Tenure::new(Sid(own), quorum, outcome, LIMIT, Duration::ZERO)
}

fn sids<const N: usize>(sids: [i64; N]) -> Result<Vec<Sid>, Loss> {
    Ok(sids.map(Sid).to_vec())
}

#[test]
fn silent_leader_is_given_up_after_two_questions() {
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
fn leader_that_confirms_itself_is_kept() {
    let mut tenure = tenure(1);
    for step in 1..100 {
        let now = STEP * step;
        assert!(tenure.on_time(now).is_ok());
        let reply = leading(3, 5);
        assert_eq!(tenure.on_notification(now, Sid(3), &reply), Ok(()));
    }
    // Messages of others, questions, and old votes do not prove that the leader leads.
    let now = STEP * 100;
    for (from, received) in [
        (2, following(3, 5)),
        (2, looking(2, 6)),
        (3, Notification::QUESTION),
        (3, looking(3, 5)),
    ] {
        assert_eq!(tenure.on_notification(now, Sid(from), &received), Ok(()));
    }
    assert_eq!(tenure.on_time(STEP * 103), Err(Loss::Silent));
}

#[test]
fn leader_that_looks_or_follows_has_resigned() {
    for received in [
        looking(3, 6),
        // It has restarted.
        looking(3, 1),
        following(4, 6),
        leading(4, 6),
    ] {
        let received = tenure(1).on_notification(STEP, Sid(3), &received);
        assert_eq!(received, Err(Loss::Resigned));
    }
}

#[test]
fn leader_asks_silent_followers_and_needs_a_quorum() {
    let mut tenure = tenure(3);
    let reply = following(3, 5);
    assert_eq!(tenure.on_time(STEP), sids([]));
    assert_eq!(tenure.on_time(STEP * 2), sids([1, 2, 4, 5]));
    for from in [1, 2] {
        assert_eq!(tenure.on_notification(STEP * 2, Sid(from), &reply), Ok(()));
    }
    assert_eq!(tenure.on_time(STEP * 3), sids([4, 5]));
    assert_eq!(
        tenure.on_time(STEP * 4),
        sids([1, 2, 4, 5]),
        "three are enough"
    );
    let other = following(4, 6);
    for received in [other, looking(1, 6), Notification::QUESTION] {
        assert_eq!(tenure.on_notification(STEP * 5, Sid(1), &received), Ok(()));
    }
    assert_eq!(tenure.on_notification(STEP * 5, Sid(2), &reply), Ok(()));
    assert_eq!(tenure.on_time(STEP * 6), Err(Loss::Alone));
    let losses = [
        Loss::Alone,
        Loss::Silent,
        Loss::Resigned,
        Loss::Gone,
        Loss::FollowersLeft,
    ];
    for loss in losses {
        assert!(!loss.to_string().is_empty());
    }
}

const INIT_LIMIT: Duration = Duration::from_secs(10);

/// Server 3, the leader, receives these notifications in each of these seconds.
fn receive_each_second(
    tenure: &mut Tenure,
    seconds: std::ops::Range<u32>,
    notification: &[(i64, Notification)],
) -> Result<(), Loss> {
    for second in seconds {
        let now = STEP * second;
        for (from, received) in notification {
            tenure.on_notification(now, Sid(*from), received)?;
        }
        if tenure.deadline() <= now {
            tenure.on_time(now)?;
        }
    }
    Ok(())
}

#[test]
fn leader_whose_followers_leave_resigns_after_init_limit() {
    let mut tenure = tenure(3).with_trial(INIT_LIMIT, Duration::ZERO);
    let follows = following(3, 5);
    let leaves = looking(1, 6);
    // Two leave and come back again and again; one stays.
    let all = [
        (1, leaves),
        (1, follows),
        (2, leaves),
        (2, follows),
        (4, follows),
    ];
    assert_eq!(receive_each_second(&mut tenure, 1..10, &all), Ok(()));
    assert_eq!(tenure.deadline(), INIT_LIMIT);
    assert_eq!(tenure.on_time(INIT_LIMIT), Err(Loss::FollowersLeft));
}

#[test]
fn leader_that_loses_its_quorum_later_resigns_at_once() {
    let mut tenure = tenure(3).with_trial(INIT_LIMIT, Duration::ZERO);
    let all = [1, 2].map(|sid| (sid, following(3, 5)));
    assert_eq!(receive_each_second(&mut tenure, 1..11, &all), Ok(()));
    let leaves = looking(2, 6);
    let received = tenure.on_notification(INIT_LIMIT, Sid(2), &leaves);
    assert_eq!(received, Err(Loss::FollowersLeft));
}

#[test]
fn leader_whose_followers_stay_keeps_leading() {
    let mut tenure = tenure(3).with_trial(INIT_LIMIT, Duration::ZERO);
    let follows = following(3, 5);
    let stay = [1, 2].map(|sid| (sid, follows));
    // Two more come and go. A late vote of the same round, or a vote of a server that has just started, does not mean that it leaves.
    let come_and_go = [4, 5].map(|sid| (sid, looking(sid, 6)));
    let harmless = [
        (1, looking(1, 5)),
        (1, looking(1, 1)),
        (2, Notification::QUESTION),
    ];
    let all = [&stay[..], &come_and_go, &harmless].concat();
    assert_eq!(receive_each_second(&mut tenure, 1..60, &all), Ok(()));
}

#[test]
fn returned_follower_counts_after_it_has_stayed() {
    let mut tenure = tenure(3).with_trial(INIT_LIMIT, Duration::ZERO);
    let follows = [1, 2, 4].map(|sid| (sid, following(3, 5)));
    assert_eq!(receive_each_second(&mut tenure, 1..20, &follows), Ok(()));
    let leaves = |sid| looking(sid, 6);
    assert_eq!(
        tenure.on_notification(STEP * 20, Sid(1), &leaves(1)),
        Ok(())
    );
    // It is back for longer than a server without a leader would stay. So another one may leave.
    assert_eq!(receive_each_second(&mut tenure, 21..42, &follows), Ok(()));
    assert_eq!(
        tenure.on_notification(STEP * 42, Sid(2), &leaves(2)),
        Ok(())
    );
    assert_eq!(
        tenure.on_notification(STEP * 43, Sid(4), &leaves(4)),
        Err(Loss::FollowersLeft)
    );
}

#[test]
fn follower_needs_no_followers() {
    let mut tenure = tenure(1).with_trial(INIT_LIMIT, Duration::ZERO);
    let all = [(3, leading(3, 5)), (2, looking(2, 6))];
    assert_eq!(receive_each_second(&mut tenure, 1..60, &all), Ok(()));
}

#[test]
fn unreachable_leader_is_given_up_at_once() {
    let mut tenure = tenure(1);
    assert_eq!(tenure.on_gone(STEP, Sid(2)), Ok(()), "not the leader");
    assert_eq!(tenure.on_gone(STEP, Sid(3)), Err(Loss::Gone));
}

#[test]
fn leader_without_a_reachable_quorum_resigns_at_once() {
    let mut tenure = tenure(3);
    let follows = following(3, 5);
    assert_eq!(tenure.on_gone(STEP, Sid(1)), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(2)), Ok(()), "three are enough");
    // One of them has restarted.
    assert_eq!(tenure.on_notification(STEP, Sid(1), &follows), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(4)), Ok(()));
    assert_eq!(tenure.on_gone(STEP, Sid(5)), Err(Loss::Alone));
}

#[test]
fn leader_needs_a_quorum_of_the_new_voters() {
    let mut tenure = tenure(3);
    for sid in [1, 2] {
        assert_eq!(
            tenure.on_notification(STEP, Sid(sid), &following(3, 5)),
            Ok(())
        );
    }
    // 6 and 7 have joined, and have the whole limit to report. 1 and 2 keep the times of their reports.
    tenure.reconfigure(Quorum::majority([1, 2, 3, 6, 7].map(Sid)), STEP * 2);
    assert_eq!(tenure.on_time(STEP * 3), sids([1, 2]));
    assert_eq!(tenure.on_time(STEP * 4), sids([1, 2, 6, 7]));
    // 6 and 7 were silent, 1 and 2 are still there: three of five.
    assert_eq!(tenure.on_time(STEP * 5), sids([1, 2, 6, 7]));
    assert_eq!(tenure.on_time(STEP * 6), Err(Loss::Alone));
}

#[test]
fn report_of_a_removed_follower_does_not_count() {
    let mut tenure = tenure(3);
    tenure.reconfigure(Quorum::majority([1, 2, 3].map(Sid)), STEP);
    for sid in [4, 5] {
        assert_eq!(
            tenure.on_notification(STEP * 3, Sid(sid), &following(3, 5)),
            Ok(())
        );
    }
    assert_eq!(tenure.on_time(STEP * 4), Err(Loss::Alone));
}
