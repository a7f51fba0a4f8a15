//! Where each peer can be reached: its addresses, what its names resolve to, and which addresses a dial tries next.
//!
//! Nothing here connects: the loop does, and reports the outcome.
//!
//! A dial begins at once with the known addresses: literals, and the last good answers for names. The names are looked up again at
//! the same time, since addresses change (ZOOKEEPER-1506). Addresses of a new answer are tried next. If the answer does not contain
//! an address that is being tried, the loop gives that one up and continues with the others at once.
//!
//! An address that does not answer delays a dial by [`DIAL_STAGGER`] only: then the next one is tried beside it, as in RFC 8305, up to
//! [`DIALS_AT_ONCE`]. An address that fails is followed by the next one at once. The first connection on which the initial message
//! can be written wins. The others are closed before that message is written, so that none of them can become a link.
//!
//! A dial without a known address waits for the first answer, for at most [`LOOKUP_TIMEOUT`]. A dial that has tried all known
//! addresses waits for outstanding answers, for at most [`LOOKUP_GRACE`].

mod peer;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    limits::{DIAL_STAGGER, DIALS_AT_ONCE, LOOKUP_GRACE, LOOKUP_TIMEOUT, RESOLVE_PAUSE},
    proto::{Address, ConnectionKey, PeerId, Reason},
};
pub(super) use peer::Step;
use peer::{Dial, Endpoint, PeerEndpoints};

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    peers: BTreeMap<PeerId, PeerEndpoints>,
    /// Lookups that are not answered yet, by id.
    asked: BTreeMap<u64, LookupOwner>,
    lookup_ids: u64,
    /// The known addresses of all peers, as of the last question; `None` after a change.
    homes: Option<BTreeSet<IpAddr>>,
    /// Dials that wait for answers, and until when; and dials whose next connection begins beside the others, and when.
    due: BTreeMap<PeerId, Instant>,
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

impl Endpoints {
    /// Sets the addresses of the peer, in place of the previous ones.
    pub(super) fn insert(&mut self, peer: PeerId, addresses: &[Address]) {
        let mut endpoints: Vec<_> = addresses.iter().map(Endpoint::new).collect();
        self.forget_lookups(peer);
        self.homes = None;
        match self.peers.get_mut(&peer) {
            // A dial that is underway continues.
            Some(peer_endpoints) => {
                for endpoint in &mut endpoints {
                    // What is known of a name that stays is known still.
                    let mut older = peer_endpoints.endpoints.iter_mut();
                    if let Some(older) = older.find(|older| older.address == endpoint.address) {
                        endpoint.known = std::mem::take(&mut older.known);
                    }
                }
                peer_endpoints.endpoints = endpoints;
                self.schedule(peer);
            }
            None => {
                self.peers.insert(peer, PeerEndpoints::new(endpoints));
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

    /// Forgets the lookup for this address to listen on.
    pub(super) fn forget_own(&mut self, index: usize) {
        self.asked
            .retain(|_, asker| *asker != LookupOwner::OwnAddress(index));
    }

    /// Whether this is one of the known addresses of the peer.
    pub(super) fn is_home(&self, peer: PeerId, ip: IpAddr) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer_endpoints| peer_endpoints.is_home(ip))
    }

    /// The configured addresses of the peer.
    pub(super) fn addresses(&self, peer: PeerId) -> Vec<Address> {
        let endpoints = self.peers.get(&peer).map(|peer| &peer.endpoints);
        let endpoints = endpoints.into_iter().flatten();
        endpoints.map(|endpoint| endpoint.address.clone()).collect()
    }

    /// Whether this is one of the known addresses of the peer, with its port.
    pub(super) fn has(&self, peer: PeerId, addr: SocketAddr) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer_endpoints| peer_endpoints.has(addr))
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

    /// The next step of a dial: one more address, if there is one.
    fn advance(&mut self, peer: PeerId, now: Instant) -> Step {
        self.due.remove(&peer);
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return Step::Wait;
        };
        if let Some(addr) = peer_endpoints.untried() {
            peer_endpoints.dial = Dial::Connecting { since: now };
            // Before the outcome is known: an address is tried once in a dial, however it ends.
            peer_endpoints.tried.push(addr);
            return Step::Connect(addr);
        }
        if !peer_endpoints.underway.is_empty() {
            return Step::Wait;
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

    /// Sets when the next address is tried beside those that are underway.
    fn schedule(&mut self, peer: PeerId) {
        let Some(peer_endpoints) = self.peers.get(&peer) else {
            return;
        };
        let Dial::Connecting { since } = peer_endpoints.dial else {
            return;
        };
        let has_room = peer_endpoints.underway.len() < DIALS_AT_ONCE;
        if has_room && peer_endpoints.untried().is_some() {
            self.due.insert(peer, since + DIAL_STAGGER);
        } else {
            self.due.remove(&peer);
        }
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
        self.schedule(peer);
        Some((asker, waited.then(|| self.advance(peer, now))))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The next dial that has waited long enough for answers, or for the addresses that are underway. It continues with the known
    /// addresses.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(PeerId, Step)> {
        let (&peer, _) = self.due.iter().find(|(_, at)| **at <= now)?;
        self.due.remove(&peer);
        let peer_endpoints = self.peers.get_mut(&peer)?;
        let step = match (peer_endpoints.untried(), peer_endpoints.dial) {
            (None, Dial::Looking) => peer_endpoints.exhaust(),
            _ => self.advance(peer, now),
        };
        Some((peer, step))
    }

    /// The connect that [`Step::Connect`] asked for is underway.
    pub(super) fn on_connecting(&mut self, peer: PeerId, key: ConnectionKey, addr: SocketAddr) {
        if let Some(peer_endpoints) = self.peers.get_mut(&peer) {
            peer_endpoints.underway.push((key, addr));
            self.schedule(peer);
        }
    }

    /// A connection is connected, and nothing is written to it yet. Returns the others that were underway, which have lost and must be
    /// closed now. Their addresses count as untried: they are tried again if this one is refused.
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        winner: ConnectionKey,
    ) -> Vec<ConnectionKey> {
        self.due.remove(&peer);
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        peer_endpoints.dial = Dial::Connected;
        let all = std::mem::take(&mut peer_endpoints.underway);
        let losers: Vec<_>;
        (peer_endpoints.underway, losers) = all.into_iter().partition(|(key, _)| *key == winner);
        let has_lost = |addr: &SocketAddr| losers.iter().any(|(_, loser)| loser == addr);
        peer_endpoints.tried.retain(|addr| !has_lost(addr));
        losers.into_iter().map(|(key, _)| key).collect()
    }

    /// The address failed: that of this connection, or one at which no connect could begin. Returns the step to the next one.
    pub(super) fn next(
        &mut self,
        peer: PeerId,
        key: Option<ConnectionKey>,
        failed: (SocketAddr, Reason),
        now: Instant,
    ) -> Step {
        let Some(peer_endpoints) = self.dialing(peer) else {
            return Step::Wait;
        };
        // A refusal that lasts says more than an address that does not answer.
        let lasts = |(_, reason): &(SocketAddr, Reason)| reason.is_lasting();
        if lasts(&failed) || !peer_endpoints.failed.as_ref().is_some_and(lasts) {
            peer_endpoints.failed = Some(failed);
        }
        peer_endpoints.underway.retain(|(it, _)| Some(*it) != key);
        self.advance(peer, now)
    }

    /// The peer is alive, but the addresses that are being tried do not answer yet. Gives up the one that was tried first, and continues
    /// with the next address. After the last one it gives up all, and starts a new dial with new lookups, since the peer may have moved.
    /// Also returns the connections that are given up; `None` if there was none.
    pub(super) fn try_next_address(
        &mut self,
        peer: PeerId,
        now: Instant,
    ) -> Option<(Vec<ConnectionKey>, Vec<Lookup>, Step)> {
        let peer_endpoints = self.dialing(peer)?;
        if peer_endpoints.underway.is_empty() {
            return None;
        }
        let is_left = peer_endpoints.untried().is_some();
        let given_up = if is_left {
            ..1
        } else {
            ..peer_endpoints.underway.len()
        };
        let given_up = peer_endpoints.underway.drain(given_up).map(|(key, _)| key);
        let given_up = given_up.collect();
        let (lookups, step) = if is_left {
            (Vec::new(), self.advance(peer, now))
        } else {
            self.start(peer, now)
        };
        Some((given_up, lookups, step))
    }

    /// The connections that are underway.
    pub(super) fn underway(&self, peer: PeerId) -> impl Iterator<Item = ConnectionKey> + '_ {
        let underway = self
            .peers
            .get(&peer)
            .map(|peer_endpoints| &peer_endpoints.underway);
        underway.into_iter().flatten().map(|(key, _)| *key)
    }

    /// The names do not contain the address of this connection any more. The dial continues with the others.
    pub(super) fn redirect(&mut self, peer: PeerId, key: ConnectionKey, now: Instant) -> Step {
        let Some(peer_endpoints) = self.dialing(peer) else {
            return Step::Wait;
        };
        peer_endpoints.underway.retain(|(it, _)| *it != key);
        self.advance(peer, now)
    }

    /// The endpoints of this peer, if a dial of it connects or is connected.
    fn dialing(&mut self, peer: PeerId) -> Option<&mut PeerEndpoints> {
        let peer_endpoints = self.peers.get_mut(&peer)?;
        matches!(
            peer_endpoints.dial,
            Dial::Connecting { .. } | Dial::Connected
        )
        .then_some(peer_endpoints)
    }

    /// A link to or from this address was proven and has ended. The next dial tries this address first, if it is one of the peer: the
    /// same port as well, if it was dialed.
    pub(super) fn on_proven(&mut self, peer: PeerId, addr: SocketAddr) {
        if let Some(peer_endpoints) = self.peers.get_mut(&peer) {
            peer_endpoints.proven = Some(addr);
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

    /// The dial has succeeded or is given up. Returns the connections that were underway.
    pub(super) fn finish(&mut self, peer: PeerId) -> Vec<ConnectionKey> {
        self.due.remove(&peer);
        let Some(peer_endpoints) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        peer_endpoints.unsure &= peer_endpoints.is_asking();
        peer_endpoints.dial = Dial::Idle;
        let underway = peer_endpoints.underway.drain(..);
        underway.map(|(key, _)| key).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
