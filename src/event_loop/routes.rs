//! Where each peer can be reached: its addresses, what its names point to, and which address a dial tries next.
//!
//! Nothing here connects; the loop does, and tells the outcome.
//!
//! A dial begins at once with what is known: literals, and the last good answers for names. The names are looked up anew beside
//! it, since addresses move (ZOOKEEPER-1506). What an answer brings is tried next; if it takes away the address that is being
//! tried, the loop goes on with the others at once. A dial that knows no address waits for the first one, for
//! [`LOOKUP_TIMEOUT`] at most. A dial that has tried all it knows waits for answers that are still to come, for
//! [`LOOKUP_GRACE`] at most.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    limits::{INQUIRY_PAUSE, LOOKUP_GRACE, LOOKUP_TIMEOUT, NO_ADDRESS_BYTES_MAX, ROUTES_MAX},
    net::{NO_ADDRESS, cut, words_of},
    proto::{Address, ConnectionKey, PeerId, Reason},
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
    /// What the dial has tried, or the last one if none is underway.
    tried: Vec<SocketAddr>,
    /// What became of the last of these.
    failed: Option<(SocketAddr, Reason)>,
    /// True exactly when answers are still to come that may show that the dial went to where the peer is no more.
    unsure: bool,
    /// True exactly when the next dial is made because such an answer came.
    corrects: bool,
}

/// One configured address, and the last good answer to its name.
#[derive(Debug)]
struct Place {
    address: Address,
    /// With ports that mean nothing.
    known: Vec<SocketAddr>,
    /// What the resolver said instead, the last time.
    said: String,
    asking: bool,
}

/// Where a dial stands.
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
    /// All that is known was tried, and names are being looked up.
    Looking,
    /// `link` is being connected.
    Connecting {
        link: Option<ConnectionKey>,
    },
}

/// Who wanted to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Place(PeerId, usize),
    Listener(usize),
}

/// A name to look up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// What its answer is to bear.
    pub(super) ticket: u64,
    pub(super) host: String,
}

/// What a dial needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers are to come, or there is no dial.
    Wait,
    /// This address is to be connected.
    Connect(SocketAddr),
    /// There is no address left to try. The last one that was tried, and what became of that.
    Exhausted(Option<SocketAddr>, Reason),
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
            said: String::new(),
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
        self.routes.remove(&peer);
        self.due.remove(&peer);
        self.forget_questions(peer);
    }

    /// Answers still to come are for names, or for a generation of the id, that are gone.
    fn forget_questions(&mut self, peer: PeerId) {
        self.asked
            .retain(|_, asker| !matches!(asker, Asker::Place(whose, _) if *whose == peer));
    }

    /// Whether connections of this peer come from here, as far as is known.
    pub(super) fn is_home(&self, peer: PeerId, ip: IpAddr) -> bool {
        self.routes
            .get(&peer)
            .is_some_and(|route| route.is_home(ip))
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

    /// Starts a dial. Returns the names to look up beside it, anew each time, since addresses move (ZOOKEEPER-1506).
    pub(super) fn start(&mut self, peer: PeerId, now: Instant) -> (Vec<Question>, Step) {
        let questions = self.ask(peer);
        let Some(route) = self.routes.get_mut(&peer) else {
            // Whoever came without an address cannot be dialed.
            let nowhere = Reason::NoAddress(String::new());
            return (questions, Step::Exhausted(None, nowhere));
        };
        route.tried.clear();
        route.failed = None;
        route.unsure = route.is_asking() && !std::mem::take(&mut route.corrects);
        (questions, self.advance(peer, now))
    }

    /// What a dial does next, when nothing is being connected any more.
    fn advance(&mut self, peer: PeerId, now: Instant) -> Step {
        self.due.remove(&peer);
        let Some(route) = self.routes.get_mut(&peer) else {
            return Step::Wait;
        };
        if let Some(addr) = route.untried() {
            route.dial = Dial::Connecting { link: None };
            route.tried.push(addr);
            return Step::Connect(addr);
        }
        if route.is_asking() {
            route.dial = Dial::Looking;
            let patience = if route.tried.is_empty() {
                LOOKUP_TIMEOUT
            } else {
                LOOKUP_GRACE
            };
            self.due.insert(peer, now + patience);
            return Step::Wait;
        }
        route.exhaust()
    }

    /// Somebody claims to be this peer from where it is not known to be. Returns the names to look up for that.
    pub(super) fn inquire(&mut self, peer: PeerId, now: Instant) -> Vec<Question> {
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
    fn ask(&mut self, peer: PeerId) -> Vec<Question> {
        let mut questions = Vec::new();
        let places = self.routes.get_mut(&peer).map(|route| &mut route.places);
        for (index, place) in places.into_iter().flatten().enumerate() {
            if place.address.ip().is_none() && !place.asking {
                place.asking = true;
                self.tickets += 1;
                self.asked.insert(self.tickets, Asker::Place(peer, index));
                questions.push(Question {
                    ticket: self.tickets,
                    host: place.address.host().to_owned(),
                });
            }
        }
        questions
    }

    /// An answer has come. Returns who asked, and for a place what its dial does next, if it waited for this.
    pub(super) fn on_found(
        &mut self,
        ticket: u64,
        answer: &io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) -> Option<(Asker, Option<Step>)> {
        let asker = self.asked.remove(&ticket)?;
        let Asker::Place(peer, index) = asker else {
            return Some((asker, None));
        };
        let route = self.routes.get_mut(&peer)?;
        route.places.get_mut(index)?.learn(answer);
        let waited = matches!(route.dial, Dial::Looking)
            && (route.untried().is_some() || !route.is_asking());
        Some((asker, waited.then(|| self.advance(peer, now))))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The next dial that has waited long enough for answers: it goes on with what is known.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(PeerId, Step)> {
        let (&peer, _) = self.due.iter().find(|(_, at)| **at <= now)?;
        self.due.remove(&peer);
        let route = self.routes.get_mut(&peer)?;
        let step = match route.untried() {
            Some(_) => self.advance(peer, now),
            None => route.exhaust(),
        };
        Some((peer, step))
    }

    /// The connection that was asked for is underway.
    pub(super) fn on_connecting(&mut self, peer: PeerId, key: ConnectionKey) {
        if let Some(Route {
            dial: Dial::Connecting { link },
            ..
        }) = self.routes.get_mut(&peer)
        {
            *link = Some(key);
        }
    }

    /// The address did not work: the next one.
    pub(super) fn next(
        &mut self,
        peer: PeerId,
        failed: (SocketAddr, Reason),
        now: Instant,
    ) -> Step {
        match self.routes.get_mut(&peer) {
            Some(route) if matches!(route.dial, Dial::Connecting { .. }) => {
                route.failed = Some(failed);
                self.advance(peer, now)
            }
            _ => Step::Wait,
        }
    }

    /// The peer is there, and the address that is being tried does not work or not yet: the next one, and after the last as if
    /// nothing were known, since the peer may be somewhere else now. Returns the connection that was underway as well; nothing
    /// if none was.
    pub(super) fn hurry(
        &mut self,
        peer: PeerId,
        now: Instant,
    ) -> Option<(ConnectionKey, Vec<Question>, Step)> {
        let route = self.routes.get_mut(&peer)?;
        let Dial::Connecting { link } = &mut route.dial else {
            return None;
        };
        let key = link.take()?;
        let (questions, step) = if route.untried().is_some() {
            (Vec::new(), self.advance(peer, now))
        } else {
            self.start(peer, now)
        };
        Some((key, questions, step))
    }

    /// The connection that is underway.
    pub(super) fn connecting(&self, peer: PeerId) -> Option<ConnectionKey> {
        match self.routes.get(&peer)?.dial {
            Dial::Connecting { link } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }

    /// The names do not mean the address any more that was being tried: the dial goes on at the others.
    pub(super) fn redirect(&mut self, peer: PeerId, now: Instant) -> Step {
        match self.routes.get(&peer) {
            Some(Route {
                dial: Dial::Connecting { .. },
                ..
            }) => self.advance(peer, now),
            _ => Step::Wait,
        }
    }

    /// Whether the dial has led to where the peer was before, as an answer shows that came later: whoever has that address now
    /// may not be the peer. Says so once in a dial, and not of the dial that follows from it, so that a name which means
    /// something else at each answer does not cost the link again and again.
    pub(super) fn is_outdated(&mut self, peer: PeerId, ip: IpAddr) -> bool {
        let Some(route) = self.routes.get_mut(&peer) else {
            return false;
        };
        if !route.unsure {
            return false;
        }
        route.corrects = !route.is_home(ip);
        route.unsure = !route.corrects && route.is_asking();
        route.corrects
    }

    /// The dial has succeeded or is given up. Returns the connection that was underway.
    pub(super) fn finish(&mut self, peer: PeerId) -> Option<ConnectionKey> {
        self.due.remove(&peer);
        let route = self.routes.get_mut(&peer)?;
        route.unsure &= route.is_asking();
        match std::mem::replace(&mut route.dial, Dial::Idle) {
            Dial::Connecting { link } => link,
            Dial::Idle | Dial::Looking => None,
        }
    }
}

impl Route {
    fn is_asking(&self) -> bool {
        self.places.iter().any(|place| place.asking)
    }

    fn is_home(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_there = |known: &SocketAddr| known.ip().to_canonical() == ip;
        self.places
            .iter()
            .any(|place| place.known.iter().any(is_there))
    }

    /// The first address that is known and was not tried in this dial, if it may try one more.
    fn untried(&self) -> Option<SocketAddr> {
        let known = self.places.iter().flat_map(|place| {
            let at = |mut addr: SocketAddr| {
                addr.set_port(place.address.port());
                addr
            };
            place.known.iter().copied().map(at)
        });
        let is_new = |addr: &SocketAddr| !self.tried.contains(addr);
        (self.tried.len() < ROUTES_MAX)
            .then_some(known)?
            .find(is_new)
    }

    /// The end of a dial that has nothing left to try.
    fn exhaust(&mut self) -> Step {
        self.dial = Dial::Idle;
        match self.failed.take() {
            Some((addr, reason)) => Step::Exhausted(Some(addr), reason),
            None => Step::Exhausted(None, Reason::NoAddress(self.explain())),
        }
    }

    /// The names, and what the resolver said of each.
    fn explain(&self) -> String {
        let explain = |place: &Place| {
            let said = match &*place.said {
                "" => "no answer in time",
                said => said,
            };
            format!("{} ({said})", place.address.host())
        };
        let names: Vec<String> = self.places.iter().map(explain).collect();
        cut(&names.join(", "), NO_ADDRESS_BYTES_MAX)
    }
}

impl Place {
    /// Its name was looked up. An answer without an address takes nothing away.
    fn learn(&mut self, answer: &io::Result<Vec<SocketAddr>>) {
        self.asking = false;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                self.said = words_of(error);
                return;
            }
        };
        // The unspecified address would be this very machine.
        let can_be_dialed = |address: &&SocketAddr| !address.ip().is_unspecified();
        // Whoever answers for a name may have thousands.
        let dialable = found.iter().filter(can_be_dialed).copied();
        let known: Vec<SocketAddr> = dialable.take(ROUTES_MAX).collect();
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

    /// Starts a dial to these addresses, one of which is a name. Returns the ticket of the lookup, and the first step.
    fn start(routes: &mut Routes, addresses: &[&str]) -> (u64, Step) {
        let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        routes.insert(PEER, &addresses);
        let (questions, step) = routes.start(PEER, Instant::now());
        (questions[0].ticket, step)
    }

    fn found(routes: &mut Routes, ticket: u64, all: &[&str]) -> Option<(Asker, Option<Step>)> {
        let all = all.iter().map(|text| at(text)).collect();
        routes.on_found(ticket, &Ok(all), Instant::now())
    }

    /// The address that was dialed last does not work.
    fn fail(routes: &mut Routes) -> Step {
        let failed = (at("10.9.9.9:9"), Reason::ConnectTimeout);
        routes.next(PEER, failed, Instant::now())
    }

    #[test]
    fn an_answer_for_an_older_name_means_nothing() {
        let mut routes = Routes::default();
        let (older, step) = start(&mut routes, &["old.example:1"]);
        assert_eq!(step, Step::Wait);
        let (newer, _) = start(&mut routes, &["new.example:1"]);
        assert_eq!(found(&mut routes, older, &["10.0.0.1:0"]), None);
        let connect = Step::Connect(at("10.0.0.2:1"));
        let answer = found(&mut routes, newer, &["10.0.0.2:0"]);
        assert_eq!(answer, Some((Asker::Place(PEER, 0), Some(connect))));
        assert_eq!(found(&mut routes, newer, &[]), None, "it is answered once");
    }

    #[test]
    fn each_address_is_tried_once_and_not_too_many() {
        let mut routes = Routes::default();
        let (ticket, mut step) = start(&mut routes, &["10.0.0.1:1", "many.example:1"]);
        let many: Vec<String> = (1..=99).map(|host| format!("10.0.0.{host}:0")).collect();
        let all: Vec<&str> = many.iter().map(String::as_str).collect();
        let answer = found(&mut routes, ticket, &all);
        assert_eq!(answer, Some((Asker::Place(PEER, 1), None)), "it connects");
        let mut tried = Vec::new();
        while let Step::Connect(addr) = step {
            tried.push(addr);
            step = fail(&mut routes);
        }
        let all = all.iter().map(|addr| SocketAddr::new(at(addr).ip(), 1));
        assert_eq!(tried, all.take(ROUTES_MAX).collect::<Vec<_>>());
        let last = Step::Exhausted(Some(at("10.9.9.9:9")), Reason::ConnectTimeout);
        assert_eq!(step, last);
    }

    #[test]
    fn whoever_claims_to_be_the_peer_has_its_name_looked_up_now_and_then() {
        let mut routes = Routes::default();
        let now = Instant::now();
        assert_eq!(routes.inquire(PEER, now), []);
        let (ticket, _) = start(&mut routes, &["10.0.0.9:1", "moves.example:1"]);
        assert_eq!(routes.inquire(PEER, now), [], "it is being looked up");
        found(&mut routes, ticket, &["10.0.0.1:0"]).unwrap();
        assert_eq!(routes.inquire(PEER, now), [], "it was just asked for");
        let questions = routes.inquire(PEER, now + INQUIRY_PAUSE);
        let question = Question {
            ticket: ticket + 1,
            host: "moves.example".into(),
        };
        assert_eq!(questions, [question]);
        let answer = found(&mut routes, ticket + 1, &["10.0.0.2:0"]);
        assert_eq!(answer, Some((Asker::Place(PEER, 1), None)));
        for (ip, is_home) in [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.9", true)] {
            assert_eq!(routes.is_home(PEER, ip.parse().unwrap()), is_home);
        }
    }

    #[test]
    fn who_is_in_a_hurry_and_has_tried_all_looks_the_name_up_anew() {
        let mut routes = Routes::default();
        let now = Instant::now();
        let key = ConnectionKey {
            index: 1,
            generation: 1,
        };
        let (ticket, _) = start(&mut routes, &["moves.example:1"]);
        assert_eq!(routes.hurry(PEER, now), None, "nothing is tried yet");
        found(&mut routes, ticket, &["10.0.0.1:0", "10.0.0.2:0"]);
        routes.on_connecting(PEER, key);
        let next = (key, vec![], Step::Connect(at("10.0.0.2:1")));
        assert_eq!(routes.hurry(PEER, now), Some(next));
        assert_eq!(routes.hurry(PEER, now), None, "it has just begun");
        routes.on_connecting(PEER, key);
        let question = Question {
            ticket: ticket + 1,
            host: "moves.example".into(),
        };
        let anew = (key, vec![question], Step::Connect(at("10.0.0.1:1")));
        assert_eq!(routes.hurry(PEER, now), Some(anew));
        routes.on_connecting(PEER, key);
        assert_eq!(routes.connecting(PEER), Some(key));
        let answer = found(&mut routes, ticket + 1, &["10.0.0.3:0"]);
        assert_eq!(answer, Some((Asker::Place(PEER, 0), None)));
        assert_eq!(routes.redirect(PEER, now), Step::Connect(at("10.0.0.3:1")));
        assert_eq!(routes.connecting(PEER), None);
    }

    #[test]
    fn a_dial_that_knows_nothing_waits_for_an_answer_and_not_for_ever() {
        let mut routes = Routes::default();
        let now = Instant::now();
        let late = now + LOOKUP_TIMEOUT;
        routes.insert(PEER, &["silent.example:1".parse().unwrap()]);
        assert_eq!(routes.start(PEER, now).1, Step::Wait);
        assert_eq!(routes.deadline(), Some(late));
        assert_eq!(routes.overdue(late - LOOKUP_TIMEOUT / 2), None);
        let nowhere = Reason::NoAddress("silent.example (no answer in time)".into());
        let step = Step::Exhausted(None, nowhere);
        assert_eq!(routes.overdue(late), Some((PEER, step)));
        assert_eq!((routes.overdue(late), routes.deadline()), (None, None));
    }

    #[test]
    fn a_dial_that_has_tried_all_waits_for_an_answer_a_little() {
        let mut routes = Routes::default();
        let now = Instant::now();
        let addresses = ["10.0.0.1:1", "slow.example:1"].map(|text| text.parse().unwrap());
        routes.insert(PEER, &addresses);
        let connect = || Step::Connect(at("10.0.0.1:1"));
        assert_eq!(routes.start(PEER, now).1, connect());
        assert_eq!(routes.deadline(), None);
        let failed = (at("10.0.0.1:1"), Reason::Closed);
        assert_eq!(routes.next(PEER, failed.clone(), now), Step::Wait);
        let late = now + LOOKUP_GRACE;
        assert_eq!(routes.deadline(), Some(late));
        let end = Step::Exhausted(Some(failed.0), failed.1);
        assert_eq!(routes.overdue(late), Some((PEER, end)));
        // The name is still being looked up, and that is no reason to wait before the next dial.
        assert_eq!(routes.start(PEER, late), (vec![], connect()));
    }

    #[test]
    fn a_peer_that_is_gone_is_nowhere() {
        let mut routes = Routes::default();
        let (ticket, _) = start(&mut routes, &["old.example:1"]);
        routes.remove(PEER);
        assert_eq!(found(&mut routes, ticket, &["10.0.0.1:0"]), None);
        assert_eq!(fail(&mut routes), Step::Wait);
        assert_eq!((routes.finish(PEER), routes.deadline()), (None, None));
    }

    /// A guest that advertised none: its dial is to end, so that its place is free.
    #[test]
    fn a_dial_of_a_peer_without_an_address_ends_at_once() {
        let mut routes = Routes::default();
        let nowhere = Step::Exhausted(None, Reason::NoAddress(String::new()));
        assert_eq!(routes.start(PEER, Instant::now()), (vec![], nowhere));
        assert_eq!(routes.deadline(), None);
    }

    #[test]
    fn a_name_with_thousands_of_addresses_is_known_by_a_few() {
        let mut routes = Routes::default();
        let (ticket, _) = start(&mut routes, &["everywhere.example:3888"]);
        let addresses: Vec<SocketAddr> = (0..10_000_u32)
            .map(|n| SocketAddr::new(IpAddr::from((n + 1).to_be_bytes()), 0))
            .collect();
        let answer = routes.on_found(ticket, &Ok(addresses), Instant::now());
        assert!(matches!(answer, Some((_, Some(Step::Connect(_))))));
        assert_eq!(routes.routes[&PEER].places[0].known.len(), ROUTES_MAX);
    }
}
