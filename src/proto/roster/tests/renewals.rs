//! When a linked peer is dialed anew, because its link may be dead.

use super::*;

#[test]
fn knock_from_elsewhere_does_not_redial_an_active_link() {
    let mut bench = Bench::started(rules());
    bench.initial_message_from(SMALL, ABROAD);
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    bench.todo();
    for _ in 0..200 {
        bench.initial_message_from(SMALL, ABROAD);
        bench.pass(SILENT_AFTER * 9 / 10);
        bench.brought += 1;
    }
    let peer = bench.id(SMALL);
    assert!(!bench.todo().contains(&Action::Dial { peer }));
}

#[test]
fn one_knock_from_another_address_does_not_redial() {
    let mut bench = Bench::started(rules());
    bench.initial_message_from(SMALL, ABROAD);
    bench.linked(SMALL);
    for _ in 0..10 {
        bench.pass(Duration::from_secs(60));
        bench.todo();
        bench.initial_message_from(SMALL, ABROAD);
        assert_eq!(bench.roster.deadline(), None);
    }
}

#[test]
fn peer_without_known_knocks_is_redialed_rarely() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    let dials = bench.knock(ABROAD, Duration::from_secs(300));
    assert!((5..9).contains(&dials.len()), "{dials:?}");
    assert!(dials[0] >= SILENT_AFTER, "it may be back");
    assert!(dials[1] - dials[0] >= UNHEARD_RENEWAL_PAUSE);
}

#[test]
fn knocks_of_a_linked_peer_renew_its_link_rarely() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.pass(KNOCK_CROSSING);
    let dials = bench.knock(1, Duration::from_secs(300));
    assert!(dials[0] < KNOCK_CROSSING / 2, "the peer may be back");
    assert!((7..12).contains(&dials.len()), "{dials:?}");
    let last = dials[dials.len() - 1] - dials[dials.len() - 2];
    assert!(last >= RENEWAL_PAUSE_MAX);
    // A link that ends by itself proves that the knock was right.
    let peer = bench.id(SMALL);
    let link = bench.roster.link(peer).unwrap();
    bench.down(SMALL, link);
    bench.linked(SMALL);
    bench.pass(KNOCK_CROSSING);
    assert_eq!(bench.knock(1, Duration::from_secs(1)).len(), 1);
}

#[test]
fn dial_beside_a_link_ends_when_the_link_brings_bytes() {
    let mut bench = Bench::started(rules());
    let link = bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    for _ in 0..5 {
        bench.initial_message_from(SMALL, ABROAD);
        bench.pass(Duration::from_millis(300));
    }
    let peer = bench.id(SMALL);
    assert!(bench.todo().contains(&Action::Dial { peer }));
    assert!(!bench.roster.is_moot(peer, Brought::Bytes(0), bench.now));
    assert!(bench.roster.is_moot(peer, Brought::Bytes(1), bench.now));
    assert_eq!(
        (bench.roster.link(peer), bench.roster.deadline()),
        (Some(link), None)
    );
    // A dial that the application asks for is not given up.
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
    assert!(!bench.roster.is_moot(peer, Brought::Bytes(2), bench.now));
}

#[test]
fn failed_dial_beside_a_link_is_retried_soon() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    for _ in 0..40 {
        bench.initial_message_from(SMALL, ABROAD);
        bench.pass(Duration::from_millis(300));
    }
    let peer = bench.id(SMALL);
    assert!(bench.todo().contains(&Action::Dial { peer }));
    for _ in 0..5 {
        bench.dial_failed(peer);
        assert!(bench.next() <= bench.roster.rules.backoff_max);
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    // Nobody has knocked for 60 s, so that the knocks no longer cause a dial.
    bench.now += Duration::from_secs(60);
    bench.dial_failed(peer);
    bench.pass(Duration::ZERO);
    assert_eq!((bench.todo(), bench.roster.deadline()), (vec![], None));
}
