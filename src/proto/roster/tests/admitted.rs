//! Peers that are not members: observers, and admitted peers.

use super::*;

#[test]
fn an_observer_is_never_dialed() {
    let mut bench = Bench::started(rules());
    bench.initial_message(Sid::OBSERVER, false);
    bench.todo();
    let id = bench.id(Sid(-1));
    bench.roster.initiate(id, bench.now, &mut bench.todo);
    bench.roster.want(id, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
}

#[test]
fn linked_admitted_peer_stays_when_its_dial_fails() {
    let mut bench = Bench::started(Rules {
        admitted_max: 1,
        ..rules()
    });
    bench.initial_message(Sid(3), false);
    let peer = bench.id(Sid(3));
    let key = bench.linked(Sid(3));
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    bench.todo();
    bench.dial_failed(peer);
    assert_eq!((bench.todo(), bench.roster.link(peer)), (vec![], Some(key)));
}

#[test]
fn end_of_a_removed_peers_connection_is_ignored() {
    let mut bench = Bench::started(Rules {
        admitted_max: 1,
        ..rules()
    });
    let (key, _) = bench.initial_message(Sid(3), false);
    let peer = bench.id(Sid(3));
    bench.dial_failed(peer);
    bench.todo();
    bench
        .roster
        .on_down(peer, key, true, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
}
