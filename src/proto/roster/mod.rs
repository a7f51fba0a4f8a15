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
//! A claim that would replace the link waits as well if both ends can retire that: it is then the end of the link that is planned.
//!
//! | earlier knocks of a smaller peer came from | knocks from another address |
//! |---|---|
//! | one of the peer's own addresses | have no effect |
//! | other addresses | cause a dial when the link is silent for [`SILENT_AFTER`] |
//! | nowhere: none has arrived yet | cause a dial in the same way, but rarely again: [`UNHEARD_RENEWAL_PAUSE`] |

mod claims;
mod dials;
mod identity;
mod members;
#[cfg(all(test, not(loom)))]
mod tests;
mod unknown;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Address, Native, Sid,
    backoff::{Backoff, Rng},
    incarnations::{Incarnations, Start},
    reason::Reason,
    standing::{Brought, Doubt, Flaps, Origin, Renewals, Silence, Source},
};
use crate::limits::SILENT_AFTER;
#[cfg(doc)]
use crate::limits::UNHEARD_RENEWAL_PAUSE;

/// Identifies a connection: its index in the loop's slab, and the generation of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Identifies a peer from [`Action::PeerAdded`] to [`Action::PeerRemoved`]. No id is used twice, so that the id of a removed peer
/// matches no other peer. Every rule answers "no such peer" to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u64);

/// Assigns the ids of peers. All clones share one counter: the roster uses one for peers that are not configured, and the threads that
/// change the members use another.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerIds(Arc<AtomicU64>);

impl PeerIds {
    pub(crate) fn next(&self) -> PeerId {
        // Relaxed: no other memory depends on it. 2^64 is never reached.
        PeerId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The part of the configuration that the rules need.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) own: Sid,
    /// True exactly when members are linked without a request.
    pub(crate) eager: bool,
    /// True exactly when a newer connection replaces the link whatever address it comes from.
    pub(crate) newest: bool,
    pub(crate) admitted_max: usize,
    pub(crate) observers_max: usize,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// Longest time that a contender waits for the older link to be found dead.
    pub(crate) contender_timeout: Duration,
    pub(crate) native: NativeRules,
}

/// What this server says of itself in a native handshake, and whether it requires one.
#[derive(Clone, Debug)]
pub(crate) struct NativeRules {
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: u64,
    /// True exactly when initial messages of ZooKeeper are refused.
    pub(crate) only: bool,
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
    /// Give up the oldest connection of the attempt, and try the next address. The peer has just shown that it is alive.
    TryNextAddress { peer: PeerId },
    /// Give up the attempt. None of the calls that [`Dial`](Self::Dial) names follows. `late`: bytes that the attempt has sent
    /// must not arrive any more.
    Cancel { peer: PeerId, late: bool },
    /// A connection that may be this peer's came from an address that is not known as the peer's own. Look up whether it is
    /// one now. If so, `on_home` follows.
    Resolve { peer: PeerId },
    /// This connection is the peer's link from now on. `restarted`: the peer is known to have started since its last link.
    Up {
        peer: PeerId,
        link: ConnectionKey,
        restarted: bool,
    },
    /// Close this connection. The roster no longer knows it.
    Close { link: ConnectionKey, reason: Reason },
    /// Report that links of this peer replace each other repeatedly. `duplicate`: two processes are known to have its sid.
    ReportFlapping { peer: PeerId, duplicate: bool },
}

/// What happens to an accepted connection after its initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the link of this peer. [`Action::Up`] has been pushed.
    Keep(PeerId),
    /// It is a contender: it waits, unread, for the older link of this peer to end. [`Action::Up`] or [`Action::Close`] follows.
    Wait(PeerId),
    /// The same, but the link of this peer is to be retired for it.
    Retire(PeerId),
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
    /// When the connection was accepted.
    pub(crate) since: Instant,
    pub(crate) source: Source,
    /// What the link of the claimed peer has brought, if that peer has a link.
    pub(crate) brought: Brought,
    /// The addresses at which the far end says that it can be dialed.
    pub(crate) addresses: &'a [Address],
    /// What a native initial message says beside.
    pub(crate) native: Option<&'a Native>,
    /// True exactly when both ends can retire the link of the claimed peer.
    pub(crate) retires: bool,
}

/// The far end of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct FarEnd {
    /// Where the connection came from. `None`: this server dialed it, at one of the peer's addresses.
    source: Option<Source>,
    /// Known from a native handshake.
    incarnation: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Member,
    /// It was a member. It is linked while frames wait for it.
    Leaving,
    /// It was a member. Nothing waits for it, and its link, which it has, is about to end.
    Left,
    Admitted,
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
    /// The pause after the last dial, if it was refused for a lasting reason and no link has lasted since.
    refused_pause: Option<Duration>,
    /// The peer is not dialed before this time, unless it knocks or the application asks for it.
    retry_not_before: Option<Instant>,
    /// Until then, the peer may still dial back after a knock that was delivered.
    dial_back_until: Option<Instant>,
    /// Before this time, a knock neither starts nor hurries a dial. `renewals` limits dials beside an established link instead.
    ignore_knock_until: Option<Instant>,
    origin: Origin,
    doubt: Option<Doubt>,
    renewals: Renewals,
    flaps: Flaps,
    incarnations: Incarnations,
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
    incarnation: Option<u64>,
    until: Instant,
    /// `Some` exactly when the link does not come from one of the peer's own addresses either. The contender then takes over as
    /// soon as the link is silent.
    silence: Option<Silence>,
    /// `Some` exactly when the link is retired for it: what that had brought when this began.
    retires: Option<Brought>,
}

impl Contender {
    fn far_end(&self) -> FarEnd {
        FarEnd {
            source: Some(self.source),
            incarnation: self.incarnation,
        }
    }

    /// It has waited for too long. `two`: two processes are known to have the sid of its peer.
    fn expire(self, two: bool) -> Action {
        let reason = match two {
            true => Reason::DuplicateSid,
            // It is believed, and the link is still read.
            false if self.retires.is_some() => Reason::HandshakeTimeout,
            false => Reason::OlderLinkAlive,
        };
        let link = self.key;
        Action::Close { link, reason }
    }

    /// Another connection of the peer is believed. If the link is retired for this one, it was believed as well.
    fn close(self) -> Action {
        let reason = match self.retires.is_some() {
            true => Reason::Replaced,
            false => Reason::OlderLinkAlive,
        };
        let link = self.key;
        Action::Close { link, reason }
    }
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
    ids: PeerIds,
    by_sid: BTreeMap<Sid, PeerId>,
    timers: BTreeSet<(Instant, PeerId)>,
    rng: Rng,
    admitted: usize,
    observers: usize,
    next_observer: i64,
}

impl Roster {
    pub(crate) fn new(
        rules: Rules,
        members: impl IntoIterator<Item = (PeerId, Sid)>,
        ids: PeerIds,
        seed: u64,
    ) -> Self {
        let mut roster = Self {
            rules,
            peers: BTreeMap::new(),
            ids,
            by_sid: BTreeMap::new(),
            timers: BTreeSet::new(),
            rng: Rng::new(seed),
            admitted: 0,
            observers: 0,
            next_observer: -1,
        };
        for (id, sid) in members {
            assert_ne!(sid, roster.rules.own, "a server is not its own peer");
            roster.insert(id, sid, Kind::Member);
        }
        roster
    }

    /// The peer that has this sid.
    pub(crate) fn find(&self, sid: Sid) -> Option<PeerId> {
        self.by_sid.get(&sid).copied()
    }

    #[cfg(feature = "tls")]
    pub(crate) fn sid(&self, peer: PeerId) -> Option<Sid> {
        Some(self.peers.get(&peer)?.sid)
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

    fn insert(&mut self, id: PeerId, sid: Sid, kind: Kind) {
        match kind {
            Kind::Member | Kind::Leaving | Kind::Left => {}
            Kind::Admitted => self.admitted += 1,
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
            refused_pause: None,
            retry_not_before: None,
            dial_back_until: None,
            ignore_knock_until: None,
            origin: Origin::default(),
            doubt: None,
            renewals: Renewals::new(),
            flaps: Flaps::default(),
            incarnations: Incarnations::new(self.rules.contender_timeout),
            asked: false,
            due: None,
        };
        self.peers.insert(id, peer);
        // Members are distinct, the sid of an observer is new, and a server is admitted only if no peer has its sid. A peer that has the
        // sid of a new member is removed before.
        let older = self.by_sid.insert(sid, id);
        debug_assert!(older.is_none(), "one peer for each sid");
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
            Kind::Member | Kind::Leaving | Kind::Left => {}
            Kind::Admitted => self.admitted -= 1,
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
        let contender = peer.contender.as_ref().map(|contender| contender.until);
        let looks = [peer.claim_due(), peer.doubt_due()];
        let due = [attempt, contender]
            .into_iter()
            .chain(looks)
            .flatten()
            .min();
        debug_assert!(peer.is_sound());
        // Most changes move no timer.
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
        assert_eq!(of(Kind::Admitted), self.admitted);
        assert_eq!(of(Kind::Observer), self.observers);
        assert!(self.admitted <= self.rules.admitted_max);
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
    fn can_be_dialed(&self) -> bool {
        !matches!(self.kind, Kind::Observer | Kind::Left)
    }

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
        let ends = self.kind != Kind::Left
            || (self.attempt == Attempt::Rest && self.link.is_some() && self.contender.is_none());
        is_doubtful && contends && waits_for_something && works_for_it && comes_by_itself && ends
    }
}
