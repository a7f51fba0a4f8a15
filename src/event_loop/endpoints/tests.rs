//! Unit tests of `endpoints`.

use super::*;
use crate::{limits::NAME_ADDRESSES_MAX, proto::Refusal};

const PEER: PeerId = PeerId(3);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Starts a dial to these addresses, one of which is a name. Returns the id of the lookup, and the first step.
fn start(endpoints: &mut Endpoints, addresses: &[&str]) -> (u64, Step) {
    let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    endpoints.insert(PEER, &addresses);
    let (lookups, step) = endpoints.start(PEER, Instant::now());
    (lookups[0].lookup_id, step)
}

fn found(
    endpoints: &mut Endpoints,
    lookup_id: u64,
    all: &[&str],
) -> Option<(LookupOwner, Option<Step>)> {
    let all = all.iter().map(|text| at(text)).collect();
    endpoints.on_found(lookup_id, &Ok(all), Instant::now())
}

/// A connect to an address fails at once.
fn fail(endpoints: &mut Endpoints) -> Step {
    let failed = (at("10.9.9.9:9"), Reason::ConnectTimeout);
    endpoints.next(PEER, None, failed, Instant::now())
}

fn key(index: u32) -> ConnectionKey {
    ConnectionKey {
        index,
        generation: 1,
    }
}

/// A dial whose connects get the keys 0, 1 and so on.
struct Bench {
    endpoints: Endpoints,
    now: Instant,
    dialed: Vec<SocketAddr>,
    end: Option<Step>,
}

impl Bench {
    /// Dials a peer with these literal addresses.
    fn dialing(addresses: &str) -> Self {
        let mut bench = Self {
            endpoints: Endpoints::default(),
            now: Instant::now(),
            dialed: Vec::new(),
            end: None,
        };
        let addresses: Vec<Address> = addresses
            .split('|')
            .map(|text| text.parse().unwrap())
            .collect();
        bench.endpoints.insert(PEER, &addresses);
        bench.dial();
        bench
    }

    fn dial(&mut self) {
        let (_, step) = self.endpoints.start(PEER, self.now);
        self.step(step);
    }

    /// The loop carries out a step.
    fn step(&mut self, step: Step) {
        match step {
            Step::Connect(addr) => {
                self.endpoints
                    .on_connecting(PEER, key(self.dialed.len() as u32), addr);
                self.dialed.push(addr);
            }
            Step::Wait => {}
            Step::Exhausted(..) => self.end = Some(step),
        }
    }

    /// Time passes until the next address is due.
    fn pass(&mut self) {
        self.now = self.endpoints.deadline().expect("no address is due");
        let (_, step) = self.endpoints.overdue(self.now).unwrap();
        self.step(step);
    }

    /// One of the connects fails.
    fn fail(&mut self, index: u32) {
        self.fail_for(index, Reason::Closed);
    }

    fn fail_for(&mut self, index: u32, reason: Reason) {
        let failed = (self.dialed[index as usize], reason);
        let step = self
            .endpoints
            .next(PEER, Some(key(index)), failed, self.now);
        self.step(step);
    }

    fn dialed(&self) -> String {
        let dialed: Vec<_> = self.dialed.iter().map(SocketAddr::to_string).collect();
        dialed.join("|")
    }

    fn underway(&self) -> Vec<ConnectionKey> {
        self.endpoints.underway(PEER).collect()
    }
}

#[test]
fn lasting_refusal_is_reported_whatever_fails_later() {
    let refused = Reason::Refused(Refusal::WrongCluster);
    for at in 0..3 {
        let mut bench = Bench::dialing("10.0.0.1:1|10.0.0.2:1|10.0.0.3:1");
        for index in 0..3 {
            match index == at {
                true => bench.fail_for(index, refused.clone()),
                false => bench.fail(index),
            }
        }
        let addr = Some(bench.dialed[at as usize]);
        assert_eq!(bench.end, Some(Step::Exhausted(addr, refused.clone())));
    }
}

#[test]
fn addresses_are_tried_beside_each_other_up_to_a_limit() {
    let all = "10.0.0.1:1|10.0.0.2:1|10.0.0.3:1|10.0.0.4:1|10.0.0.5:1";
    let mut bench = Bench::dialing(all);
    let start = bench.now;
    for begun in 1..DIALS_AT_ONCE {
        assert_eq!(bench.dialed.len(), begun);
        bench.pass();
        assert_eq!(bench.now, start + DIAL_STAGGER * begun as u32);
    }
    assert_eq!(bench.underway().len(), DIALS_AT_ONCE);
    assert_eq!(bench.endpoints.deadline(), None, "no more at one time");
    // An error is followed by the next address at once, and the one after it waits again.
    bench.fail(1);
    assert_eq!(bench.underway(), [key(0), key(2), key(3)]);
    assert_eq!(bench.endpoints.deadline(), None);
    bench.fail(0);
    assert_eq!(bench.dialed(), all);
    assert_eq!(bench.underway(), [key(2), key(3), key(4)]);
    assert_eq!(bench.endpoints.deadline(), None, "all are tried");
    for index in [4, 2] {
        bench.fail(index);
        assert_eq!(bench.end, None, "another one is underway");
    }
    bench.fail(3);
    let last = Step::Exhausted(Some(at("10.0.0.4:1")), Reason::Closed);
    assert_eq!(bench.end, Some(last));
    assert_eq!(bench.underway(), []);
}

#[test]
fn error_is_followed_at_once_and_the_next_address_has_its_whole_time() {
    let mut bench = Bench::dialing("10.0.0.1:1|10.0.0.2:1|10.0.0.3:1");
    let start = bench.now;
    bench.now += DIAL_STAGGER / 2;
    bench.fail(0);
    assert_eq!(bench.dialed(), "10.0.0.1:1|10.0.0.2:1");
    bench.pass();
    assert_eq!(bench.now, start + DIAL_STAGGER / 2 + DIAL_STAGGER);
}

#[test]
fn families_are_interleaved() {
    let mut bench = Bench::dialing("[fd::1]:1|[fd::2]:1|[fd::3]:1|10.0.0.1:1|10.0.0.2:1");
    for index in 0..4 {
        bench.fail(index);
    }
    let mixed = "[fd::1]:1|10.0.0.1:1|[fd::2]:1|10.0.0.2:1|[fd::3]:1";
    assert_eq!(bench.dialed(), mixed);
}

#[test]
fn address_of_the_last_proven_link_is_tried_first() {
    for (proven, first) in [
        // This server had dialed.
        ("10.0.0.2:2", "10.0.0.2:2"),
        // The peer had.
        ("10.0.0.2:40000", "10.0.0.2:1"),
        ("[::ffff:10.0.0.3]:40000", "10.0.0.3:1"),
        ("10.0.0.9:1", "10.0.0.1:1"),
    ] {
        let mut bench = Bench::dialing("10.0.0.1:1|10.0.0.2:1|10.0.0.2:2|10.0.0.3:1");
        bench.endpoints.finish(PEER);
        bench.dialed.clear();
        bench.endpoints.on_proven(PEER, at(proven));
        bench.dial();
        for index in 0..3 {
            bench.fail(index);
        }
        let mut all: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1"]
            .map(at)
            .into();
        all.retain(|addr| *addr != at(first));
        all.insert(0, at(first));
        assert_eq!(bench.dialed, all, "{proven}");
    }
}

#[test]
fn losers_are_tried_again_if_the_winner_is_refused() {
    let mut bench = Bench::dialing("10.0.0.1:1|10.0.0.2:1|10.0.0.3:1|10.0.0.4:1");
    bench.pass();
    bench.pass();
    let losers = bench.endpoints.on_connected(PEER, key(1));
    assert_eq!(losers, [key(0), key(2)]);
    assert_eq!(bench.underway(), [key(1)]);
    assert_eq!(bench.endpoints.deadline(), None, "nothing more is dialed");
    let addresses = ["10.0.0.5:1", "10.0.0.1:1"].map(|text| text.parse().unwrap());
    bench.endpoints.insert(PEER, &addresses);
    assert_eq!(bench.endpoints.deadline(), None, "nor with new addresses");
    bench.fail(1);
    assert_eq!(bench.dialed.last(), Some(&at("10.0.0.5:1")));
    bench.fail(3);
    assert_eq!(bench.dialed.last(), Some(&at("10.0.0.1:1")));
    bench.fail(4);
    assert!(bench.end.is_some());
}

#[test]
fn answer_is_dialed_beside_an_address_that_is_late() {
    let mut bench = Bench::dialing("10.0.0.1:1|late.example:1");
    let start = bench.now;
    assert_eq!(bench.endpoints.deadline(), None);
    bench.now += DIAL_STAGGER * 10;
    let found = Ok(vec![at("10.0.0.2:0")]);
    let (_, step) = bench.endpoints.on_found(1, &found, bench.now).unwrap();
    assert_eq!(step, None);
    assert_eq!(bench.endpoints.deadline(), Some(start + DIAL_STAGGER));
    let (_, step) = bench.endpoints.overdue(bench.now).unwrap();
    bench.step(step);
    assert_eq!(bench.dialed(), "10.0.0.1:1|10.0.0.2:1");
}

#[test]
fn sign_of_life_gives_up_the_oldest_connect_then_all() {
    let mut bench = Bench::dialing("10.0.0.1:1|10.0.0.2:1|10.0.0.3:1|10.0.0.4:1");
    bench.pass();
    bench.pass();
    let (given_up, _, step) = bench.endpoints.try_next_address(PEER, bench.now).unwrap();
    assert_eq!(given_up, [key(0)]);
    assert_eq!(step, Step::Connect(at("10.0.0.4:1")));
    bench.step(step);
    let (given_up, _, step) = bench.endpoints.try_next_address(PEER, bench.now).unwrap();
    assert_eq!(given_up, [key(1), key(2), key(3)]);
    assert_eq!(step, Step::Connect(at("10.0.0.1:1")));
    bench.step(step);
    assert_eq!(bench.endpoints.finish(PEER), [key(4)]);
    assert_eq!(bench.endpoints.deadline(), None);
}

#[test]
fn answer_to_an_outdated_lookup_is_ignored() {
    let mut endpoints = Endpoints::default();
    let (older, step) = start(&mut endpoints, &["old.example:1"]);
    assert_eq!(step, Step::Wait);
    let (newer, _) = start(&mut endpoints, &["new.example:1"]);
    assert_eq!(found(&mut endpoints, older, &["10.0.0.1:0"]), None);
    let connect = Step::Connect(at("10.0.0.2:1"));
    let answer = found(&mut endpoints, newer, &["10.0.0.2:0"]);
    assert_eq!(
        answer,
        Some((LookupOwner::Endpoint(PEER, 0), Some(connect)))
    );
    assert_eq!(
        found(&mut endpoints, newer, &[]),
        None,
        "it is answered once"
    );
}

#[test]
fn each_address_is_tried_once_up_to_a_limit() {
    let mut endpoints = Endpoints::default();
    let (lookup_id, mut step) = start(&mut endpoints, &["10.0.0.1:1", "many.example:1"]);
    let many: Vec<String> = (1..=99).map(|host| format!("10.0.0.{host}:0")).collect();
    let all: Vec<&str> = many.iter().map(String::as_str).collect();
    let answer = found(&mut endpoints, lookup_id, &all);
    assert_eq!(
        answer,
        Some((LookupOwner::Endpoint(PEER, 1), None)),
        "it connects"
    );
    let known = &endpoints.peers[&PEER].endpoints[1].known;
    assert_eq!(known.len(), NAME_ADDRESSES_MAX);
    let mut tried = Vec::new();
    while let Step::Connect(addr) = step {
        tried.push(addr);
        step = fail(&mut endpoints);
    }
    let all = all.iter().map(|addr| SocketAddr::new(at(addr).ip(), 1));
    assert_eq!(tried, all.take(NAME_ADDRESSES_MAX).collect::<Vec<_>>());
    let last = Step::Exhausted(Some(at("10.9.9.9:9")), Reason::ConnectTimeout);
    assert_eq!(step, last);
}

#[test]
fn try_next_address_starts_a_lookup_after_the_last_address() {
    let mut endpoints = Endpoints::default();
    let now = Instant::now();
    let (lookup_id, _) = start(&mut endpoints, &["moves.example:1"]);
    assert_eq!(
        endpoints.try_next_address(PEER, now),
        None,
        "nothing is tried yet"
    );
    found(&mut endpoints, lookup_id, &["10.0.0.1:0", "10.0.0.2:0"]);
    endpoints.on_connecting(PEER, key(1), at("10.0.0.1:1"));
    let next = (vec![key(1)], vec![], Step::Connect(at("10.0.0.2:1")));
    assert_eq!(endpoints.try_next_address(PEER, now), Some(next));
    assert_eq!(
        endpoints.try_next_address(PEER, now),
        None,
        "it has just begun"
    );
    endpoints.on_connecting(PEER, key(2), at("10.0.0.2:1"));
    let question = Lookup {
        lookup_id: lookup_id + 1,
        host: "moves.example".into(),
    };
    let again = Step::Connect(at("10.0.0.1:1"));
    let anew = (vec![key(2)], vec![question], again);
    assert_eq!(endpoints.try_next_address(PEER, now), Some(anew));
    endpoints.on_connecting(PEER, key(3), at("10.0.0.1:1"));
    assert_eq!(endpoints.underway(PEER).collect::<Vec<_>>(), [key(3)]);
    let answer = found(&mut endpoints, lookup_id + 1, &["10.0.0.3:0"]);
    assert_eq!(answer, Some((LookupOwner::Endpoint(PEER, 0), None)));
    assert_eq!(
        endpoints.redirect(PEER, key(3), now),
        Step::Connect(at("10.0.0.3:1"))
    );
    assert_eq!(endpoints.underway(PEER).next(), None);
}

#[test]
fn dial_after_its_last_address_waits_briefly_for_a_lookup() {
    let mut endpoints = Endpoints::default();
    let now = Instant::now();
    let addresses = ["10.0.0.1:1", "slow.example:1"].map(|text| text.parse().unwrap());
    endpoints.insert(PEER, &addresses);
    let connect = || Step::Connect(at("10.0.0.1:1"));
    assert_eq!(endpoints.start(PEER, now).1, connect());
    assert_eq!(endpoints.deadline(), None);
    let failed = (at("10.0.0.1:1"), Reason::Closed);
    assert_eq!(endpoints.next(PEER, None, failed.clone(), now), Step::Wait);
    let late = now + LOOKUP_GRACE;
    assert_eq!(endpoints.deadline(), Some(late));
    let end = Step::Exhausted(Some(failed.0), failed.1);
    assert_eq!(endpoints.overdue(late), Some((PEER, end)));
    let due = (endpoints.overdue(late), endpoints.deadline());
    assert_eq!(due, (None, None), "it ends once");
    // The name is still being looked up, which does not delay the next dial.
    assert_eq!(endpoints.start(PEER, late), (vec![], connect()));
}

#[test]
fn removed_peer_has_no_endpoints() {
    let mut endpoints = Endpoints::default();
    let (lookup_id, _) = start(&mut endpoints, &["old.example:1"]);
    endpoints.remove(PEER);
    assert_eq!(found(&mut endpoints, lookup_id, &["10.0.0.1:0"]), None);
    assert_eq!(fail(&mut endpoints), Step::Wait);
    assert_eq!(
        (endpoints.finish(PEER), endpoints.deadline()),
        (vec![], None)
    );
}

/// An admitted peer that advertised no address: its dial must end, so that its place is free.
#[test]
fn dial_without_an_address_ends_at_once() {
    let mut endpoints = Endpoints::default();
    let nowhere = Step::Exhausted(None, Reason::NoAddress(String::new()));
    assert_eq!(endpoints.start(PEER, Instant::now()), (vec![], nowhere));
    assert_eq!(endpoints.deadline(), None);
}
