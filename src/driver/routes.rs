//! Where each peer can be reached: its addresses, what its names point to, and which address a dial tries next.
//!
//! Nothing here connects; the loop does, and tells the outcome.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    limits::{INQUIRY_PAUSE, LOOKUP_TIMEOUT, ROUTES_MAX},
    proto::{Address, LinkKey, PeerId},
};

#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: BTreeMap<PeerId, Route>,
    /// Questions on their way, by ticket.
    asked: BTreeMap<u64, Asker>,
    tickets: u64,
    /// Dials that wait for answers.
    due: BTreeMap<PeerId, Instant>,
}

#[derive(Debug)]
struct Route {
    places: Vec<Place>,
    /// When it was last asked where the peer is because somebody claimed to be it.
    inquired: Option<Instant>,
    dial: Dial,
}

/// One configured address, and the last good answer to its name.
#[derive(Debug)]
struct Place {
    address: Address,
    /// With ports that mean nothing.
    known: Vec<SocketAddr>,
    asking: bool,
}

#[derive(Debug)]
enum Dial {
    Idle,
    /// Names are being looked up.
    Looking,
    /// `link` is being connected; the rest comes if it fails.
    Connecting {
        link: Option<LinkKey>,
        rest: VecDeque<SocketAddr>,
    },
}

/// Who wanted to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Place(PeerId, usize),
    Door(usize),
}

/// What a dial needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These names are to be looked up, under these tickets.
    Lookup(Vec<(u64, String)>),
    /// This address is to be connected.
    Connect(SocketAddr),
    /// There is no address left to try.
    Exhausted,
}

impl Routes {
    /// The peer can be reached at these addresses, and no longer at others.
    pub(super) fn insert(&mut self, peer: PeerId, addresses: &[Address]) {
        let place = |address: &Address| Place {
            address: address.clone(),
            known: address
                .ip()
                .map(|ip| SocketAddr::new(ip, 0))
                .into_iter()
                .collect(),
            asking: false,
        };
        let places = addresses.iter().map(place).collect();
        self.forget_questions(peer);
        match self.routes.get_mut(&peer) {
            // A dial that is underway goes on.
            Some(route) => route.places = places,
            None => {
                self.routes.insert(
                    peer,
                    Route {
                        places,
                        inquired: None,
                        dial: Dial::Idle,
                    },
                );
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.routes.remove(&peer);
        self.due.remove(&peer);
        self.forget_questions(peer);
    }

    /// Answers still to come are for names, or for a tenant of the id, that are gone.
    fn forget_questions(&mut self, peer: PeerId) {
        self.asked
            .retain(|_, asker| !matches!(asker, Asker::Place(whose, _) if *whose == peer));
    }

    /// What is looked up to find this peer.
    pub(super) fn names(&self, peer: PeerId) -> String {
        let places = self
            .routes
            .get(&peer)
            .map_or(&[][..], |route| &route.places);
        let hosts: Vec<&str> = places.iter().map(|place| place.address.host()).collect();
        hosts.join("|")
    }

    /// Whether connections of this peer come from here, as far as is known.
    pub(super) fn is_home(&self, peer: PeerId, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_there = |known: &SocketAddr| known.ip().to_canonical() == ip;
        let of = |place: &Place| place.known.iter().any(is_there);
        self.routes
            .get(&peer)
            .is_some_and(|route| route.places.iter().any(of))
    }

    /// Whether it is being found out where this peer is.
    pub(super) fn is_asking(&self, peer: PeerId) -> bool {
        self.routes.get(&peer).is_some_and(Route::is_asking)
    }

    /// A number for a question, to be recognized by in the answer.
    pub(super) fn ticket(&mut self, asker: Asker) -> u64 {
        self.tickets += 1;
        self.asked.insert(self.tickets, asker);
        self.tickets
    }

    /// Starts a dial: looks the names up, anew each time, since addresses move (ZOOKEEPER-1506).
    pub(super) fn start(&mut self, peer: PeerId, now: Instant) -> Step {
        let questions = self.ask(peer);
        let Some(route) = self.routes.get_mut(&peer) else {
            return Step::Exhausted;
        };
        if route.is_asking() {
            route.dial = Dial::Looking;
            self.due.insert(peer, now + LOOKUP_TIMEOUT);
            return Step::Lookup(questions);
        }
        route.connect()
    }

    /// Somebody claims to be this peer from where it is not known to be. Returns the names to look up for that.
    pub(super) fn inquire(&mut self, peer: PeerId, now: Instant) -> Vec<(u64, String)> {
        let Some(route) = self.routes.get_mut(&peer) else {
            return Vec::new();
        };
        if route.inquired.is_some_and(|at| now < at + INQUIRY_PAUSE) {
            return Vec::new();
        }
        route.inquired = Some(now);
        self.ask(peer)
    }

    /// The names of this peer that are not being looked up, which they are from now on.
    fn ask(&mut self, peer: PeerId) -> Vec<(u64, String)> {
        let mut questions = Vec::new();
        let places = self.routes.get_mut(&peer).map(|route| &mut route.places);
        for (index, place) in places.into_iter().flatten().enumerate() {
            if place.address.ip().is_none() && !place.asking {
                place.asking = true;
                self.tickets += 1;
                self.asked.insert(self.tickets, Asker::Place(peer, index));
                questions.push((self.tickets, place.address.host().to_owned()));
            }
        }
        questions
    }

    /// An answer has come. Returns who asked, and for a place what its dial does next, if it waited for this.
    pub(super) fn on_found(
        &mut self,
        ticket: u64,
        addresses: &[SocketAddr],
    ) -> Option<(Asker, Option<Step>)> {
        let asker = self.asked.remove(&ticket)?;
        let Asker::Place(peer, index) = asker else {
            return Some((asker, None));
        };
        let route = self.routes.get_mut(&peer)?;
        let place = route.places.get_mut(index)?;
        place.asking = false;
        // The unspecified address would be this very machine.
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .filter(|address| !address.ip().is_unspecified())
            .copied()
            // Whoever answers for a name may have thousands.
            .take(ROUTES_MAX)
            .collect();
        if !addresses.is_empty() {
            place.known = addresses;
        }
        let ready = matches!(route.dial, Dial::Looking) && !route.is_asking();
        let step = ready.then(|| {
            self.due.remove(&peer);
            route.connect()
        });
        Some((asker, step))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The next dial that has waited long enough for answers: it goes on with what is known.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(PeerId, Step)> {
        let (&peer, _) = self.due.iter().find(|(_, at)| **at <= now)?;
        self.due.remove(&peer);
        let route = self.routes.get_mut(&peer)?;
        Some((peer, route.connect()))
    }

    /// The connection that was asked for is underway.
    pub(super) fn on_connecting(&mut self, peer: PeerId, key: LinkKey) {
        if let Some(Route {
            dial: Dial::Connecting { link, .. },
            ..
        }) = self.routes.get_mut(&peer)
        {
            *link = Some(key);
        }
    }

    /// The address did not work: the next one.
    pub(super) fn next(&mut self, peer: PeerId) -> Step {
        let Some(route) = self.routes.get_mut(&peer) else {
            return Step::Exhausted;
        };
        let Dial::Connecting { link, rest } = &mut route.dial else {
            return Step::Exhausted;
        };
        *link = None;
        match rest.pop_front() {
            Some(addr) => Step::Connect(addr),
            None => {
                route.dial = Dial::Idle;
                Step::Exhausted
            }
        }
    }

    /// The peer is there, and the address that is being tried does not work or not yet: the next one, and after the last as if
    /// nothing were known, since the peer may be somewhere else now. Returns the connection that was underway as well; nothing
    /// if none was.
    pub(super) fn hurry(&mut self, peer: PeerId, now: Instant) -> Option<(LinkKey, Step)> {
        let route = self.routes.get_mut(&peer)?;
        let Dial::Connecting { link, rest } = &mut route.dial else {
            return None;
        };
        let key = link.take()?;
        let step = match rest.pop_front() {
            Some(addr) => Step::Connect(addr),
            None => self.start(peer, now),
        };
        Some((key, step))
    }

    /// The connection that is underway.
    pub(super) fn connecting(&self, peer: PeerId) -> Option<LinkKey> {
        match self.routes.get(&peer)?.dial {
            Dial::Connecting { link, .. } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }

    /// The names mean other addresses than when the dial began: it begins anew, at these.
    pub(super) fn redirect(&mut self, peer: PeerId) -> Step {
        match self.routes.get_mut(&peer) {
            Some(route) => route.connect(),
            None => Step::Exhausted,
        }
    }

    /// The dial has succeeded or is given up. Returns the connection that was underway.
    pub(super) fn finish(&mut self, peer: PeerId) -> Option<LinkKey> {
        self.due.remove(&peer);
        match std::mem::replace(&mut self.routes.get_mut(&peer)?.dial, Dial::Idle) {
            Dial::Connecting { link, .. } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }
}

impl Route {
    fn is_asking(&self) -> bool {
        self.places.iter().any(|place| place.asking)
    }

    fn connect(&mut self) -> Step {
        let mut rest = VecDeque::new();
        for place in &self.places {
            for mut addr in place.known.iter().copied() {
                addr.set_port(place.address.port());
                if rest.len() < ROUTES_MAX && !rest.contains(&addr) {
                    rest.push_back(addr);
                }
            }
        }
        match rest.pop_front() {
            Some(first) => {
                self.dial = Dial::Connecting { link: None, rest };
                Step::Connect(first)
            }
            None => {
                self.dial = Dial::Idle;
                Step::Exhausted
            }
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

    /// Asks for the one name among these addresses. Returns its ticket.
    fn start(routes: &mut Routes, addresses: &[&str]) -> u64 {
        let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        routes.insert(PEER, &addresses);
        match routes.start(PEER, Instant::now()) {
            Step::Lookup(questions) => questions[0].0,
            other => panic!("{other:?} without a lookup"),
        }
    }

    #[test]
    fn an_answer_for_an_older_name_means_nothing() {
        let mut routes = Routes::default();
        let older = start(&mut routes, &["old.example:1"]);
        let newer = start(&mut routes, &["new.example:1"]);
        assert_eq!(routes.on_found(older, &[at("10.0.0.1:0")]), None);
        let connect = Step::Connect(at("10.0.0.2:1"));
        let found = routes.on_found(newer, &[at("10.0.0.2:0")]);
        assert_eq!(found, Some((Asker::Place(PEER, 0), Some(connect))));
        assert_eq!(routes.on_found(newer, &[]), None, "it is answered once");
    }

    #[test]
    fn each_address_is_tried_once_and_not_too_many() {
        let mut routes = Routes::default();
        let ticket = start(&mut routes, &["10.0.0.1:1", "many.example:1"]);
        let many: Vec<SocketAddr> = (1..=99)
            .map(|host| SocketAddr::from(([10, 0, 0, host], 0)))
            .collect();
        let (_, step) = routes.on_found(ticket, &many).unwrap();
        let mut step = step.unwrap();
        let mut tried = Vec::new();
        while let Step::Connect(addr) = step {
            tried.push(addr);
            step = routes.next(PEER);
        }
        let all = many.iter().map(|addr| SocketAddr::new(addr.ip(), 1));
        assert_eq!(tried, all.take(ROUTES_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_claims_to_be_the_peer_has_its_name_looked_up_now_and_then() {
        let mut routes = Routes::default();
        let now = Instant::now();
        assert_eq!(routes.inquire(PEER, now), []);
        let ticket = start(&mut routes, &["10.0.0.9:1", "moves.example:1"]);
        assert_eq!(routes.inquire(PEER, now), [], "it is being looked up");
        routes.on_found(ticket, &[at("10.0.0.1:0")]).unwrap();
        assert_eq!(routes.inquire(PEER, now), [], "it was just asked for");
        let questions = routes.inquire(PEER, now + INQUIRY_PAUSE);
        assert_eq!(questions, [(ticket + 1, "moves.example".to_owned())]);
        let found = routes.on_found(ticket + 1, &[at("10.0.0.2:0")]);
        assert_eq!(found, Some((Asker::Place(PEER, 1), None)));
        for (ip, is_home) in [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.9", true)] {
            assert_eq!(routes.is_home(PEER, ip.parse().unwrap()), is_home);
        }
    }

    #[test]
    fn who_is_in_a_hurry_and_has_tried_all_looks_the_name_up_anew() {
        let mut routes = Routes::default();
        let now = Instant::now();
        let key = LinkKey {
            index: 1,
            tenant: 1,
        };
        let ticket = start(&mut routes, &["moves.example:1"]);
        assert_eq!(routes.hurry(PEER, now), None, "nothing is tried yet");
        routes.on_found(ticket, &[at("10.0.0.1:0"), at("10.0.0.2:0")]);
        routes.on_connecting(PEER, key);
        let step = Step::Connect(at("10.0.0.2:1"));
        assert_eq!(routes.hurry(PEER, now), Some((key, step)));
        assert_eq!(routes.hurry(PEER, now), None, "it has just begun");
        routes.on_connecting(PEER, key);
        let step = Step::Lookup(vec![(ticket + 1, "moves.example".to_owned())]);
        assert_eq!(routes.hurry(PEER, now), Some((key, step)));
        let step = Some(Step::Connect(at("10.0.0.3:1")));
        let found = routes.on_found(ticket + 1, &[at("10.0.0.3:0")]);
        assert_eq!(found, Some((Asker::Place(PEER, 0), step)));
        assert_eq!(routes.connecting(PEER), None);
        routes.on_connecting(PEER, key);
        assert_eq!(routes.connecting(PEER), Some(key));
        assert_eq!(routes.redirect(PEER), Step::Connect(at("10.0.0.3:1")));
    }

    #[test]
    fn a_dial_goes_on_with_what_is_known_when_no_answer_comes() {
        let mut routes = Routes::default();
        let now = Instant::now();
        let late = now + LOOKUP_TIMEOUT;
        let addresses = ["10.0.0.1:1", "silent.example:1"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        routes.insert(PEER, &addresses);
        assert!(matches!(routes.start(PEER, now), Step::Lookup(_)));
        assert_eq!(routes.deadline(), Some(late));
        assert_eq!(routes.overdue(late - LOOKUP_TIMEOUT / 2), None);
        let step = Step::Connect(at("10.0.0.1:1"));
        assert_eq!(routes.overdue(late), Some((PEER, step)));
        assert_eq!((routes.overdue(late), routes.deadline()), (None, None));
    }

    #[test]
    fn a_peer_that_is_gone_is_nowhere() {
        let mut routes = Routes::default();
        let ticket = start(&mut routes, &["old.example:1"]);
        routes.remove(PEER);
        assert_eq!(routes.on_found(ticket, &[at("10.0.0.1:0")]), None);
        assert_eq!(routes.next(PEER), Step::Exhausted);
        assert_eq!(routes.start(PEER, Instant::now()), Step::Exhausted);
        assert_eq!((routes.finish(PEER), routes.deadline()), (None, None));
    }

    #[test]
    fn a_name_with_thousands_of_addresses_is_known_by_a_few() {
        let mut routes = Routes::default();
        let ticket = start(&mut routes, &["everywhere.example:3888"]);
        let addresses: Vec<SocketAddr> = (0..10_000_u32)
            .map(|n| SocketAddr::new(IpAddr::from((n + 1).to_be_bytes()), 0))
            .collect();
        let (_, step) = routes.on_found(ticket, &addresses).unwrap();
        assert!(matches!(step, Some(Step::Connect(_))));
        assert_eq!(routes.routes[&PEER].places[0].known.len(), ROUTES_MAX);
    }
}
