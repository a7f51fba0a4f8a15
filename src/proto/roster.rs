//! Rules that keep one link per pair of servers: which side dials, which connection is kept, and when a dial is repeated.
//!
//! Nothing here connects or reads. Events enter as `on_*`. What must be done is returned as [`Action`]s, which the loop carries
//! out in their order.
//!
//! The link that is kept is always the one that the larger sid has dialed:
//!
//! | role | remote sid > own | remote sid < own | own sid |
//! |---|---|---|---|
//! | dialer, initial message written | a knock: close it, wait to be dialed back | keep it, replace an older link | not dialed |
//! | acceptor, initial message read | keep it, replace an older link | a knock: close it, dial back, then replace an older link | refuse it |
//!
//! A claim or a knock from one of the peer's own addresses is believed. If it arrives from another address, a stranger may have
//! sent it. It may also be the peer's, by way of a proxy, and a proxy acknowledges data for a machine that is dead. While the
//! peer is linked, such a connection has this effect:
//!
//! | the link to a larger peer came from | a claim from another address |
//! |---|---|
//! | one of the peer's own addresses | waits for the link to end |
//! | the address that the claim comes from | replaces the link |
//! | a third address | waits until the link ends or is silent for [`SILENT_AFTER`] |
//!
//! | earlier knocks of a smaller peer came from | knocks from another address |
//! |---|---|
//! | one of the peer's own addresses | have no effect |
//! | other addresses | cause a dial when the link is silent for [`SILENT_AFTER`] |
//! | nowhere: none has arrived yet | cause a dial in the same way, but rarely again: [`UNHEARD_RENEWAL_PAUSE`] |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Address, Sid,
    backoff::{Backoff, Rng},
    reason::Reason,
    standing::{Brought, Doubt, Flaps, Origin, Renewals, Silence, Sound, Source},
};
#[cfg(doc)]
use crate::limits::UNHEARD_RENEWAL_PAUSE;
use crate::limits::{KNOCK_CROSSING, PROVEN_AFTER, RENEWAL_PAUSE_MAX, SILENT_AFTER};

/// Identifies a connection: its index in the loop's slab, and the generation of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Identifies a peer from [`Action::PeerAdded`] to [`Action::PeerRemoved`]. No id is used twice, so that the id of a removed peer
/// matches no other peer. Every rule answers "no such peer" to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u64);

/// The part of the configuration that the rules need.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) own: Sid,
    /// True exactly when members are linked without a request.
    pub(crate) eager: bool,
    /// True exactly when a newer connection replaces the link whatever address it comes from.
    pub(crate) newest: bool,
    pub(crate) guests_max: usize,
    pub(crate) observers_max: usize,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// Longest time that a contender waits for the older link to be found dead.
    pub(crate) contender_timeout: Duration,
}

/// What the loop must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An unconfigured server is a peer from now on.
    PeerAdded { peer: PeerId, sid: Sid },
    /// The peer says that it can be dialed at these addresses.
    AddressesLearned {
        peer: PeerId,
        addresses: Vec<Address>,
    },
    /// The peer is removed. It has no link.
    PeerRemoved { peer: PeerId },
    /// Connect to the peer, or knock if its sid is larger. One of `on_linked`, `on_knocked`, `on_dial_failed` follows.
    Dial { peer: PeerId },
    /// Give up the current connection of the attempt, and try the next address. The peer has just shown that it is alive.
    TryNextAddress { peer: PeerId },
    /// Give up the attempt. None of the calls that [`Dial`](Self::Dial) names follows. `late`: bytes that the attempt has sent
    /// must not arrive any more.
    Cancel { peer: PeerId, late: bool },
    /// A connection that may be this peer's came from an address that is not known as the peer's own. Look up whether it is
    /// one now. If so, `on_home` follows.
    Resolve { peer: PeerId },
    /// This connection is the peer's link from now on.
    Up { peer: PeerId, link: ConnectionKey },
    /// Close this connection. The roster no longer knows it.
    Close { link: ConnectionKey, reason: Reason },
    /// Report that links of this peer replace each other repeatedly.
    ReportFlapping { peer: PeerId },
}

/// What happens to an accepted connection after its initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the link of this peer. [`Action::Up`] has been pushed.
    Keep(PeerId),
    /// It is a contender: it waits, unread, for the older link of this peer to end. [`Action::Up`] or [`Action::Close`] follows.
    Wait(PeerId),
    /// It was a knock and is closed. A dial may follow.
    Knock,
    /// It is refused.
    Reject(Reason),
}

/// What an accepted connection claims, and the evidence for it.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) sid: Sid,
    pub(crate) link: ConnectionKey,
    pub(crate) source: Source,
    /// What the link of the claimed peer has brought, if that peer has a link.
    pub(crate) brought: Brought,
    /// The addresses at which the far end says that it can be dialed.
    pub(crate) addresses: &'a [Address],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Member,
    Guest,
    Observer,
}

#[derive(Debug)]
struct Peer {
    sid: Sid,
    kind: Kind,
    link: Option<Link>,
    contender: Option<Contender>,
    attempt: Attempt,
    /// True exactly when the peer must be linked and is not.
    wanted: bool,
    backoff: Backoff,
    /// The peer is not dialed before this time, unless it knocks or the application asks for it.
    retry_not_before: Option<Instant>,
    /// Before this time, a knock neither starts nor hurries a dial. `renewals` limits dials beside an established link instead.
    ignore_knock_until: Option<Instant>,
    origin: Origin,
    doubt: Option<Doubt>,
    renewals: Renewals,
    flaps: Flaps,
    /// True exactly when the application has asked for a new link, which may replace an existing one.
    asked: bool,
    /// The time at which this peer is listed in `Roster::timers`.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Link {
    key: ConnectionKey,
    since: Instant,
    /// `None`: this server dialed the link, at one of the peer's addresses.
    source: Option<Source>,
    /// True exactly when this link has replaced an older one.
    renews: bool,
}

impl Link {
    /// Whether the far end is at one of the peer's own addresses, and not at a proxy that anybody may use.
    fn is_home(&self) -> bool {
        self.source.is_none_or(|source| source.at_home)
    }
}

#[derive(Debug)]
struct Contender {
    key: ConnectionKey,
    source: Source,
    until: Instant,
    /// `Some` exactly when the link does not come from one of the peer's own addresses either. The contender then takes over as
    /// soon as the link is silent.
    silence: Option<Silence>,
}

/// The state of the attempt to get a link.
///
/// ```text
///   Rest --wanted--> Underway --failed, knocked--> Waiting --time--> Underway
///     ^-------- linked --+------------- linked -------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Rest,
    Underway { since: Instant },
    Waiting { until: Instant },
}

impl Attempt {
    fn is_underway(self) -> bool {
        matches!(self, Self::Underway { .. })
    }
}

/// Which peers are linked, which are being dialed, and when a peer may be dialed again.
///
/// Every method is total: it accepts any [`PeerId`] and any [`ConnectionKey`], including those of removed peers and closed
/// connections. Such a call changes nothing, with one exception: a connection that is offered to a removed peer is closed.
#[derive(Debug)]
pub(crate) struct Roster {
    rules: Rules,
    peers: BTreeMap<PeerId, Peer>,
    next_id: u64,
    by_sid: BTreeMap<Sid, PeerId>,
    timers: BTreeSet<(Instant, PeerId)>,
    rng: Rng,
    guests: usize,
    observers: usize,
    next_observer: i64,
}

impl Roster {
    /// `members` get the ids 0, 1, ... in their order.
    pub(crate) fn new(rules: Rules, members: impl IntoIterator<Item = Sid>, seed: u64) -> Self {
        let mut roster = Self {
            rules,
            peers: BTreeMap::new(),
            next_id: 0,
            by_sid: BTreeMap::new(),
            timers: BTreeSet::new(),
            rng: Rng::new(seed),
            guests: 0,
            observers: 0,
            next_observer: -1,
        };
        for sid in members {
            assert_ne!(sid, roster.rules.own, "nobody is his own peer");
            roster.insert(sid, Kind::Member);
        }
        roster
    }

    /// The peer that has this sid.
    pub(crate) fn find(&self, sid: Sid) -> Option<PeerId> {
        self.by_sid.get(&sid).copied()
    }

    /// The link of a peer.
    pub(crate) fn link(&self, peer: PeerId) -> Option<ConnectionKey> {
        Some(self.peers.get(&peer)?.link.as_ref()?.key)
    }

    /// The addresses from which this peer's connections came, without those that are known to be its own.
    pub(crate) fn abroad(&self, peer: PeerId) -> impl Iterator<Item = IpAddr> + use<> {
        let peer = self.peers.get(&peer);
        let link = peer.and_then(|peer| peer.link.as_ref()?.source);
        let contender = peer.and_then(|peer| Some(peer.contender.as_ref()?.source));
        let sources = [link, contender].into_iter().flatten();
        let knocks = peer.and_then(|peer| match peer.origin {
            Origin::Abroad(ip) => Some(ip),
            Origin::Unknown | Origin::Home => None,
        });
        let unknown = sources.filter(|source| !source.at_home);
        unknown.map(|source| source.ip).chain(knocks)
    }

    /// Whether a dial of this peer is a knock.
    pub(crate) fn knocks(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.sid > self.rules.own)
    }

    /// When [`tick`](Self::tick) must be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The loop has started.
    pub(crate) fn on_start(&mut self, now: Instant, todo: &mut Vec<Action>) {
        if !self.rules.eager {
            return;
        }
        let members: Vec<PeerId> = self.by_sid.values().copied().collect();
        for peer in members {
            self.want(peer, now, todo);
        }
    }

    /// Requests a link to this peer: it is dialed at once, or when its backoff has passed.
    pub(crate) fn want(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // An observer always has a link, so that it is never dialed below.
        if peer.link.is_some() {
            return;
        }
        peer.wanted = true;
        if peer.attempt == Attempt::Rest {
            match peer.retry_not_before.filter(|until| *until > now) {
                Some(until) => peer.attempt = Attempt::Waiting { until },
                None => {
                    peer.attempt = Attempt::Underway { since: now };
                    todo.push(Action::Dial { peer: id });
                }
            }
        }
        self.reschedule(id);
    }

    /// Dials this peer now, linked or not, because the application asks for it.
    pub(crate) fn initiate(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.asked = true;
        }
        self.dial(id, now, todo);
    }

    fn dial(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.kind == Kind::Observer || peer.attempt.is_underway() {
            return;
        }
        peer.wanted |= peer.link.is_none();
        peer.attempt = Attempt::Underway { since: now };
        todo.push(Action::Dial { peer: id });
        self.reschedule(id);
    }

    /// A dial of a peer with a smaller sid is connected, and the initial message is written.
    pub(crate) fn on_linked(
        &mut self,
        id: PeerId,
        link: ConnectionKey,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        if self.knocks(id) {
            // The link of this pair is the one that the larger sid dials.
            todo.push(Action::Close {
                link,
                reason: Reason::Superfluous,
            });
            return;
        }
        self.establish(id, link, None, now, todo);
    }

    /// A dial is connected, and nothing is written to it yet. Returns whether it is given up: it was started because the link was
    /// silent, and the link has brought something since then.
    pub(crate) fn is_moot(&mut self, id: PeerId, brought: Brought, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.asked) else {
            return false;
        };
        let doubt = peer.doubt.as_mut().filter(|doubt| doubt.is_answered());
        if doubt.is_none_or(|doubt| doubt.on_look(now, brought) != Sound::Heard) {
            return false;
        }
        (peer.doubt, peer.attempt) = (None, Attempt::Rest);
        self.reschedule(id);
        true
    }

    /// A knock was delivered. The peer has time to dial back before the next knock.
    pub(crate) fn on_knocked(&mut self, id: PeerId, now: Instant) {
        self.retry(id, now);
    }

    /// No address of the peer could be reached.
    pub(crate) fn on_dial_failed(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.kind == Kind::Guest && peer.link.is_none() {
            // The address of a guest came from a stranger, so that each request causes only one dial.
            self.part(id, todo);
            return;
        }
        // The duration of the attempt counts as backoff. A network that was silent is thus tried as often as one that refuses.
        let since = match peer.attempt {
            Attempt::Underway { since } => since,
            Attempt::Rest | Attempt::Waiting { .. } => now,
        };
        self.retry(id, since);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let (Some(_), Some(until)) = (&peer.link, peer.retry_not_before) {
            peer.renewals.on_dial_failed(until);
            if let Some(doubt) = &mut peer.doubt {
                doubt.on_dial_failed(until);
            }
            self.reschedule(id);
        }
    }

    /// An accepted connection has sent its initial message.
    pub(crate) fn on_initial_message(
        &mut self,
        claim: &Claim<'_>,
        now: Instant,
        todo: &mut Vec<Action>,
    ) -> Verdict {
        let Claim {
            sid,
            link,
            source,
            brought,
            addresses,
        } = *claim;
        if sid == self.rules.own {
            return Verdict::Reject(Reason::OwnSid);
        }
        if sid == Sid::OBSERVER {
            return self.on_observer(link, source, now, todo);
        }
        let id = match self.by_sid.get(&sid) {
            // This server assigns the negative sids to observers, so that no connection can claim one.
            Some(id) if sid.0 >= 0 => *id,
            _ => match self.admit(sid, !addresses.is_empty(), todo) {
                Ok(id) => id,
                Err(reason) => return Verdict::Reject(reason),
            },
        };
        // The addresses of a member come from the configuration, those of a guest from its latest initial message.
        let Some(peer) = self.peers.get(&id) else {
            return Verdict::Reject(Reason::UnknownSid(sid));
        };
        if peer.kind == Kind::Guest && peer.link.is_none() && !addresses.is_empty() {
            let addresses = addresses.to_vec();
            todo.push(Action::AddressesLearned {
                peer: id,
                addresses,
            });
        }
        let trusted = source.at_home || self.rules.newest;
        // The names of a guest prove nothing: the guest itself has sent them. The addresses of a member decide whether its link
        // withstands the next claim.
        if !trusted && peer.kind == Kind::Member {
            todo.push(Action::Resolve { peer: id });
        }
        if sid < self.rules.own {
            self.on_knock(id, claim, trusted, now, todo);
            return Verdict::Knock;
        }
        let stands =
            |older: &Link| older.is_home() || older.source.is_none_or(|is| is.ip != source.ip);
        if trusted || !peer.link.as_ref().is_some_and(stands) {
            self.establish(id, link, Some(source), now, todo);
            return Verdict::Keep(id);
        }
        if peer.contender.is_some() {
            return Verdict::Reject(Reason::ClaimWaiting);
        }
        let until = now + self.rules.contender_timeout;
        if let Some(peer) = self.peers.get_mut(&id) {
            let is_equal = peer.link.as_ref().is_some_and(|link| !link.is_home());
            peer.contender = Some(Contender {
                key: link,
                source,
                until,
                silence: is_equal.then(|| Silence::new(now, brought)),
            });
        }
        self.reschedule(id);
        Verdict::Wait(id)
    }

    /// A lookup has shown that this address is one of the peer's own.
    pub(crate) fn on_home(&mut self, id: PeerId, ip: IpAddr, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.origin == Origin::Abroad(ip) {
            (peer.origin, peer.doubt) = (Origin::Home, None);
        }
        let link = peer.link.as_mut().and_then(|link| link.source.as_mut());
        if let Some(source) = link.filter(|source| source.ip == ip) {
            source.at_home = true;
            if let Some(contender) = &mut peer.contender {
                contender.silence = None;
            }
        }
        if let Some(contender) = peer.contender.take_if(|is| is.source.ip == ip) {
            let source = Source { ip, at_home: true };
            return self.establish(id, contender.key, Some(source), now, todo);
        }
        self.reschedule(id);
    }

    /// A connection that the roster knows as the link or the contender of the peer has ended. `demand`: something waits to be sent
    /// to the peer.
    pub(crate) fn on_down(
        &mut self,
        id: PeerId,
        key: ConnectionKey,
        demand: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let eager = self.rules.eager;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer
            .contender
            .as_ref()
            .is_some_and(|contender| contender.key == key)
        {
            peer.contender = None;
            self.reschedule(id);
            return;
        }
        let Some(link) = peer.link.take_if(|link| link.key == key) else {
            return;
        };
        // Neither a connect nor a frame proves that a link works. Two servers with one sid, for example, replace each other's
        // links forever, and each new link begins with a frame.
        if now.saturating_duration_since(link.since) >= PROVEN_AFTER.min(self.rules.backoff_max) {
            peer.backoff.reset();
        }
        // Knocks at the ended link say nothing about the next link.
        peer.renewals = Renewals::new();
        peer.doubt = None;
        if let Some(contender) = peer.contender.take() {
            self.establish(id, contender.key, Some(contender.source), now, todo);
            return;
        }
        if peer.kind == Kind::Observer {
            self.part(id, todo);
            return;
        }
        peer.wanted = demand || (eager && peer.kind == Kind::Member);
        if peer.attempt == Attempt::Rest {
            self.retry(id, now);
        } else {
            self.reschedule(id);
        }
    }

    /// Does what is due. `brought` returns what the link of a peer has brought. It is called only if a claim or knocks put that
    /// link in doubt.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        mut brought: impl FnMut(PeerId, ConnectionKey) -> Brought,
        todo: &mut Vec<Action>,
    ) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            let Some(peer) = self.peers.get_mut(&id) else {
                self.timers.remove(&(at, id));
                continue;
            };
            let looks = [peer.claim_due(), peer.doubt_due()];
            if looks.into_iter().flatten().any(|at| at <= now) {
                if let Some(link) = peer.link.as_ref().map(|link| link.key) {
                    let brought = brought(id, link);
                    self.examine(id, brought, now, todo);
                }
                // The other timers of this peer are handled when this check is settled.
                continue;
            }
            if let Some(contender) = peer.contender.take_if(|contender| contender.until <= now) {
                todo.push(Action::Close {
                    link: contender.key,
                    reason: Reason::OlderLives,
                });
            }
            if let Attempt::Waiting { until } = peer.attempt {
                if until <= now {
                    peer.attempt = Attempt::Underway { since: now };
                    todo.push(Action::Dial { peer: id });
                }
            }
            self.reschedule(id);
        }
    }

    /// Checks whether the link of this peer is silent, because of a contender or of knocks. If it is, the contender replaces it, or
    /// the peer is dialed again.
    fn examine(&mut self, id: PeerId, brought: Brought, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_due = |due: Option<Instant>| due.is_some_and(|at| at <= now);
        let (claim, doubt) = (peer.claim_due(), peer.doubt_due());
        if let Some(contender) = peer.contender.as_mut().filter(|_| is_due(claim)) {
            let (key, source) = (contender.key, contender.source);
            let silence = contender.silence.as_mut();
            if silence.is_some_and(|silence| silence.on_look(now, brought) == Sound::Silent) {
                return self.establish(id, key, Some(source), now, todo);
            }
        }
        if let Some(mut doubt) = peer.doubt.take_if(|_| is_due(doubt)) {
            match doubt.on_look(now, brought) {
                Sound::Unclear => peer.doubt = Some(doubt),
                // If only a proxy keeps the link alive after all, the peer knocks again.
                Sound::Heard => {}
                Sound::Silent => {
                    let least = peer.origin.pause().unwrap_or(RENEWAL_PAUSE_MAX);
                    if !doubt.is_stale(now) && peer.renewals.admit(now, least) {
                        doubt.on_dial();
                        peer.doubt = Some(doubt);
                        return self.dial(id, now, todo);
                    }
                }
            }
        }
        self.reschedule(id);
    }

    fn on_observer(
        &mut self,
        link: ConnectionKey,
        source: Source,
        now: Instant,
        todo: &mut Vec<Action>,
    ) -> Verdict {
        if self.observers >= self.rules.observers_max {
            return Verdict::Reject(Reason::ObserversFull);
        }
        let sid = Sid(self.next_observer);
        self.next_observer -= 1;
        let id = self.insert(sid, Kind::Observer);
        todo.push(Action::PeerAdded { peer: id, sid });
        self.establish(id, link, Some(source), now, todo);
        Verdict::Keep(id)
    }

    /// Admits a guest, or returns why it is refused. If all places are taken, an idle guest is removed to make room.
    fn admit(
        &mut self,
        sid: Sid,
        reachable: bool,
        todo: &mut Vec<Action>,
    ) -> Result<PeerId, Reason> {
        let useless = sid < self.rules.own && !reachable;
        if self.rules.guests_max == 0 || sid.0 < 0 || useless {
            return Err(Reason::UnknownSid(sid));
        }
        if self.guests >= self.rules.guests_max {
            let idle = |peer: &Peer| {
                peer.kind == Kind::Guest && peer.link.is_none() && !peer.attempt.is_underway()
            };
            // The guest that was admitted first: ids increase.
            let Some((&idle, _)) = self.peers.iter().find(|(_, peer)| idle(peer)) else {
                return Err(Reason::GuestsFull);
            };
            self.part(idle, todo);
        }
        let id = self.insert(sid, Kind::Guest);
        todo.push(Action::PeerAdded { peer: id, sid });
        Ok(id)
    }

    /// A peer with a smaller sid knocks: it says that it has no link to this server.
    fn on_knock(
        &mut self,
        id: PeerId,
        claim: &Claim<'_>,
        trusted: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_young = |since| now.saturating_duration_since(since) < KNOCK_CROSSING;
        // The knock was sent before a link as young as that existed: the two merely crossed each other.
        let stands = peer.link.as_ref().is_some_and(|link| !is_young(link.since));
        // A young link that has replaced another one does not count as a first link. If knocks continue although the peer was
        // dialed again because of them, a stranger has sent them.
        let open = !stands && peer.link.as_ref().is_none_or(|link| !link.renews);
        peer.origin.on_knock(claim.source, open);
        if peer.origin == Origin::Home {
            peer.doubt = None;
        }
        if peer.link.is_some() {
            if !stands {
                return;
            }
            peer.renewals.on_knock(now);
            if !trusted {
                // A stranger can send this knock too.
                if peer.origin != Origin::Home {
                    match &mut peer.doubt {
                        Some(doubt) => doubt.on_knock(now, claim.brought),
                        None => peer.doubt = Some(Doubt::new(now, claim.brought)),
                    }
                }
                return self.reschedule(id);
            }
        }
        if let Attempt::Underway { since } = peer.attempt {
            // A young dial merely crossed the knock. An older one was started while the peer could not be reached, and the kernel
            // may wait long before it sends the next packet.
            if !trusted || is_young(since) {
                return;
            }
        } else if stands {
            if peer.renewals.admit(now, KNOCK_CROSSING) {
                self.dial(id, now, todo);
            }
            return;
        }
        if let Some(until) = peer.ignore_knock_until.filter(|until| *until > now) {
            if peer.link.is_none() {
                peer.wanted = true;
                // A dial that waits already keeps its time.
                if peer.attempt == Attempt::Rest {
                    peer.attempt = Attempt::Waiting { until };
                }
                self.reschedule(id);
            }
            return;
        }
        peer.ignore_knock_until =
            Some(now + self.rules.backoff_min.max(peer.backoff.next(&mut self.rng)));
        if peer.attempt.is_underway() {
            peer.attempt = Attempt::Underway { since: now };
            todo.push(Action::TryNextAddress { peer: id });
        } else {
            self.dial(id, now, todo);
        }
    }

    /// Makes `link` the link of the peer. It replaces an older link, and ends an attempt to get one. `source`: where it came from,
    /// if it was accepted.
    fn establish(
        &mut self,
        id: PeerId,
        link: ConnectionKey,
        source: Option<Source>,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let knocks = self.knocks(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            let reason = Reason::Superfluous;
            return todo.push(Action::Close { link, reason });
        };
        let older = peer.link.replace(Link {
            key: link,
            since: now,
            source,
            renews: peer.link.is_some(),
        });
        if let Some(older) = older.filter(|older| older.key != link) {
            if !peer.asked && peer.flaps.on_replaced(now) {
                todo.push(Action::ReportFlapping { peer: id });
            }
            todo.push(Action::Close {
                link: older.key,
                reason: Reason::Replaced,
            });
        }
        let contender = peer.contender.take();
        if let Some(contender) = contender.filter(|contender| contender.key != link) {
            todo.push(Action::Close {
                link: contender.key,
                reason: Reason::OlderLives,
            });
        }
        if let (Attempt::Underway { since }, true) = (peer.attempt, knocks) {
            // The kernel retransmits a knock that is lost. It could arrive so late that the peer no longer takes it for a knock
            // that has merely crossed the link.
            let late = now.saturating_duration_since(since) >= KNOCK_CROSSING / 2;
            todo.push(Action::Cancel { peer: id, late });
        }
        peer.attempt = Attempt::Rest;
        peer.wanted = false;
        peer.asked = false;
        peer.doubt = None;
        todo.push(Action::Up { peer: id, link });
        self.reschedule(id);
    }

    /// A link or an attempt has ended. The backoff begins at `from`, and the peer is dialed after it if a link is wanted.
    fn retry(&mut self, id: PeerId, from: Instant) {
        // The side with the larger sid dials first, so that its dial and a knock seldom cross.
        let contender_timeout = if self.knocks(id) {
            self.rules.backoff_min
        } else {
            Duration::ZERO
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let until = from + contender_timeout + peer.backoff.next(&mut self.rng);
        peer.retry_not_before = Some(until);
        peer.attempt = if peer.wanted {
            Attempt::Waiting { until }
        } else {
            Attempt::Rest
        };
        self.reschedule(id);
    }

    fn insert(&mut self, sid: Sid, kind: Kind) -> PeerId {
        match kind {
            Kind::Member => {}
            Kind::Guest => self.guests += 1,
            Kind::Observer => self.observers += 1,
        }
        let peer = Peer {
            sid,
            kind,
            link: None,
            contender: None,
            attempt: Attempt::Rest,
            wanted: false,
            backoff: Backoff::new(self.rules.backoff_min, self.rules.backoff_max),
            retry_not_before: None,
            ignore_knock_until: None,
            origin: Origin::default(),
            doubt: None,
            renewals: Renewals::new(),
            flaps: Flaps::default(),
            asked: false,
            due: None,
        };
        let id = PeerId(self.next_id);
        self.next_id += 1;
        self.peers.insert(id, peer);
        let older = self.by_sid.insert(sid, id);
        debug_assert!(older.is_none(), "one peer for each sid");
        id
    }

    /// Removes a peer that is not a member.
    fn part(&mut self, id: PeerId, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.kind != Kind::Member) else {
            return;
        };
        debug_assert!(
            peer.link.is_none() && peer.contender.is_none(),
            "a linked peer is not forgotten"
        );
        match peer.kind {
            Kind::Member => {}
            Kind::Guest => self.guests -= 1,
            Kind::Observer => self.observers -= 1,
        }
        if let Some(at) = peer.due {
            self.timers.remove(&(at, id));
        }
        self.by_sid.remove(&peer.sid);
        self.peers.remove(&id);
        todo.push(Action::PeerRemoved { peer: id });
    }

    /// Updates the timers after a change of this peer.
    fn reschedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let attempt = match peer.attempt {
            Attempt::Waiting { until } => Some(until),
            Attempt::Rest | Attempt::Underway { .. } => None,
        };
        let initial_message = peer.contender.as_ref().map(|contender| contender.until);
        let looks = [peer.claim_due(), peer.doubt_due()];
        let due = [attempt, initial_message]
            .into_iter()
            .chain(looks)
            .flatten()
            .min();
        debug_assert!(peer.is_sound());
        if due != peer.due {
            if let Some(at) = peer.due {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = due {
                self.timers.insert((at, id));
            }
            peer.due = due;
        }
    }
}

#[cfg(test)]
impl Roster {
    /// The contender of this peer.
    fn contender(&self, peer: PeerId) -> Option<ConnectionKey> {
        Some(self.peers.get(&peer)?.contender.as_ref()?.key)
    }

    /// Checks the invariants of all tables together.
    fn check(&self) {
        let of = |kind| self.peers.values().filter(|peer| peer.kind == kind).count();
        assert!(self.peers.values().all(Peer::is_sound));
        assert_eq!(of(Kind::Guest), self.guests);
        assert_eq!(of(Kind::Observer), self.observers);
        assert!(self.guests <= self.rules.guests_max);
        assert!(self.observers <= self.rules.observers_max);
        let by_sid: BTreeMap<_, _> = self
            .peers
            .iter()
            .map(|(id, peer)| (peer.sid, *id))
            .collect();
        assert_eq!(by_sid, self.by_sid);
        let due = |(id, peer): (&PeerId, &Peer)| Some((peer.due?, *id));
        let timers: BTreeSet<_> = self.peers.iter().filter_map(due).collect();
        assert_eq!(timers, self.timers);
    }
}

impl Peer {
    /// When the link must have brought something. Otherwise the contender takes over.
    fn claim_due(&self) -> Option<Instant> {
        let silence = self.contender.as_ref()?.silence.as_ref()?;
        Some(silence.due(SILENT_AFTER))
    }

    /// When the link must have brought something. Otherwise the peer is dialed beside it.
    fn doubt_due(&self) -> Option<Instant> {
        self.doubt.as_ref()?.due(SILENT_AFTER)
    }

    fn is_sound(&self) -> bool {
        let contends = self.contender.is_none() || self.link.is_some();
        let waits_for_something =
            !matches!(self.attempt, Attempt::Waiting { .. }) || self.link.is_none();
        let works_for_it = !self.wanted || (self.link.is_none() && self.attempt != Attempt::Rest);
        // An observer cannot be dialed, so that it is known only while it is linked.
        let comes_by_itself =
            self.kind != Kind::Observer || (self.attempt == Attempt::Rest && self.link.is_some());
        let is_doubtful =
            self.doubt.is_none() || (self.link.is_some() && self.origin != Origin::Home);
        is_doubtful && contends && waits_for_something && works_for_it && comes_by_itself
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
