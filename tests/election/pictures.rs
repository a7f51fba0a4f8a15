//! Tests the SVG picture of an election.

use std::time::Duration;

use quorum_cnx::Sid;

use crate::{
    election::Outcome,
    notification::{Notification, State, Vote},
    timeline::{Entry, Fact, Timeline},
};

const VOTE: Vote = Vote {
    leader: Sid(2),
    zxid: 7,
    round: 1,
    epoch: 0,
};

fn entry(at: u64, own: i64, fact: Fact) -> Entry {
    Entry {
        at: Duration::from_micros(at),
        own: Sid(own),
        fact,
    }
}

/// Servers 1 and 2 run in this process, server 3 does not. Server 1 sends twice to server 2, and the first message is replaced.
/// Server 3 receives a vote and answers.
fn election() -> Vec<Entry> {
    let notification = |state| Notification {
        state,
        vote: VOTE,
        version: 2,
    };
    let (looking, leading) = (notification(State::Looking), notification(State::Leading));
    let early = Notification {
        vote: Vote {
            leader: Sid(1),
            ..VOTE
        },
        ..looking
    };
    let elected = |state| {
        Fact::Elected(Outcome {
            state,
            vote: VOTE,
            decided_by_others: false,
        })
    };
    vec![
        entry(0, 1, Fact::Looking { round: 1 }),
        entry(5, 2, Fact::Looking { round: 1 }),
        entry(10, 1, Fact::Vote(early.vote)),
        entry(11, 2, Fact::Vote(VOTE)),
        entry(20, 1, Fact::Sent(Sid(2), early)),
        entry(21, 1, Fact::Sent(Sid(2), looking)),
        entry(22, 1, Fact::Sent(Sid(3), looking)),
        entry(23, 1, Fact::Sent(Sid(3), Notification::QUESTION)),
        entry(60, 2, Fact::Received(Sid(1), looking)),
        entry(70, 2, Fact::Received(Sid(3), leading)),
        entry(200_070, 2, elected(State::Leading)),
        entry(200_080, 1, elected(State::Following)),
    ]
}

fn timeline() -> Timeline {
    Timeline::new([1, 2].map(Sid), [1, 2, 3].map(Sid))
}

#[test]
fn picture_is_complete_when_all_own_servers_have_a_leader() {
    let mut timeline = timeline();
    let entries = election();
    let ends: Vec<bool> = entries.iter().map(|entry| timeline.push(*entry)).collect();
    assert_eq!(ends.iter().filter(|end| **end).count(), 1);
    assert!(ends.ends_with(&[true]) && timeline.was_over());
    assert!(timeline.draw().contains("Round 1: server 2 is elected"));
    assert!(!timeline.push(entry(300_000, 1, Fact::Looking { round: 2 })));
    let next = timeline.draw();
    assert!(next.contains("An election that is not over") && !next.contains("LEADING"));
}

#[test]
fn messages_are_arrows_and_replaced_ones_end_in_a_cross() {
    let mut timeline = timeline();
    for entry in election() {
        timeline.push(entry);
    }
    let picture = timeline.draw();
    let count = |what: &str| picture.matches(what).count();
    assert_eq!(count("<title>"), 4, "a question is not drawn: {picture}");
    assert_eq!(count("1 to 2: looking 2, round 1, zxid 0x7, epoch 0"), 1);
    assert_eq!(count("3 to 2: leading 2"), 1);
    assert_eq!(count("stroke-dasharray"), 1);
    assert_eq!(count("m0 -8"), 1, "one cross");
    assert_eq!(count("fill=\"white\" stroke=\"#"), 1, "an end not seen");
    assert_eq!(count("ms: no better vote arrives"), 1);
    assert_eq!(count(">server "), 3);
    assert_eq!((count("LEADING"), count("following 2")), (1, 1));
}

/// Every element is closed, in the right order.
#[test]
fn the_picture_is_well_formed() {
    let mut whole = timeline();
    for entry in election() {
        whole.push(entry);
    }
    for picture in [whole.draw(), timeline().draw()] {
        let mut open = Vec::new();
        for element in picture.split('<').skip(1) {
            let (tag, _) = element.split_once('>').expect("a tag ends");
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
