//! Where each peer can be reached: its addresses, what its names resolve to, and which address a dial tries next.
//!
//! Nothing here connects: the loop does, and reports the outcome.
//!
//! A dial begins at once with the known addresses: literals, and the last good answers for names. The names are looked up again at
//! the same time, since addresses change (ZOOKEEPER-1506). Addresses of a new answer are tried next. If the answer does not contain
//! the address that is being tried, the loop continues with the others at once.
//!
//! A dial without a known address waits for the first answer, for at most [`LOOKUP_TIMEOUT`]. A dial that has tried all known
//! addresses waits for outstanding answers, for at most [`LOOKUP_GRACE`].

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    limits::{
        LOOKUP_GRACE, LOOKUP_TIMEOUT, NAME_ADDRESSES_MAX, NO_ADDRESS_BYTES_MAX, RESOLVE_PAUSE,
    },
    net::{NO_ADDRESS, cut, words_of},
    proto::{Address, ConnectionKey, PeerId, Reason},
};

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    peers: BTreeMap<PeerId, PeerEndpoints>,
    /// Lookups that are not answered yet, by id.
    asked: BTreeMap<u64, LookupOwner>,
    lookup_ids: u64,
    /// Dials that wait for answers, and until when.
    due: BTreeMap<PeerId, Instant>,
}

#[derive(Debug)]
struct PeerEndpoints {
    endpoints: Vec<Endpoint>,
    /// When the names were last looked up because a connection from an unknown address claimed to be this peer.
    inquired: Option<Instant>,
    dial: Dial,
    /// The addresses that the current dial has tried. If none is underway, those of the last dial.
    tried: Vec<SocketAddr>,
    /// The last failure among these.
    failed: Option<(SocketAddr, Reason)>,
    /// True exactly when an outstanding answer may show that the dial went to an old address of the peer.
    unsure: bool,
    /// True exactly when the next dial is made because of such an answer.
    corrects: bool,
}

/// One configured address, and the last good answer for its name.
#[derive(Debug)]
struct Endpoint {
    address: Address,
    /// The ports have no meaning.
    known: Vec<SocketAddr>,
    /// Why the last lookup without an address gave none.
    said: String,
    asking: bool,
}

/// The state of a dial.
///
/// ```text
///   Idle --> Connecting --failed--> Connecting       while an address is untried
///     `--> Looking --answer--> Connecting
///          Connecting --failed--> Looking            while names are being looked up
///   each of them --Exhausted, finish--> Idle
/// ```
#[derive(Debug)]
enum Dial {
    Idle,
    /// All known addresses were tried, and names are being looked up.
    Looking,
    /// `link` is being connected.
    Connecting {
        link: Option<ConnectionKey>,
    },
}

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupOwner {
    Endpoint(PeerId, usize),
    Listener(usize),
}

/// A name to look up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    /// The id that the answer carries.
    pub(super) lookup_id: u64,
    pub(super) host: String,
}

/// What a dial needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers are outstanding, or there is no dial.
    Wait,
    /// Connect to this address.
    Connect(SocketAddr),
    /// No address is left to try. The last one that was tried, and why it failed.
    Exhausted(Option<SocketAddr>, Reason),
}

impl Endpoints {
    /// Sets the addresses of the peer, in place of the previous ones.
    pub(super) fn insert(&mut self, peer: PeerId, addresses: &[Address]) {
        let endpoint = |address: &Address| Endpoint {
            address: address.clone(),
            known: address
                .ip()
                .map(|ip| SocketAddr::new(ip, 0))
                .into_iter()
                .collect(),
            said: String::new(),
            asking: false,
        };
        let endpoints = addresses.iter().map(endpoint).collect();
        self.forget_lookups(peer);
        match self.peers.get_mut(&peer) {
            // A dial that is underway continues.
            Some(peer_endpoints) => peer_endpoints.endpoints = endpoints,
            None => {
                self.peers.insert(
                    peer,
                    PeerEndpoints {
                        endpoints,
                        inquired: None,
                        dial: Dial::Idle,
                        tried: Vec::new(),
                        failed: None,
                        unsure: false,
                        corrects: false,
                    },
                );
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.due.remove(&peer);
        self.forget_lookups(peer);
    }

    /// Forgets the lookups of this peer. Their answers are for names that it does not have any more, or for a peer that is gone.
    fn forget_lookups(&mut self, peer: PeerId) {
        self.asked
            .retain(|_, asker| !matches!(asker, LookupOwner::Endpoint(whose, _) if *whose == peer));
    }

    /// Whether this is one of the known addresses of the peer.
    pub(super) fn is_home(&self, peer: PeerId, ip: IpAddr) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer_endpoints| peer_endpoints.is_home(ip))
    }

    /// Whether names of this peer are being looked up.
    pub(super) fn is_asking(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(PeerEndpoints::is_asking)
    }

    /// A new lookup id. The answer carries it.
    pub(super) fn lookup_id(&mut self, asker: LookupOwner) -> u64 {
        self.lookup_ids += 1;
        self.asked.insert(self.lookup_ids, asker);
        self.lookup_ids
    }

    /// Starts a dial. Returns the names to look up at the same time. They are looked up at each dial, since addresses change
    /// (ZOOKEEPER-1506).
    pub(super) fn start(&mut self, peer: PeerId, now: Instant) -> (Vec<Lookup>, Step) {
        let lookups = self.ask(peer);
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            // A peer that advertised no address cannot be dialed.
            let nowhere = Reason::NoAddress(String::new());
            return (lookups, Step::Exhausted(None, nowhere));
        };
        peer_endpoints.tried.clear();
        peer_endpoints.failed = None;
        peer_endpoints.unsure =
            peer_endpoints.is_asking() && !std::mem::take(&mut peer_endpoints.corrects);
        (lookups, self.advance(peer, now))
    }

    /// The next step of a dial when no connect is underway.
    fn advance(&mut self, peer: PeerId, now: Instant) -> Step {
        self.due.remove(&peer);
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return Step::Wait;
        };
        if let Some(addr) = peer_endpoints.untried() {
            peer_endpoints.dial = Dial::Connecting { link: None };
            peer_endpoints.tried.push(addr);
            return Step::Connect(addr);
        }
        if peer_endpoints.is_asking() {
            peer_endpoints.dial = Dial::Looking;
            let contender_timeout = if peer_endpoints.tried.is_empty() {
                LOOKUP_TIMEOUT
            } else {
                LOOKUP_GRACE
            };
            self.due.insert(peer, now + contender_timeout);
            return Step::Wait;
        }
        peer_endpoints.exhaust()
    }

    /// A connection from an unknown address claims to be this peer. Returns the names to look up for that.
    pub(super) fn resolve(&mut self, peer: PeerId, now: Instant) -> Vec<Lookup> {
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        if peer_endpoints
            .inquired
            .is_some_and(|at| now < at + RESOLVE_PAUSE)
        {
            return Vec::new();
        }
        peer_endpoints.inquired = Some(now);
        self.ask(peer)
    }

    /// Marks all names of this peer as being looked up. Returns those that were not marked before.
    fn ask(&mut self, peer: PeerId) -> Vec<Lookup> {
        let mut lookups = Vec::new();
        let endpoints = self
            .peers
            .get_mut(&peer)
            .map(|peer_endpoints| &mut peer_endpoints.endpoints);
        for (index, endpoint) in endpoints.into_iter().flatten().enumerate() {
            if endpoint.address.ip().is_none() && !endpoint.asking {
                endpoint.asking = true;
                self.lookup_ids += 1;
                self.asked
                    .insert(self.lookup_ids, LookupOwner::Endpoint(peer, index));
                lookups.push(Lookup {
                    lookup_id: self.lookup_ids,
                    host: endpoint.address.host().to_owned(),
                });
            }
        }
        lookups
    }

    /// An answer has arrived. Returns the owner of the lookup. If a dial waited for the answer, also returns the next step of that
    /// dial.
    pub(super) fn on_found(
        &mut self,
        lookup_id: u64,
        answer: &io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) -> Option<(LookupOwner, Option<Step>)> {
        let asker = self.asked.remove(&lookup_id)?;
        let LookupOwner::Endpoint(peer, index) = asker else {
            return Some((asker, None));
        };
        let peer_endpoints = self.peers.get_mut(&peer)?;
        peer_endpoints.endpoints.get_mut(index)?.learn(answer);
        let waited = matches!(peer_endpoints.dial, Dial::Looking)
            && (peer_endpoints.untried().is_some() || !peer_endpoints.is_asking());
        Some((asker, waited.then(|| self.advance(peer, now))))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The next dial that has waited long enough for answers. It continues with the known addresses.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(PeerId, Step)> {
        let (&peer, _) = self.due.iter().find(|(_, at)| **at <= now)?;
        self.due.remove(&peer);
        let peer_endpoints = self.peers.get_mut(&peer)?;
        let step = match peer_endpoints.untried() {
            Some(_) => self.advance(peer, now),
            None => peer_endpoints.exhaust(),
        };
        Some((peer, step))
    }

    /// The connect that [`Step::Connect`] asked for is underway.
    pub(super) fn on_connecting(&mut self, peer: PeerId, key: ConnectionKey) {
        if let Some(PeerEndpoints {
            dial: Dial::Connecting { link },
            ..
        }) = self.peers.get_mut(&peer)
        {
            *link = Some(key);
        }
    }

    /// The address failed. Returns the step to the next one.
    pub(super) fn next(
        &mut self,
        peer: PeerId,
        failed: (SocketAddr, Reason),
        now: Instant,
    ) -> Step {
        match self.peers.get_mut(&peer) {
            Some(peer_endpoints) if matches!(peer_endpoints.dial, Dial::Connecting { .. }) => {
                peer_endpoints.failed = Some(failed);
                self.advance(peer, now)
            }
            _ => Step::Wait,
        }
    }

    /// The peer is alive, but the address that is being tried fails or does not answer yet. Continues with the next address. After
    /// the last one it starts a new dial with new lookups, since the peer may have moved. Also returns the connection that was
    /// underway; `None` if there was none.
    pub(super) fn try_next_address(
        &mut self,
        peer: PeerId,
        now: Instant,
    ) -> Option<(ConnectionKey, Vec<Lookup>, Step)> {
        let peer_endpoints = self.peers.get_mut(&peer)?;
        let Dial::Connecting { link } = &mut peer_endpoints.dial else {
            return None;
        };
        let key = link.take()?;
        let (lookups, step) = if peer_endpoints.untried().is_some() {
            (Vec::new(), self.advance(peer, now))
        } else {
            self.start(peer, now)
        };
        Some((key, lookups, step))
    }

    /// The connection that is being connected.
    pub(super) fn connecting(&self, peer: PeerId) -> Option<ConnectionKey> {
        match self.peers.get(&peer)?.dial {
            Dial::Connecting { link } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }

    /// The names do not contain the address that is being tried any more. The dial continues with the others.
    pub(super) fn redirect(&mut self, peer: PeerId, now: Instant) -> Step {
        match self.peers.get(&peer) {
            Some(PeerEndpoints {
                dial: Dial::Connecting { .. },
                ..
            }) => self.advance(peer, now),
            _ => Step::Wait,
        }
    }

    /// Whether the dial led to an old address of the peer, as a later answer shows: the host that has the address now may be
    /// another one. Returns `true` at most once per dial, and never for the dial that follows from it. Otherwise a name with a
    /// different answer each time would end the link again and again.
    pub(super) fn is_outdated(&mut self, peer: PeerId, ip: IpAddr) -> bool {
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return false;
        };
        if !peer_endpoints.unsure {
            return false;
        }
        peer_endpoints.corrects = !peer_endpoints.is_home(ip);
        peer_endpoints.unsure = !peer_endpoints.corrects && peer_endpoints.is_asking();
        peer_endpoints.corrects
    }

    /// The dial has succeeded or is given up. Returns the connection that was underway.
    pub(super) fn finish(&mut self, peer: PeerId) -> Option<ConnectionKey> {
        self.due.remove(&peer);
        let peer_endpoints = self.peers.get_mut(&peer)?;
        peer_endpoints.unsure &= peer_endpoints.is_asking();
        match std::mem::replace(&mut peer_endpoints.dial, Dial::Idle) {
            Dial::Connecting { link } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }
}

impl PeerEndpoints {
    fn is_asking(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.asking)
    }

    fn is_home(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_there = |known: &SocketAddr| known.ip().to_canonical() == ip;
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.known.iter().any(is_there))
    }

    /// The first known address that this dial has not tried, if it may try one more.
    fn untried(&self) -> Option<SocketAddr> {
        let known = self.endpoints.iter().flat_map(|endpoint| {
            let at = |mut addr: SocketAddr| {
                addr.set_port(endpoint.address.port());
                addr
            };
            endpoint.known.iter().copied().map(at)
        });
        let is_new = |addr: &SocketAddr| !self.tried.contains(addr);
        (self.tried.len() < NAME_ADDRESSES_MAX)
            .then_some(known)?
            .find(is_new)
    }

    /// Ends a dial that has no address left to try.
    fn exhaust(&mut self) -> Step {
        self.dial = Dial::Idle;
        match self.failed.take() {
            Some((addr, reason)) => Step::Exhausted(Some(addr), reason),
            None => Step::Exhausted(None, Reason::NoAddress(self.explain())),
        }
    }

    /// The names, and what the resolver reported for each.
    fn explain(&self) -> String {
        let explain = |endpoint: &Endpoint| {
            let said = match &*endpoint.said {
                "" => "no answer in time",
                said => said,
            };
            format!("{} ({said})", endpoint.address.host())
        };
        let names: Vec<String> = self.endpoints.iter().map(explain).collect();
        cut(&names.join(", "), NO_ADDRESS_BYTES_MAX)
    }
}

impl Endpoint {
    /// The name was looked up. An answer without an address removes none.
    fn learn(&mut self, answer: &io::Result<Vec<SocketAddr>>) {
        self.asking = false;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                self.said = words_of(error);
                return;
            }
        };
        // The unspecified address would mean this machine.
        let can_be_dialed = |address: &&SocketAddr| !address.ip().is_unspecified();
        // A name can have thousands of addresses.
        let dialable = found.iter().filter(can_be_dialed).copied();
        let known: Vec<SocketAddr> = dialable.take(NAME_ADDRESSES_MAX).collect();
        match (found.first(), known.is_empty()) {
            (_, false) => self.known = known,
            (Some(any), true) => {
                self.said = format!("it means {}, which cannot be dialed", any.ip())
            }
            (None, true) => self.said = NO_ADDRESS.to_owned(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
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
    fn an_answer_for_an_older_name_means_nothing() {
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
    fn each_address_is_tried_once_and_not_too_many() {
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
    fn whoever_claims_to_be_the_peer_has_its_name_looked_up_now_and_then() {
        let mut endpoints = Endpoints::default();
        let now = Instant::now();
        assert_eq!(endpoints.resolve(PEER, now), []);
        let (lookup_id, _) = start(&mut endpoints, &["10.0.0.9:1", "moves.example:1"]);
        assert_eq!(endpoints.resolve(PEER, now), [], "it is being looked up");
        found(&mut endpoints, lookup_id, &["10.0.0.1:0"]).unwrap();
        assert_eq!(endpoints.resolve(PEER, now), [], "it was just asked for");
        let lookups = endpoints.resolve(PEER, now + RESOLVE_PAUSE);
        let question = Lookup {
            lookup_id: lookup_id + 1,
            host: "moves.example".into(),
        };
        assert_eq!(lookups, [question]);
        let answer = found(&mut endpoints, lookup_id + 1, &["10.0.0.2:0"]);
        assert_eq!(answer, Some((LookupOwner::Endpoint(PEER, 1), None)));
        for (ip, is_home) in [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.9", true)] {
            assert_eq!(endpoints.is_home(PEER, ip.parse().unwrap()), is_home);
        }
    }

    #[test]
    fn who_is_in_a_hurry_and_has_tried_all_looks_the_name_up_anew() {
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
    fn a_dial_that_knows_nothing_waits_for_an_answer_and_not_for_ever() {
        let mut endpoints = Endpoints::default();
        let now = Instant::now();
        let late = now + LOOKUP_TIMEOUT;
        endpoints.insert(PEER, &["silent.example:1".parse().unwrap()]);
        assert_eq!(endpoints.start(PEER, now).1, Step::Wait);
        assert_eq!(endpoints.deadline(), Some(late));
        assert_eq!(endpoints.overdue(late - LOOKUP_TIMEOUT / 2), None);
        let nowhere = Reason::NoAddress("silent.example (no answer in time)".into());
        let step = Step::Exhausted(None, nowhere);
        assert_eq!(endpoints.overdue(late), Some((PEER, step)));
        assert_eq!(
            (endpoints.overdue(late), endpoints.deadline()),
            (None, None)
        );
    }

    #[test]
    fn a_dial_that_has_tried_all_waits_for_an_answer_a_little() {
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
        // The name is still being looked up, which does not delay the next dial.
        assert_eq!(endpoints.start(PEER, late), (vec![], connect()));
    }

    #[test]
    fn a_peer_that_is_gone_is_nowhere() {
        let mut endpoints = Endpoints::default();
        let (lookup_id, _) = start(&mut endpoints, &["old.example:1"]);
        endpoints.remove(PEER);
        assert_eq!(found(&mut endpoints, lookup_id, &["10.0.0.1:0"]), None);
        assert_eq!(fail(&mut endpoints), Step::Wait);
        assert_eq!((endpoints.finish(PEER), endpoints.deadline()), (None, None));
    }

    /// An admitted peer that advertised no address: its dial must end, so that its place is free.
    #[test]
    fn a_dial_of_a_peer_without_an_address_ends_at_once() {
        let mut endpoints = Endpoints::default();
        let nowhere = Step::Exhausted(None, Reason::NoAddress(String::new()));
        assert_eq!(endpoints.start(PEER, Instant::now()), (vec![], nowhere));
        assert_eq!(endpoints.deadline(), None);
    }

    #[test]
    fn a_name_with_thousands_of_addresses_is_known_by_a_few() {
        let mut endpoints = Endpoints::default();
        let (lookup_id, _) = start(&mut endpoints, &["everywhere.example:3888"]);
        let addresses: Vec<SocketAddr> = (0..10_000_u32)
            .map(|n| SocketAddr::new(IpAddr::from((n + 1).to_be_bytes()), 0))
            .collect();
        let answer = endpoints.on_found(lookup_id, &Ok(addresses), Instant::now());
        assert!(matches!(answer, Some((_, Some(Step::Connect(_))))));
        assert_eq!(
            endpoints.peers[&PEER].endpoints[0].known.len(),
            NAME_ADDRESSES_MAX
        );
    }
}
