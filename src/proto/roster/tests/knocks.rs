//! Knocks: when one is sent, believed, and answered by a dial.

use super::*;

#[test]
fn dial_of_a_larger_peer_cancels_the_knock() {
    for (after, late) in [(Duration::ZERO, false), (KNOCK_CROSSING / 2, true)] {
        let mut bench = Bench::started(rules());
        let peer = bench.id(LARGE);
        bench.pass(after);
        let (link, verdict) = bench.initial_message(LARGE, true);
        assert_eq!(verdict, Verdict::Keep(peer));
        let cancel = Action::Cancel { peer, late };
        assert_eq!(bench.todo(), [cancel, up(peer, link)]);
    }
}

#[test]
fn knocks_are_answered_once_per_backoff_step() {
    let mut bench = Bench::on_demand();
    let peer = bench.id(SMALL);
    let mut dials = 0;
    // One knock every millisecond for ten seconds. Every dial fails.
    for _ in 0..10_000 {
        bench.initial_message(SMALL, true);
        bench.pass(Duration::from_millis(1));
        for action in bench.todo() {
            assert_eq!(action, Action::Dial { peer });
            dials += 1;
            bench.dial_failed(peer);
        }
    }
    assert!((5..100).contains(&dials), "{dials} dials in ten seconds");
}

#[test]
fn only_a_knock_that_crossed_the_new_link_is_ignored() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.todo();
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), []);
    bench.begun = Some(bench.now);
    bench.pass(KNOCK_CROSSING);
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), [], "its handshake has taken a second");
    bench.begun = None;
    bench.initial_message(SMALL, true);
    let peer = bench.id(SMALL);
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
}

#[test]
fn knock_moves_an_old_dial_to_the_next_address() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), [], "the dial has crossed the knock");
    bench.pass(KNOCK_CROSSING);
    bench.initial_message(SMALL, false);
    assert_eq!(
        bench.todo(),
        [Action::Resolve { peer }],
        "a stranger can say so too"
    );
    for _ in 0..2 {
        bench.initial_message(SMALL, true);
        assert_eq!(bench.todo(), [Action::TryNextAddress { peer }]);
        bench.initial_message(SMALL, true);
        assert_eq!(bench.todo(), [], "the dial is young again");
        bench.pass(KNOCK_CROSSING);
    }
    let key = bench.linked(SMALL);
    assert_eq!(bench.todo(), [up(peer, key)]);
}

#[test]
fn knock_does_not_move_a_dial_whose_link_was_just_retired() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    let key = bench.linked(SMALL);
    bench.todo();
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    // It is read for long.
    bench.pass(2 * KNOCK_CROSSING);
    bench.roster.on_retired(peer, bench.now);
    bench.down(SMALL, key);
    bench.todo();
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), []);
    bench.pass(KNOCK_CROSSING);
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), [Action::TryNextAddress { peer }]);
}

/// ZooKeeper answers a second knock as well: it closes the link that it has just dialed, and dials another one.
#[test]
fn knock_is_repeated_once_the_peer_had_time_to_dial_back() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    let mut waited = Vec::new();
    for _ in 0..20 {
        bench.roster.on_knocked(peer, bench.now);
        waited.push(bench.next());
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    assert!(
        waited.iter().all(|time| *time >= DIAL_BACK_WAIT),
        "{waited:?}"
    );
    // The backoff grows as after failed dials.
    assert!(waited.iter().any(|time| *time > Duration::from_millis(500)));
    let longest = Duration::from_millis(1050);
    assert!(waited.iter().all(|time| *time <= longest), "{waited:?}");
}

/// As an election does that asks for links whenever it has heard nothing for a while.
#[test]
fn application_that_asks_for_a_link_does_not_repeat_a_knock() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    let connect = |bench: &mut Bench| {
        bench.roster.connect(peer, bench.now, &mut bench.todo);
        bench.todo()
    };
    bench.roster.on_knocked(peer, bench.now);
    assert_eq!(connect(&mut bench), []);
    bench.pass(DIAL_BACK_WAIT - Duration::from_millis(1));
    assert_eq!(connect(&mut bench), []);
    bench.pass(Duration::from_millis(1));
    assert_eq!(connect(&mut bench), [Action::Dial { peer }]);
    // What fails is no knock.
    bench.dial_failed(peer);
    assert_eq!(connect(&mut bench), [Action::Dial { peer }]);
}

/// A knock that fails has not reached the peer, so that nobody dials back.
#[test]
fn knock_that_fails_is_repeated_after_the_backoff() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    bench.dial_failed(peer);
    // The side with the larger sid dials first.
    let (first, last) = (Duration::from_millis(50), Duration::from_millis(100));
    assert!((first..=last).contains(&bench.next()));
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
}

#[test]
fn early_knock_is_answered_after_the_backoff() {
    let mut bench = Bench::on_demand();
    let peer = bench.id(SMALL);
    bench.initial_message(SMALL, true);
    let key = bench.linked(SMALL);
    bench.down(SMALL, key);
    bench.todo();
    assert_eq!(bench.roster.deadline(), None, "nobody wants it");
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), []);
    assert!(bench.next() <= Duration::from_millis(50));
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
}
