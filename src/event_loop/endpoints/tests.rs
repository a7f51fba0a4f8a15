//! Unit tests of `endpoints`.

use super::*;

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

/// The address that was dialed last fails.
fn fail(endpoints: &mut Endpoints) -> Step {
    let failed = (at("10.9.9.9:9"), Reason::ConnectTimeout);
    endpoints.next(PEER, failed, Instant::now())
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
    let key = ConnectionKey {
        index: 1,
        generation: 1,
    };
    let (lookup_id, _) = start(&mut endpoints, &["moves.example:1"]);
    assert_eq!(
        endpoints.try_next_address(PEER, now),
        None,
        "nothing is tried yet"
    );
    found(&mut endpoints, lookup_id, &["10.0.0.1:0", "10.0.0.2:0"]);
    endpoints.on_connecting(PEER, key);
    let next = (key, vec![], Step::Connect(at("10.0.0.2:1")));
    assert_eq!(endpoints.try_next_address(PEER, now), Some(next));
    assert_eq!(
        endpoints.try_next_address(PEER, now),
        None,
        "it has just begun"
    );
    endpoints.on_connecting(PEER, key);
    let question = Lookup {
        lookup_id: lookup_id + 1,
        host: "moves.example".into(),
    };
    let anew = (key, vec![question], Step::Connect(at("10.0.0.1:1")));
    assert_eq!(endpoints.try_next_address(PEER, now), Some(anew));
    endpoints.on_connecting(PEER, key);
    assert_eq!(endpoints.connecting(PEER), Some(key));
    let answer = found(&mut endpoints, lookup_id + 1, &["10.0.0.3:0"]);
    assert_eq!(answer, Some((LookupOwner::Endpoint(PEER, 0), None)));
    assert_eq!(
        endpoints.redirect(PEER, now),
        Step::Connect(at("10.0.0.3:1"))
    );
    assert_eq!(endpoints.connecting(PEER), None);
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
    assert_eq!(endpoints.next(PEER, failed.clone(), now), Step::Wait);
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
    assert_eq!((endpoints.finish(PEER), endpoints.deadline()), (None, None));
}

/// An admitted peer that advertised no address: its dial must end, so that its place is free.
#[test]
fn dial_without_an_address_ends_at_once() {
    let mut endpoints = Endpoints::default();
    let nowhere = Step::Exhausted(None, Reason::NoAddress(String::new()));
    assert_eq!(endpoints.start(PEER, Instant::now()), (vec![], nowhere));
    assert_eq!(endpoints.deadline(), None);
}
