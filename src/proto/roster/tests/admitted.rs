//! Peers that are not members: observers, admitted peers, and those that are refused.

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
    bench
        .roster
        .on_dial_failed(peer, bench.now, &mut bench.todo);
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
    bench
        .roster
        .on_dial_failed(peer, bench.now, &mut bench.todo);
    bench.todo();
    bench
        .roster
        .on_down(peer, key, true, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
}

#[test]
fn own_and_unknown_sids_are_refused_and_leave_no_state() {
    let mut bench = Bench::started(rules());
    assert_eq!(
        bench.initial_message(OWN, true).1,
        Verdict::Reject(Reason::OwnSid)
    );
    for sid in [0, 3, 6, 77, i64::MAX - 1, -1, -65_534, i64::MIN] {
        let reason = Reason::UnknownSid(Sid(sid));
        assert_eq!(
            bench.initial_message(Sid(sid), false).1,
            Verdict::Reject(reason)
        );
    }
    assert_eq!(bench.todo(), []);
    assert_eq!(bench.roster.peers.len(), 2);
}

#[test]
fn observers_get_negative_sids_up_to_a_limit() {
    let mut bench = Bench::started(rules());
    let (first, _) = bench.initial_message(Sid::OBSERVER, false);
    bench.initial_message(Sid::OBSERVER, false);
    let id = bench.id(Sid(-1));
    let meet = Action::PeerAdded {
        peer: id,
        sid: Sid(-1),
    };
    assert_eq!(
        bench.todo()[..2],
        [
            meet,
            Action::Up {
                peer: id,
                link: first
            }
        ]
    );
    assert!(bench.roster.find(Sid(-2)).is_some());
    let full = Verdict::Reject(Reason::ObserversFull);
    assert_eq!(bench.initial_message(Sid::OBSERVER, false).1, full);
    bench.down(Sid(-1), first);
    assert_eq!(bench.todo(), [Action::PeerRemoved { peer: id }]);
    bench.initial_message(Sid::OBSERVER, false);
    assert!(
        bench.roster.find(Sid(-3)).is_some(),
        "ids are not given twice"
    );
}

#[test]
fn admitted_peers_are_limited_and_unlinked_ones_give_way() {
    let mut bench = Bench::started(Rules {
        admitted_max: 2,
        ..rules()
    });
    let (first, verdict) = bench.initial_message(Sid(77), false);
    assert!(matches!(verdict, Verdict::Keep(_)));
    bench.initial_message(Sid(78), false);
    assert_eq!(
        bench.initial_message(Sid(79), false).1,
        Verdict::Reject(Reason::AdmittedFull)
    );
    bench.down(Sid(77), first);
    assert!(
        bench.roster.find(Sid(77)).is_some(),
        "it keeps its place while nobody needs it"
    );
    assert!(matches!(
        bench.initial_message(Sid(79), false).1,
        Verdict::Keep(_)
    ));
    assert_eq!(bench.roster.find(Sid(77)), None);
}

#[test]
fn smaller_admitted_peer_is_dialed_back_once_per_knock() {
    let mut bench = Bench::started(Rules {
        admitted_max: 2,
        ..rules()
    });
    assert_eq!(bench.initial_message(Sid(3), false).1, Verdict::Knock);
    let peer = bench.id(Sid(3));
    let meet = Action::PeerAdded { peer, sid: Sid(3) };
    let addresses = vec![Address::new("10.0.0.9", 3888)];
    let learn = Action::AddressesLearned { peer, addresses };
    assert_eq!(bench.todo(), [meet, learn, Action::Dial { peer }]);
    bench
        .roster
        .on_dial_failed(peer, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::PeerRemoved { peer }]);
    assert_eq!(bench.roster.find(Sid(3)), None);
}
