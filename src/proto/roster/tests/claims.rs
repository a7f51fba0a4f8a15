//! Which of two connections is the link.

use super::*;

#[test]
fn newer_connection_from_own_address_closes_the_older_first() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    bench.todo();
    let (newer, verdict) = bench.initial_message(LARGE, true);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    let close = close(older, Reason::Replaced);
    assert_eq!(bench.todo(), [close, up(peer, newer)]);
    // The end of the older link is reported late, and changes nothing.
    bench.down(LARGE, older);
    assert_eq!(bench.roster.link(peer), Some(newer));
}

#[test]
fn contender_is_refused_while_the_older_link_lives() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    bench.todo();
    let (stranger, verdict) = bench.initial_message(LARGE, false);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Wait(peer));
    assert_eq!(
        bench.initial_message(LARGE, false).1,
        Verdict::Reject(Reason::ContenderWaiting)
    );
    assert_eq!(bench.todo(), vec![Action::Resolve { peer }; 2]);
    assert_eq!(bench.next(), Duration::from_secs(6));
    assert_eq!(bench.todo(), [close(stranger, Reason::OlderLinkAlive)]);
    assert_eq!(bench.roster.link(peer), Some(older));
}

#[test]
fn claim_from_the_address_of_the_link_replaces_it() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    bench.todo();
    // It may be the peer, behind a proxy that acknowledges data for a machine that is dead.
    let (link, verdict) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    let close = close(older, Reason::Replaced);
    let up = up(peer, link);
    assert_eq!(bench.todo(), [Action::Resolve { peer }, close, up]);
}

#[test]
fn link_from_another_address_is_kept_if_it_brings_bytes() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    let (contender, _) = bench.initial_message_from(LARGE, ABROAD + 1);
    bench.todo();
    for _ in 0..6 {
        bench.brought += 1;
        bench.next();
    }
    assert_eq!(bench.todo(), [close(contender, Reason::OlderLinkAlive)]);
    assert_eq!(bench.roster.link(peer), Some(older));
    assert_eq!(bench.roster.deadline(), None);
}

#[test]
fn silent_link_is_kept_once_its_address_is_known() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    bench.initial_message_from(LARGE, ABROAD + 1);
    let ip = IpAddr::from([10, 0, 0, ABROAD]);
    bench.roster.on_home(peer, ip, bench.now, &mut bench.todo);
    assert_eq!(bench.next(), bench.roster.rules.contender_timeout);
    assert_eq!(bench.roster.link(peer), Some(older));
}

#[test]
fn no_link_counts_as_silent_during_a_lookup() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    bench.initial_message_from(LARGE, ABROAD + 1);
    let (roster, todo) = (&mut bench.roster, &mut bench.todo);
    for _ in 0..100 {
        let at = roster.deadline().unwrap_or(bench.now);
        roster.tick(at, |_, _| Brought::Unclear, todo);
    }
    assert_eq!(roster.link(peer), Some(older));
    assert_eq!(roster.contender(peer), None);
}

#[test]
fn repeated_replacement_of_links_is_reported() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    let mut warned = 0;
    for round in 0..100 {
        bench.initial_message_from(LARGE, 1);
        bench.pass(Duration::from_millis(200));
        let warns = bench.todo().contains(&Action::ReportFlapping {
            peer,
            duplicate: false,
        });
        assert_eq!(warns, round == 4, "round {round}");
        warned += u32::from(warns);
    }
    assert_eq!(warned, 1);
}

#[test]
fn replacement_by_the_application_is_not_reported() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    for _ in 0..100 {
        bench.roster.initiate(peer, bench.now, &mut bench.todo);
        bench.linked(SMALL);
    }
    assert!(!bench.todo().contains(&Action::ReportFlapping {
        peer,
        duplicate: false,
    }));
}

#[test]
fn link_is_retired_before_a_planned_one_replaces_it() {
    let mut bench = Bench::started(rules());
    bench.retires = true;
    // There is no link yet.
    let (older, verdict) = bench.initial_message(LARGE, true);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    bench.todo();
    let (first, verdict) = bench.initial_message(LARGE, true);
    assert_eq!(verdict, Verdict::Retire(peer));
    assert_eq!(bench.todo(), []);
    assert_eq!(bench.roster.renewable(peer), None);
    // The dialer has given up, and tries again.
    let (second, _) = bench.initial_message(LARGE, true);
    let refused = close(first, Reason::Replaced);
    assert_eq!(bench.todo(), [refused]);
    bench.down(LARGE, older);
    assert_eq!(bench.todo(), [up(peer, second)]);
    assert_eq!(bench.roster.renewable(peer), Some(second));
}

#[test]
fn link_that_is_read_slowly_is_retired_in_a_later_try() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    bench.retires = true;
    let (first, _) = bench.initial_message_from(LARGE, ABROAD);
    bench.todo();
    bench.brought += 1;
    assert_eq!(bench.next(), RETIRING_MAX);
    assert_eq!(bench.todo(), [close(first, Reason::HandshakeTimeout)]);
    let (second, _) = bench.initial_message_from(LARGE, ABROAD);
    bench.todo();
    // It is not given up either because the address is known.
    let ip = IpAddr::from([10, 0, 0, ABROAD]);
    bench.roster.on_home(peer, ip, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
    bench.down(LARGE, older);
    assert_eq!(bench.todo(), [up(peer, second)]);
}

#[test]
fn link_that_brings_nothing_while_it_is_retired_is_given_up() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    bench.retires = true;
    let (newer, _) = bench.initial_message(LARGE, true);
    bench.todo();
    assert_eq!(bench.next(), RETIRING_MAX);
    let peer = bench.id(LARGE);
    let closed = close(older, Reason::Replaced);
    assert_eq!(bench.todo(), [closed, up(peer, newer)]);
}

#[test]
fn unplanned_claim_replaces_a_link_that_is_retired() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    bench.retires = true;
    let (waiting, _) = bench.initial_message(LARGE, true);
    bench.todo();
    bench.retires = false;
    let (newer, verdict) = bench.initial_message(LARGE, true);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    let closed = [
        close(older, Reason::Replaced),
        close(waiting, Reason::Replaced),
    ];
    assert_eq!(bench.todo(), [&closed[..], &[up(peer, newer)]].concat());
}

#[test]
fn link_of_a_stranger_does_not_retire_that_of_a_member() {
    let mut bench = Bench::started(rules());
    let (_, _) = bench.initial_message(LARGE, true);
    bench.todo();
    bench.retires = true;
    let peer = bench.id(LARGE);
    assert_eq!(bench.initial_message(LARGE, false).1, Verdict::Wait(peer));
    assert_eq!(bench.todo(), [Action::Resolve { peer }]);
}
