//! Members that join, move and leave.

use super::*;

/// A bench whose member `sid` is linked, and an id for one more.
fn linked(sid: Sid) -> (Bench, ConnectionKey, PeerId) {
    let mut bench = Bench::started(rules());
    let link = if sid < OWN {
        bench.linked(sid)
    } else {
        bench.initial_message(sid, true).0
    };
    bench.todo();
    let id = bench.roster.ids.next();
    (bench, link, id)
}

fn dial(peer: PeerId) -> Action {
    Action::Dial { peer }
}

fn removed(peer: PeerId) -> Action {
    Action::PeerRemoved { peer }
}

fn cancel(peer: PeerId) -> Action {
    Action::Cancel { peer, late: true }
}

impl Bench {
    fn joined(&mut self, id: PeerId, sid: Sid) -> Vec<Action> {
        self.roster.on_joined(id, sid, self.now, &mut self.todo);
        self.roster.check();
        self.todo()
    }

    fn removed(&mut self, id: PeerId) -> Vec<Action> {
        self.roster.remove(id, &mut self.todo);
        self.roster.check();
        self.todo()
    }

    fn drained(&mut self, id: PeerId) -> Vec<Action> {
        self.roster.on_drained(id, &mut self.todo);
        self.roster.check();
        self.todo()
    }

    fn leaving(&mut self, id: PeerId) -> Vec<Action> {
        self.roster.on_leaving(id, self.now, &mut self.todo);
        self.roster.check();
        self.todo()
    }
}

#[test]
fn member_that_joins_is_dialed_as_the_others_are() {
    for eager in [true, false] {
        let mut bench = Bench::started(Rules { eager, ..rules() });
        let id = bench.roster.ids.next();
        let dials = if eager { vec![dial(id)] } else { vec![] };
        assert_eq!(bench.joined(id, Sid(3)), dials);
        assert_eq!(bench.joined(id, Sid(3)), [], "it is a member already");
        assert!(bench.roster.is_member(id));
        assert_eq!(
            bench.joined(bench.id(SMALL), Sid(7)),
            [],
            "an id is not reused"
        );
        assert_eq!(bench.joined(PeerId(99), OWN), []);
    }
}

#[test]
fn link_of_a_removed_member_is_closed_and_its_sid_unknown() {
    for sid in [SMALL, LARGE] {
        let (mut bench, link, new) = linked(sid);
        let id = bench.id(sid);
        assert_eq!(
            bench.removed(id),
            [close(link, Reason::Removed), removed(id)]
        );
        let (_, verdict) = bench.initial_message(sid, true);
        assert_eq!(verdict, Verdict::Reject(Reason::UnknownSid(sid)));
        // What the loop still tells of it has no effect.
        bench
            .roster
            .on_down(id, link, true, bench.now, &mut bench.todo);
        bench.roster.want(id, bench.now, &mut bench.todo);
        assert_eq!(bench.todo(), []);
        // A sid that comes back is another peer.
        assert_eq!(bench.joined(new, sid), [dial(new)]);
        assert_eq!(bench.roster.link(new), None);
    }
}

#[test]
fn attempt_and_contender_of_a_removed_member_are_given_up() {
    let mut bench = Bench::started(rules());
    let id = bench.id(SMALL);
    assert_eq!(bench.removed(id), [cancel(id), removed(id)]);
    let (mut bench, link, _) = linked(LARGE);
    let id = bench.id(LARGE);
    let (contender, verdict) = bench.initial_message(LARGE, false);
    assert_eq!(verdict, Verdict::Wait(id));
    bench.todo();
    let unknown = Reason::UnknownSid(LARGE);
    let all = [
        close(contender, unknown),
        close(link, Reason::Removed),
        removed(id),
    ];
    assert_eq!(bench.removed(id), all);
}

#[test]
fn leaving_member_is_linked_until_nothing_waits() {
    for sid in [SMALL, LARGE] {
        let (mut bench, link, _) = linked(sid);
        let id = bench.id(sid);
        assert_eq!(bench.leaving(id), []);
        // Its link ends while frames wait: it is dialed again, also where it is not eager.
        bench.roster.rules.eager = false;
        bench
            .roster
            .on_down(id, link, true, bench.now, &mut bench.todo);
        bench.next();
        assert_eq!(bench.todo(), [dial(id)]);
        let link = if sid < OWN {
            bench.linked(sid)
        } else {
            bench.initial_message(sid, true).0
        };
        bench.todo();
        assert_eq!(bench.drained(id), []);
        assert!(bench.roster.has_left(id));
        let (_, verdict) = bench.initial_message(sid, true);
        assert_eq!(verdict, Verdict::Reject(Reason::UnknownSid(sid)));
        bench.roster.initiate(id, bench.now, &mut bench.todo);
        let late = bench.linked(sid);
        assert_eq!(bench.todo(), [close(late, Reason::Superfluous)]);
        bench
            .roster
            .on_down(id, link, false, bench.now, &mut bench.todo);
        assert_eq!(bench.todo(), [removed(id)]);
    }
}

#[test]
fn leaving_member_without_frames_or_link_is_removed() {
    // Unlinked when it is drained.
    let mut bench = Bench::started(rules());
    let id = bench.id(SMALL);
    bench.leaving(id);
    assert_eq!(bench.drained(id), [cancel(id), removed(id)]);
    // Its link ends, and nothing waits.
    let (mut bench, link, _) = linked(LARGE);
    let id = bench.id(LARGE);
    bench.leaving(id);
    bench
        .roster
        .on_down(id, link, false, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [removed(id)]);
    // Its time is over.
    let (mut bench, link, _) = linked(LARGE);
    let id = bench.id(LARGE);
    bench.leaving(id);
    assert_eq!(
        bench.removed(id),
        [close(link, Reason::Removed), removed(id)]
    );
    // A member that stays is not drained.
    let (mut bench, ..) = linked(LARGE);
    let id = bench.id(LARGE);
    assert_eq!(bench.drained(id), []);
    assert!(bench.roster.is_member(id));
}

#[test]
fn new_member_takes_the_sid_of_a_peer_that_leaves() {
    let (mut bench, link, new) = linked(LARGE);
    let id = bench.id(LARGE);
    bench.leaving(id);
    let all = [close(link, Reason::Removed), removed(id), dial(new)];
    assert_eq!(bench.joined(new, LARGE), all);
    assert_eq!(bench.id(LARGE), new);
}

#[test]
fn admitted_peer_becomes_a_member_with_its_link() {
    let mut bench = Bench::started(Rules {
        admitted_max: 1,
        ..rules()
    });
    let (link, _) = bench.initial_message(Sid(7), false);
    bench.todo();
    let id = bench.id(Sid(7));
    assert_eq!(bench.joined(id, Sid(7)), []);
    assert_eq!(
        (bench.roster.link(id), bench.roster.admitted),
        (Some(link), 0)
    );
    assert!(bench.roster.is_member(id));
}

#[test]
fn moved_member_is_dialed_at_once_if_it_is_not_linked() {
    let mut bench = Bench::started(rules());
    let id = bench.id(SMALL);
    bench.roster.on_moved(id, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [cancel(id), dial(id)], "it was being dialed");
    bench.dial_failed(id);
    bench.roster.on_moved(id, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [dial(id)], "it waited for the backoff");
    bench.roster.check();
    let (mut bench, link, _) = linked(LARGE);
    let id = bench.id(LARGE);
    bench.roster.on_moved(id, bench.now, &mut bench.todo);
    assert_eq!((bench.todo(), bench.roster.link(id)), (vec![], Some(link)));
}

#[test]
fn member_that_moves_back_is_not_dialed_beside_its_link() {
    let (mut bench, link, _) = linked(SMALL);
    let id = bench.id(SMALL);
    bench.roster.initiate(id, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [dial(id)]);
    bench.roster.on_back(id, &mut bench.todo);
    assert_eq!(bench.todo(), [cancel(id)]);
    bench.roster.on_moved(id, bench.now, &mut bench.todo);
    bench.roster.on_back(id, &mut bench.todo);
    assert_eq!((bench.todo(), bench.roster.link(id)), (vec![], Some(link)));
    bench.roster.check();
}

/// What was learned at the old addresses does not count at the new ones.
#[test]
fn knocks_from_elsewhere_count_again_after_a_move() {
    let (mut bench, _, _) = linked(SMALL);
    let id = bench.id(SMALL);
    bench.pass(KNOCK_CROSSING);
    bench.initial_message(SMALL, true);
    bench.todo();
    bench.linked(SMALL);
    bench.todo();
    let dials = bench.knock(ABROAD, UNHEARD_RENEWAL_PAUSE * 2);
    assert!(dials.is_empty(), "{dials:?}");
    bench.roster.on_moved(id, bench.now, &mut bench.todo);
    bench.todo();
    let dials = bench.knock(ABROAD, UNHEARD_RENEWAL_PAUSE * 2);
    assert!(!dials.is_empty());
}
