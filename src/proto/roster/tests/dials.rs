//! Which peer is dialed, and when.

use super::*;

#[test]
fn an_eager_roster_dials_every_member_at_once() {
    let mut bench = Bench::new(rules());
    bench.roster.on_start(bench.now, &mut bench.todo);
    let (small, large) = (bench.id(SMALL), bench.id(LARGE));
    assert_eq!(
        bench.todo(),
        [Action::Dial { peer: small }, Action::Dial { peer: large }]
    );
    assert!(!bench.roster.knocks(small));
    assert!(bench.roster.knocks(large));
}

#[test]
fn on_demand_roster_dials_only_on_request() {
    let mut bench = Bench::on_demand();
    assert_eq!(bench.roster.deadline(), None);
    let small = bench.id(SMALL);
    bench.roster.want(small, bench.now, &mut bench.todo);
    bench.roster.want(small, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer: small }]);
}

#[test]
fn backoff_spaces_dials_until_a_link_lasts() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    let mut waited = Vec::new();
    for _ in 0..30 {
        bench.dial_failed(peer);
        waited.push(bench.next());
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    assert!(waited[0] <= Duration::from_millis(50));
    let longest = |waited: &[Duration]| waited.iter().max().copied().unwrap();
    assert!(longest(&waited) <= Duration::from_secs(1));
    assert!(longest(&waited[10..]) > Duration::from_millis(400));
    // A connect alone does not reset the backoff.
    for _ in 0..20 {
        let key = bench.linked(SMALL);
        bench.down(SMALL, key);
        waited.push(bench.next());
    }
    assert!(longest(&waited[30..]) > Duration::from_millis(400));
    // A link that lasts resets it.
    let key = bench.linked(SMALL);
    bench.pass(PROVEN_AFTER);
    bench.down(SMALL, key);
    assert!(bench.next() <= Duration::from_millis(50));
}

#[test]
fn pause_after_lasting_refusals_doubles_until_a_link_lasts() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    let refused = |bench: &mut Bench| {
        bench
            .roster
            .on_dial_failed(peer, true, bench.now, &mut bench.todo);
        bench.todo.clear();
        bench.next()
    };
    let waited: Vec<_> = (0..12).map(|_| refused(&mut bench)).collect();
    for (waited, least) in waited
        .iter()
        .zip([50, 100, 200, 400, 800, 1600, 3200, 6400])
    {
        assert!(*waited >= Duration::from_millis(least), "{waited:?}");
    }
    assert_eq!(waited[8..], [REFUSED_PAUSE_MAX; 4]);
    // A dial that fails otherwise waits for its backoff alone, and a link that ends at once forgets nothing.
    bench.dial_failed(peer);
    assert!(bench.next() <= Duration::from_secs(1));
    let key = bench.linked(SMALL);
    bench.down(SMALL, key);
    bench.next();
    assert_eq!(refused(&mut bench), REFUSED_PAUSE_MAX);
    let key = bench.linked(SMALL);
    bench.pass(PROVEN_AFTER);
    bench.down(SMALL, key);
    bench.next();
    assert!(refused(&mut bench) <= Duration::from_millis(100));
}

#[test]
fn refused_peers_are_dialed_at_once_when_the_cause_may_be_gone() {
    let mut bench = Bench::started(rules());
    let (refused, off) = (bench.id(SMALL), bench.id(LARGE));
    for peer in [refused, off] {
        let lasts = peer == refused;
        bench
            .roster
            .on_dial_failed(peer, lasts, bench.now, &mut bench.todo);
    }
    bench.roster.retry_refused(bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer: refused }]);
    // Only once.
    bench.dial_failed(refused);
    bench.roster.retry_refused(bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
}

#[test]
fn calls_of_the_application_dial_whatever_the_pause() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    for lasts in [false, true] {
        bench
            .roster
            .on_dial_failed(peer, lasts, bench.now, &mut bench.todo);
        bench.roster.connect(peer, bench.now, &mut bench.todo);
        // Only once.
        bench.roster.connect(peer, bench.now, &mut bench.todo);
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    // The pause goes on doubling.
    for _ in 0..10 {
        bench
            .roster
            .on_dial_failed(peer, true, bench.now, &mut bench.todo);
        bench.roster.connect(peer, bench.now, &mut bench.todo);
    }
    bench
        .roster
        .on_dial_failed(peer, true, bench.now, &mut bench.todo);
    bench.todo.clear();
    assert_eq!(bench.next(), REFUSED_PAUSE_MAX);
    // Beside a link none is needed.
    bench.linked(SMALL);
    bench.todo.clear();
    bench.roster.connect(peer, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), []);
}

/// In a silent network an attempt takes long. The network may have recovered in that time.
#[test]
fn duration_of_an_unanswered_dial_counts_as_backoff() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    for _ in 0..20 {
        bench.pass(Duration::from_secs(5));
        bench.dial_failed(peer);
        bench.pass(Duration::ZERO);
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
}

#[test]
fn requests_for_a_peer_do_not_shorten_its_backoff() {
    let mut bench = Bench::on_demand();
    let peer = bench.id(SMALL);
    let mut dials = 0;
    for _ in 0..10_000 {
        bench.roster.want(peer, bench.now, &mut bench.todo);
        bench.pass(Duration::from_millis(1));
        if bench.todo().contains(&Action::Dial { peer }) {
            dials += 1;
            let key = bench.linked(SMALL);
            bench.down(SMALL, key);
        }
    }
    assert!((5..100).contains(&dials), "{dials} dials in ten seconds");
}

#[test]
fn initiate_redials_a_linked_peer() {
    let mut bench = Bench::started(rules());
    let older = bench.linked(SMALL);
    bench.todo();
    let peer = bench.id(SMALL);
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
    let newer = bench.linked(SMALL);
    let close = close(older, Reason::Replaced);
    assert_eq!(bench.todo(), [close, up(peer, newer)]);
}
