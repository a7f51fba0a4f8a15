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
    collections::{BTreeMap, BTreeSet},
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
    /// The known addresses of all peers, as of the last question; `None` after a change.
    homes: Option<BTreeSet<IpAddr>>,
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
    /// An address to listen on, by its index.
    OwnAddress(usize),
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
        self.homes = None;
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
        self.homes = None;
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

    /// Whether this is one of the known addresses of any peer.
    pub(super) fn is_home_of_any(&mut self, ip: IpAddr) -> bool {
        let peers = &self.peers;
        let homes = self.homes.get_or_insert_with(|| {
            let endpoints = peers.values().flat_map(|peer| &peer.endpoints);
            let known = endpoints.flat_map(|endpoint| &endpoint.known);
            known.map(|addr| addr.ip().to_canonical()).collect()
        });
        homes.contains(&ip.to_canonical())
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
        // A dial that corrects an earlier one is not corrected itself: see `is_outdated`.
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
            // Before the outcome is known: an address is tried once in a dial, however it ends.
            peer_endpoints.tried.push(addr);
            return Step::Connect(addr);
        }
        if peer_endpoints.is_asking() {
            peer_endpoints.dial = Dial::Looking;
            let wait = if peer_endpoints.tried.is_empty() {
                LOOKUP_TIMEOUT
            } else {
                LOOKUP_GRACE
            };
            self.due.insert(peer, now + wait);
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
        // `None`: nobody waits for this answer any more, since `insert` or `remove` has forgotten the lookup.
        let asker = self.asked.remove(&lookup_id)?;
        let LookupOwner::Endpoint(peer, index) = asker else {
            return Some((asker, None));
        };
        let peer_endpoints = self.peers.get_mut(&peer)?;
        peer_endpoints.endpoints.get_mut(index)?.learn(answer);
        self.homes = None;
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
            // The answers of the resolver have no port: it comes from the address that has the name.
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
mod tests;
