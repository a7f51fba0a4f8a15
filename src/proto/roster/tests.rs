//! Unit tests of `roster`.

use super::*;
use crate::limits::UNHEARD_RENEWAL_PAUSE;
use crate::limits::{KNOCK_CROSSING, PROVEN_AFTER, RENEWAL_PAUSE_MAX};

const OWN: Sid = Sid(5);
const SMALL: Sid = Sid(2);
const LARGE: Sid = Sid(9);

fn rules() -> Rules {
    Rules {
        own: OWN,
        eager: true,
        newest: false,
        guests_max: 0,
        observers_max: 2,
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        contender_timeout: Duration::from_secs(6),
    }
}

/// A roster of the sids 2, 5 (own) and 9, with a clock that only the test moves.
struct Bench {
    roster: Roster,
    now: Instant,
    todo: Vec<Action>,
    keys: u32,
    /// The bytes that every link has brought.
    brought: u64,
}

/// The last byte of an address that is not the peer's own.
const ABROAD: u8 = 99;

impl Bench {
    fn new(rules: Rules) -> Self {
        let roster = Roster::new(rules, [SMALL, LARGE], 1);
        Self {
            roster,
            now: Instant::now(),
            todo: Vec::new(),
            keys: 0,
            brought: 0,
        }
    }

    /// A bench whose roster has started. In an eager roster, both members are being dialed.
    fn started(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.roster.on_start(bench.now, &mut bench.todo);
        bench.todo.clear();
        bench
    }

    fn id(&self, sid: Sid) -> PeerId {
        self.roster.find(sid).unwrap()
    }

    fn key(&mut self) -> ConnectionKey {
        self.keys += 1;
        ConnectionKey {
            index: self.keys,
            generation: self.keys,
        }
    }

    fn initial_message(&mut self, sid: Sid, at_home: bool) -> (ConnectionKey, Verdict) {
        self.initial_message_from(sid, if at_home { 1 } else { ABROAD })
    }

    /// `last` is the last byte of the source address. The peer's own address is 10.0.0.1.
    fn initial_message_from(&mut self, sid: Sid, last: u8) -> (ConnectionKey, Verdict) {
        let key = self.key();
        let source = Source {
            ip: IpAddr::from([10, 0, 0, last]),
            at_home: last == 1,
        };
        let addresses = &[Address::new("10.0.0.9", 3888)];
        let claim = Claim {
            sid,
            link: key,
            source,
            brought: Brought::Bytes(self.brought),
            addresses,
        };
        let verdict = self
            .roster
            .on_initial_message(&claim, self.now, &mut self.todo);
        (key, verdict)
    }

    fn linked(&mut self, sid: Sid) -> ConnectionKey {
        let (id, key) = (self.id(sid), self.key());
        self.roster.on_linked(id, key, self.now, &mut self.todo);
        key
    }

    fn down(&mut self, sid: Sid, key: ConnectionKey) {
        let id = self.id(sid);
        self.roster
            .on_down(id, key, false, self.now, &mut self.todo);
    }

    /// Moves the clock to the next deadline, and does what is due. Returns how far the clock moved.
    fn next(&mut self) -> Duration {
        let at = self.roster.deadline().expect("something is due");
        let waited = at - self.now;
        self.now = at;
        self.tick();
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tick();
    }

    fn tick(&mut self) {
        let brought = |_, _| Brought::Bytes(self.brought);
        self.roster.tick(self.now, brought, &mut self.todo);
    }

    /// Knocks from that address every 300 ms during `time`, and links the peer after each dial. Returns when it was dialed.
    fn knock(&mut self, last: u8, time: Duration) -> Vec<Duration> {
        let (start, mut dials) = (self.now, Vec::new());
        while self.now < start + time {
            self.initial_message_from(SMALL, last);
            self.pass(Duration::from_millis(300));
            for action in self.todo() {
                if matches!(action, Action::Dial { .. }) {
                    dials.push(self.now - start);
                    self.linked(SMALL);
                }
            }
        }
        dials
    }

    fn todo(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.todo)
    }
}

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
fn on_demand_nobody_is_dialed_before_somebody_asks() {
    let mut bench = Bench::started(Rules {
        eager: false,
        ..rules()
    });
    assert_eq!(bench.roster.deadline(), None);
    let small = bench.id(SMALL);
    bench.roster.want(small, bench.now, &mut bench.todo);
    bench.roster.want(small, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer: small }]);
}

#[test]
fn a_dialed_smaller_peer_is_linked() {
    let mut bench = Bench::started(rules());
    let key = bench.linked(SMALL);
    let peer = bench.id(SMALL);
    assert_eq!(bench.todo(), [Action::Up { peer, link: key }]);
    assert_eq!(bench.roster.link(peer), Some(key));
}

#[test]
fn a_larger_peer_that_dials_is_linked_and_the_knock_underway_is_given_up() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    let (key, verdict) = bench.initial_message(LARGE, true);
    assert_eq!(verdict, Verdict::Keep(peer));
    assert_eq!(
        bench.todo(),
        [
            Action::Cancel { peer, late: false },
            Action::Up { peer, link: key }
        ]
    );
}

#[test]
fn a_knock_that_took_long_must_not_arrive_after_the_link() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    bench.todo();
    bench.pass(KNOCK_CROSSING / 2);
    let (key, _) = bench.initial_message(LARGE, true);
    assert_eq!(
        bench.todo(),
        [
            Action::Cancel { peer, late: true },
            Action::Up { peer, link: key }
        ]
    );
}

#[test]
fn a_knock_is_hung_up_and_dialed_back() {
    let mut bench = Bench::started(Rules {
        eager: false,
        ..rules()
    });
    let (_, verdict) = bench.initial_message(SMALL, false);
    assert_eq!(verdict, Verdict::Knock);
    let peer = bench.id(SMALL);
    assert_eq!(
        bench.todo(),
        [Action::Resolve { peer }, Action::Dial { peer }]
    );
}

#[test]
fn knocks_are_answered_once_a_backoff_step() {
    let mut bench = Bench::started(Rules {
        eager: false,
        ..rules()
    });
    let peer = bench.id(SMALL);
    let mut dials = 0;
    // One knock every millisecond for ten seconds. Every dial fails.
    for _ in 0..10_000 {
        bench.initial_message(SMALL, true);
        bench.pass(Duration::from_millis(1));
        for action in bench.todo() {
            assert_eq!(action, Action::Dial { peer });
            dials += 1;
            bench
                .roster
                .on_dial_failed(peer, bench.now, &mut bench.todo);
        }
    }
    assert!((5..100).contains(&dials), "{dials} dials in ten seconds");
}

#[test]
fn a_knock_that_crossed_a_fresh_link_is_ignored_and_a_later_one_is_not() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.todo();
    bench.initial_message(SMALL, true);
    assert_eq!(bench.todo(), []);
    bench.pass(KNOCK_CROSSING);
    bench.initial_message(SMALL, true);
    let peer = bench.id(SMALL);
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
}

#[test]
fn a_knock_of_a_stranger_changes_nothing_for_a_linked_peer() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.todo();
    bench.pass(Duration::from_secs(60));
    bench.initial_message(SMALL, false);
    let peer = bench.id(SMALL);
    assert_eq!(bench.todo(), [Action::Resolve { peer }]);
}

#[test]
fn a_newer_connection_from_home_replaces_the_older_one_first() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    bench.todo();
    let (newer, verdict) = bench.initial_message(LARGE, true);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    let close = Action::Close {
        link: older,
        reason: Reason::Replaced,
    };
    assert_eq!(bench.todo(), [close, Action::Up { peer, link: newer }]);
    // The end of the older link is reported late, and changes nothing.
    bench.down(LARGE, older);
    assert_eq!(bench.roster.link(peer), Some(newer));
}

#[test]
fn a_stranger_waits_and_is_refused_while_the_older_link_lives() {
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
    let refuse = Action::Close {
        link: stranger,
        reason: Reason::OlderLinkAlive,
    };
    assert_eq!(bench.todo(), [refuse]);
    assert_eq!(bench.roster.link(peer), Some(older));
}

#[test]
fn a_contender_that_is_recognized_takes_the_place_of_a_link_that_lives() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    let (contender, _) = bench.initial_message(LARGE, false);
    bench.todo();
    let peer = bench.id(LARGE);
    assert_eq!(bench.roster.contender(peer), Some(contender));
    let ip = IpAddr::from([10, 0, 0, ABROAD]);
    assert_eq!(bench.roster.abroad(peer).collect::<Vec<_>>(), [ip]);
    for _ in 0..2 {
        bench.roster.on_home(peer, ip, bench.now, &mut bench.todo);
    }
    assert_eq!(bench.roster.abroad(peer).count(), 0);
    let (link, reason) = (older, Reason::Replaced);
    let close = Action::Close { link, reason };
    let link = contender;
    assert_eq!(bench.todo(), [close, Action::Up { peer, link }]);
    assert_eq!(bench.roster.contender(peer), None);
}

#[test]
fn a_contender_takes_the_place_of_a_link_that_ends() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message(LARGE, true);
    let (contender, _) = bench.initial_message(LARGE, false);
    bench.todo();
    bench.down(LARGE, older);
    let peer = bench.id(LARGE);
    assert_eq!(
        bench.todo(),
        [Action::Up {
            peer,
            link: contender
        }]
    );
    assert_eq!(bench.roster.deadline(), None);
}

#[test]
fn a_claim_from_where_the_link_came_from_replaces_it() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    bench.todo();
    // It may be the peer, behind a proxy that acknowledges data for a machine that is dead.
    let (link, verdict) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    let reason = Reason::Replaced;
    let close = Action::Close {
        link: older,
        reason,
    };
    let up = Action::Up { peer, link };
    assert_eq!(bench.todo(), [Action::Resolve { peer }, close, up]);
}

#[test]
fn a_silent_link_from_elsewhere_gives_way_to_a_claim_from_elsewhere() {
    let mut bench = Bench::started(rules());
    bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    let (claim, verdict) = bench.initial_message_from(LARGE, ABROAD + 1);
    assert_eq!(verdict, Verdict::Wait(peer));
    for _ in 0..3 {
        bench.brought += 1;
        assert_eq!(bench.next(), SILENT_AFTER);
        assert_ne!(bench.roster.link(peer), Some(claim), "it lives");
    }
    assert_eq!(bench.next(), SILENT_AFTER);
    assert_eq!(bench.roster.link(peer), Some(claim));
}

#[test]
fn a_link_from_elsewhere_that_brings_bytes_is_kept() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    let (link, _) = bench.initial_message_from(LARGE, ABROAD + 1);
    bench.todo();
    for _ in 0..6 {
        bench.brought += 1;
        bench.next();
    }
    let reason = Reason::OlderLinkAlive;
    assert_eq!(bench.todo(), [Action::Close { link, reason }]);
    assert_eq!(bench.roster.link(peer), Some(older));
    assert_eq!(bench.roster.deadline(), None);
}

#[test]
fn a_link_from_what_proves_to_be_home_is_kept_however_silent() {
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
fn while_names_are_looked_up_no_link_is_taken_for_silent() {
    let mut bench = Bench::started(rules());
    let (older, _) = bench.initial_message_from(LARGE, ABROAD);
    let peer = bench.id(LARGE);
    bench.initial_message_from(LARGE, ABROAD + 1);
    let (roster, todo) = (&mut bench.roster, &mut bench.todo);
    for _ in 0..100 {
        let at = roster.deadline().unwrap_or(bench.now);
        roster.tick(at, |_, _| Brought::Unclear, todo);
    }
    assert_eq!(
        (roster.link(peer), roster.contender(peer)),
        (Some(older), None)
    );
}

#[test]
fn a_peer_behind_a_proxy_is_dialed_anew_when_its_link_is_silent() {
    let mut bench = Bench::started(rules());
    // The peer has knocked through a proxy before. When it is back, it knocks again, from whatever address the proxy has then.
    bench.initial_message_from(SMALL, ABROAD);
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    let dials = bench.knock(ABROAD + 1, Duration::from_secs(2));
    assert_eq!(dials.len(), 1);
    assert!((SILENT_AFTER..SILENT_AFTER * 3 / 2).contains(&dials[0]));
}

#[test]
fn a_link_that_brings_bytes_is_not_dialed_anew_for_a_knock_from_elsewhere() {
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
    assert!(
        !bench
            .todo()
            .iter()
            .any(|it| matches!(it, Action::Dial { .. }))
    );
}

#[test]
fn one_knock_from_elsewhere_is_not_enough() {
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
fn a_peer_that_knocks_from_home_is_not_dialed_for_strangers() {
    let mut bench = Bench::started(rules());
    bench.initial_message_from(SMALL, 1);
    // Strangers may have knocked while the peer was not linked.
    bench.initial_message_from(SMALL, ABROAD);
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.knock(ABROAD, Duration::from_secs(600)), []);
}

#[test]
fn a_peer_of_which_no_knock_is_known_is_dialed_anew_seldom() {
    let mut bench = Bench::started(rules());
    bench.linked(SMALL);
    bench.pass(Duration::from_secs(60));
    let dials = bench.knock(ABROAD, Duration::from_secs(300));
    assert!((5..9).contains(&dials.len()), "{dials:?}");
    assert!(dials[0] >= SILENT_AFTER, "it may be back");
    assert!(dials[1] - dials[0] >= UNHEARD_RENEWAL_PAUSE);
}

#[test]
fn who_knocks_at_a_healthy_link_has_it_renewed_seldom() {
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
fn a_dial_beside_a_link_that_brings_bytes_meanwhile_is_given_up() {
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
fn a_dial_beside_a_link_that_fails_is_tried_again_soon() {
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
        bench
            .roster
            .on_dial_failed(peer, bench.now, &mut bench.todo);
        assert!(bench.next() <= bench.roster.rules.backoff_max);
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    // Nobody has knocked for 60 s, so that the knocks no longer cause a dial.
    bench.now += Duration::from_secs(60);
    bench
        .roster
        .on_dial_failed(peer, bench.now, &mut bench.todo);
    bench.pass(Duration::ZERO);
    assert_eq!((bench.todo(), bench.roster.deadline()), (vec![], None));
}

#[test]
fn links_that_replace_each_other_again_and_again_are_told() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    let mut warned = 0;
    for round in 0..100 {
        bench.initial_message_from(LARGE, 1);
        bench.pass(Duration::from_millis(200));
        let warns = bench.todo().contains(&Action::ReportFlapping { peer });
        assert_eq!(warns, round == 4, "round {round}");
        warned += u32::from(warns);
    }
    assert_eq!(warned, 1);
}

#[test]
fn links_that_the_application_replaces_are_not_told() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    for _ in 0..100 {
        bench.roster.initiate(peer, bench.now, &mut bench.todo);
        bench.linked(SMALL);
    }
    assert!(!bench.todo().contains(&Action::ReportFlapping { peer }));
}

#[test]
fn the_newest_wins_from_anywhere_if_told_so() {
    let mut bench = Bench::started(Rules {
        newest: true,
        ..rules()
    });
    bench.initial_message(LARGE, true);
    let (newer, verdict) = bench.initial_message(LARGE, false);
    let peer = bench.id(LARGE);
    assert_eq!(verdict, Verdict::Keep(peer));
    assert_eq!(bench.roster.link(peer), Some(newer));
}

#[test]
fn failed_attempts_are_spaced_by_the_backoff_and_a_link_that_lasts_resets_it() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    let mut waited = Vec::new();
    for _ in 0..30 {
        bench
            .roster
            .on_dial_failed(peer, bench.now, &mut bench.todo);
        waited.push(bench.next());
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
    assert!(waited[0] <= Duration::from_millis(50));
    assert!(
        waited
            .iter()
            .all(|waited| *waited <= Duration::from_secs(1))
    );
    assert!(
        waited[10..]
            .iter()
            .any(|waited| *waited > Duration::from_millis(400))
    );
    // A connect alone does not reset the backoff.
    for _ in 0..20 {
        let key = bench.linked(SMALL);
        bench.down(SMALL, key);
        waited.push(bench.next());
    }
    assert!(
        waited[30..]
            .iter()
            .any(|waited| *waited > Duration::from_millis(400))
    );
    // A link that lasts resets it.
    let key = bench.linked(SMALL);
    bench.pass(PROVEN_AFTER);
    bench.down(SMALL, key);
    assert!(bench.next() <= Duration::from_millis(50));
}

/// In a silent network an attempt takes long. The network may have recovered in that time.
#[test]
fn the_time_of_an_attempt_that_nobody_answered_is_not_waited_for_again() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(SMALL);
    for _ in 0..20 {
        bench.pass(Duration::from_secs(5));
        bench
            .roster
            .on_dial_failed(peer, bench.now, &mut bench.todo);
        bench.pass(Duration::ZERO);
        assert_eq!(bench.todo(), [Action::Dial { peer }]);
    }
}

#[test]
fn a_knock_hurries_a_dial_that_is_no_longer_young() {
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
    assert_eq!(bench.todo(), [Action::Up { peer, link: key }]);
}

#[test]
fn a_knock_that_leads_to_nothing_is_repeated() {
    let mut bench = Bench::started(rules());
    let peer = bench.id(LARGE);
    bench.roster.on_knocked(peer, bench.now);
    // The side with the larger sid dials first.
    assert!(bench.next() >= Duration::from_millis(50));
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
}

#[test]
fn asking_for_a_peer_that_just_went_does_not_hurry_the_backoff() {
    let mut bench = Bench::started(Rules {
        eager: false,
        ..rules()
    });
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
fn initiating_dials_a_linked_peer_anew() {
    let mut bench = Bench::started(rules());
    let older = bench.linked(SMALL);
    bench.todo();
    let peer = bench.id(SMALL);
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    bench.roster.initiate(peer, bench.now, &mut bench.todo);
    assert_eq!(bench.todo(), [Action::Dial { peer }]);
    let newer = bench.linked(SMALL);
    let close = Action::Close {
        link: older,
        reason: Reason::Replaced,
    };
    assert_eq!(bench.todo(), [close, Action::Up { peer, link: newer }]);
}

#[test]
fn a_knock_too_early_is_answered_when_the_backoff_lets_it() {
    let mut bench = Bench::started(Rules {
        eager: false,
        ..rules()
    });
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
fn a_guest_that_is_linked_stays_when_a_dial_of_it_fails() {
    let mut bench = Bench::started(Rules {
        guests_max: 1,
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
fn the_end_of_a_connection_of_who_is_gone_means_nothing() {
    let mut bench = Bench::started(Rules {
        guests_max: 1,
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
fn the_own_sid_and_unknown_ones_are_refused_and_leave_nothing() {
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
fn observers_get_negative_ids_up_to_a_bound_and_are_forgotten_when_they_go() {
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
fn guests_are_admitted_up_to_a_bound_and_an_unlinked_one_gives_way() {
    let mut bench = Bench::started(Rules {
        guests_max: 2,
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
fn a_smaller_guest_is_dialed_back_once_for_each_knock() {
    let mut bench = Bench::started(Rules {
        guests_max: 2,
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

/// Makes any calls, with ids of peers, ids of removed peers, and ids that were never assigned. The actions of the roster are
/// followed as the loop would follow them, late, or not at all.
#[test]
fn no_call_with_any_id_breaks_the_roster() {
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Call {
        what: u8,
        whom: u8,
        key: u8,
        sid: i64,
        flags: u8,
        millis: u16,
    }
    let source = |flags: u8| Source {
        ip: IpAddr::from([10, 0, 0, flags >> 3 & 3]),
        at_home: flags & 1 != 0,
    };
    let sid = prop_oneof![-3..12_i64, Just(i64::MAX), Just(i64::MIN)];
    let call = (0..12_u8, 0..16_u8, 0..24_u8, sid, any::<u8>(), 0..1500_u16).prop_map(
        |(what, whom, key, sid, flags, millis)| Call {
            what,
            whom,
            key,
            sid,
            flags,
            millis,
        },
    );
    proptest!(|(
        calls in proptest::collection::vec(call, 1..200),
        eager: bool, newest: bool, guests_max in 0..3_usize, observers_max in 0..4_usize,
    )| {
        let rules = Rules { eager, newest, guests_max, observers_max, ..rules() };
        let mut bench = Bench::started(rules);
        // Two ids that are never assigned. Assigned ids are added below.
        let mut ids = vec![PeerId(u64::MAX), PeerId(1 << 20)];
        for Call { what, whom, key, sid, flags, millis } in calls {
            ids.extend(bench.roster.by_sid.values().copied());
            ids.dedup();
            let id = ids[ids.len() - 1 - usize::from(whom) % ids.len()];
            // The same few connection keys are used repeatedly, for one peer or for several.
            let link = ConnectionKey { index: u32::from(key), generation: 1 };
            bench.brought += u64::from(flags & 4);
            let (now, todo) = (bench.now, &mut bench.todo);
            match what {
                0 => bench.roster.want(id, now, todo),
                1 => bench.roster.initiate(id, now, todo),
                2 => bench.roster.on_linked(id, link, now, todo),
                3 => bench.roster.on_knocked(id, now),
                4 => bench.roster.on_dial_failed(id, now, todo),
                5..=7 => {
                    let brought = match flags >> 6 {
                        0 => Brought::More,
                        n => Brought::Bytes(n.into()),
                    };
                    let addresses = [Address::new("10.0.0.9", 3888)];
                    let addresses = &addresses[..usize::from(flags & 2 != 0)];
                    let source = source(flags);
                    let claim = Claim { sid: Sid(sid), link, source, brought, addresses };
                    bench.roster.on_initial_message(&claim, now, todo);
                }
                8 => bench.roster.on_home(id, source(flags).ip, now, todo),
                9 => {
                    let link = bench.roster.link(id).filter(|_| flags & 1 != 0).unwrap_or(link);
                    bench.roster.on_down(id, link, flags & 2 != 0, now, todo);
                }
                10 => {
                    let link = bench.roster.contender(id).unwrap_or(link);
                    bench.roster.on_down(id, link, flags & 2 != 0, now, todo);
                }
                _ => bench.pass(Duration::from_millis(millis.into())),
            }
            let _ = bench.roster.is_moot(id, Brought::Bytes(key.into()), bench.now);
            let _ = bench.roster.knocks(id);
            bench.roster.check();
        }
    });
}
