//! Counters of everything that is sent, received and refused, read through the handle.
//!
//! The counters of one outbox are read under its lock, so that their sum always balances. The loop itself reads two of the others: the
//! bytes of a peer, to find out whether its link is silent, and the number of links so far, which numbers the next one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::histogram::{Durations, Histogram};
use crate::{
    inbox::{Entry, Inbox},
    outbox::SendCounts,
    proto::{Reason, ReasonKind, Sid},
};

/// All counters. The counters of the frames to one peer are consistent with each other; all others are read one after the other. Received
/// frames are counted after the handler calls for all frames of a read, and before
/// [`Handler::on_read_complete`](crate::Handler::on_read_complete).
///
/// # Examples
///
/// ```no_run
/// # fn f(manager: &quorum_cnx::CnxManager) {
/// let stats = manager.stats();
/// for (kind, count) in &stats.downs {
///     println!("links_ended{{reason=\"{kind}\"}} {count}");
/// }
/// for peer in &stats.peers {
///     println!("frames_waiting{{peer=\"{}\"}} {}", peer.sid, peer.sent.waiting);
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames to peers: the sum of all peers, with those that are no longer known.
    pub sent: SendStats,
    /// Frames and bytes from peers: the sum of all peers, with those that are no longer known.
    pub received: ReceiveStats,
    /// Frames of this server to itself.
    pub loopback: u64,
    /// Messages queued for the application. With a [`CnxManager`](crate::CnxManager) these are received and loopback frames. With
    /// an [`EventLoop`](crate::EventLoop) they are loopback frames only, since the handler gets received frames directly.
    pub inbox: QueueStats,
    /// Events queued for the application. Only in [`CnxManager::stats`](crate::CnxManager::stats), else all are 0.
    pub events: QueueStats,
    /// Connections accepted: each was kept, was a knock, was refused, or is pending.
    pub accepted: u64,
    /// Connections that could not be accepted.
    pub accept_failures: u64,
    /// Accepted connections that became the link of their peer.
    pub kept: u64,
    /// Accepted connections that were knocks of peers with a smaller sid.
    pub knocks: u64,
    /// Accepted connections that were refused, by the kind of their reason.
    pub rejected: BTreeMap<ReasonKind, u64>,
    /// Accepted connections that have not sent their initial message, or wait as contenders.
    pub pending: u64,
    /// Links that came up, whoever dialed.
    pub ups: u64,
    /// Links that ended, by the kind of their reason.
    pub downs: BTreeMap<ReasonKind, u64>,
    /// Attempts to dial or knock at a peer. An attempt counts once, however many addresses it tries.
    pub dials: u64,
    /// Attempts in which every address failed. One that fails while another one is connected is not counted.
    pub dial_failures: u64,
    /// When the certificate of this server, or one in its chain, expires. `None` without TLS, and if the application has made the
    /// configurations of rustls itself.
    pub certificate_not_after: Option<SystemTime>,
    /// Links that [`Handle::renew`](crate::Handle::renew) could not replace, or that a worn key should have had replaced. They are kept.
    pub renewals_given_up: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// How long the turns took, without the time in which they waited. With [`Idle::Spin`](crate::Idle::Spin), a turn that only reads
    /// frames of the most recently active link is not measured.
    pub turn_times: Histogram,
    /// How often another thread has woken the loop from its wait: to send, to ask for something, or with the answer of a name lookup.
    pub wakeups: u64,
    /// How long `connect(2)` took, of the connection that was used: of dials and of knocks.
    pub connect_times: Histogram,
    /// How long it took from accepting a connection to its whole initial message, whatever became of the connection then.
    pub handshake_times: Histogram,
    /// Connections of all kinds that are open now.
    pub connections: u64,
    /// Servers that were removed ([`Handle::reconfigure`](crate::Handle::reconfigure)) and are linked still. They are not in `peers`.
    pub leaving: u64,
    /// Each peer that is known now, by sid.
    pub peers: Vec<PeerStats>,
}

impl Stats {
    /// Whether everything is accounted for: frames, received messages, events, accepted connections, and links.
    ///
    /// The sums of frames hold at any time. The loop counts what happens to connections one by one, so that the other sums hold
    /// when nothing is happening, or after [`halt`](crate::CnxManager::halt).
    #[must_use]
    pub fn balances(&self) -> bool {
        let refused: u64 = self.rejected.values().sum();
        let ended: u64 = self.downs.values().sum();
        let linked = self.peers.iter().filter(|peer| peer.linked).count() as u64;
        let of_peer = |peer: &PeerStats| {
            let ended: u64 = peer.downs.values().sum();
            peer.sent.balances() && peer.ups == ended + u64::from(peer.linked)
        };
        self.sent.balances()
            && self.peers.iter().all(of_peer)
            && self.inbox.balances()
            && self.events.balances()
            && self.accepted == self.kept + self.knocks + refused + self.pending
            && self.ups == ended + linked + self.leaving
    }
}

/// The counters of one peer, over all its links so far, and its link now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// The peer.
    pub sid: Sid,
    /// Whether it is linked now.
    pub linked: bool,
    /// Its link, if it is linked now.
    pub link: Option<LinkStats>,
    /// Why its last link ended, if one has ended.
    pub last_end: Option<Reason>,
    /// The random number that it has chosen when it started, as it said over its last link that was made with a
    /// [native](crate::InitialMessageVersion::Native) handshake.
    pub incarnation: Option<u64>,
    /// Frames to it.
    pub sent: SendStats,
    /// The part of them that the slot has taken: with [`Outbox::Lanes`](crate::Outbox::Lanes) the frames of
    /// [`to_send_latest`](crate::Handle::to_send_latest), with a queue none, else all. The rest is that of the queue. Without
    /// `waiting_since`.
    pub sent_latest: SendStats,
    /// Frames and bytes from it.
    pub received: ReceiveStats,
    /// When a frame of it was received last, to the precision of a millisecond.
    pub last_received: Option<Instant>,
    /// How often its link came up.
    pub ups: u64,
    /// How often its link ended, by the kind of the reason.
    pub downs: BTreeMap<ReasonKind, u64>,
    /// How often it was dialed or knocked at, however many addresses were tried each time.
    pub dials: u64,
    /// Messages of it that the inbox has dropped, if it is a member. Counted once a second, with [`Event::Dropped`](crate::Event::Dropped).
    pub dropped: u64,
}

/// The link of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Its number, as in [`Event::Up`](crate::Event::Up).
    pub number: u64,
    /// Whether this side opened the connection.
    pub dialed: bool,
    /// The address of the far end.
    pub addr: SocketAddr,
    /// When it came up.
    pub since: Instant,
    /// How long a ping took to the far end and back, smoothed as TCP does: each measurement counts an eighth. `None` before the first
    /// answer, and without pings: see [`ping_every`](crate::ConfigBuilder::ping_every).
    pub round_trip: Option<Duration>,
    /// How long the last one took that was answered.
    pub last_round_trip: Option<Duration>,
}

/// What happened to the frames given to `to_send`: `accepted == written + superseded + discarded + waiting`. With
/// [`Outbox::Lanes`](crate::Outbox::Lanes) these are the sums over the slot and the queue, and [`PeerStats::sent_latest`] those of the slot;
/// only the slot has frames that are superseded or resent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendStats {
    /// Frames taken.
    pub accepted: u64,
    /// Frames whose last byte the kernel has.
    pub written: u64,
    /// Frames that a newer one replaced in the slot.
    pub superseded: u64,
    /// Frames that waited when the manager halted, when their peer was removed, or when [`Handle::discard`](crate::Handle::discard)
    /// was called.
    pub discarded: u64,
    /// Frames in the slot or the queue, or written in part. Frames of a queue that are written together are counted together.
    pub waiting: u64,
    /// Last frames written once more over a new link; not part of the sum.
    pub resent: u64,
    /// Bytes of all written and resent frames, prefixes included.
    pub bytes: u64,
    /// Since when the oldest frame waits, to see that a peer takes nothing. `None` if none waits, or none but what a thread is writing
    /// for the first time. The age is the difference to [`Instant::now`], or to the clock of the simulation.
    ///
    /// In a slot: since when the peer is owed a frame and has taken none; a newer frame that replaces the one that waits does not
    /// change it. In a [queue](crate::Outbox::Queue): when the oldest frame was given to `to_send`, or the first one of those that were
    /// encoded together with it. With [lanes](crate::Outbox::Lanes): the earlier of both.
    pub waiting_since: Option<Instant>,
}

impl SendStats {
    /// Whether every accepted frame is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.accepted == self.written + self.superseded + self.discarded + self.waiting
    }

    pub(crate) fn add(&mut self, counts: SendCounts) {
        let SendCounts {
            accepted,
            written,
            superseded,
            discarded,
            waiting,
            resent,
            bytes,
            waiting_since,
        } = counts;
        self.accepted += accepted;
        self.written += written;
        self.superseded += superseded;
        self.discarded += discarded;
        self.waiting += waiting;
        self.resent += resent;
        self.bytes += bytes;
        // `None` is less than any time.
        self.waiting_since = match self.waiting_since {
            Some(oldest) => Some(waiting_since.map_or(oldest, |since| since.min(oldest))),
            None => waiting_since,
        };
    }
}

/// What was received from peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveStats {
    /// Whole frames.
    pub frames: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

impl ReceiveStats {
    pub(crate) fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// What happened to the items of a queue: `pushed == taken + dropped + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Items put into it.
    pub pushed: u64,
    /// Items the application took.
    pub taken: u64,
    /// Items that were dropped because there was no room.
    pub dropped: u64,
    /// Items in it now.
    pub waiting: u64,
}

impl QueueStats {
    /// Whether every item is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.pushed == self.taken + self.dropped + self.waiting
    }

    pub(crate) fn of<P: Entry>(inbox: &Inbox<P>) -> Self {
        let counts = inbox.counts();
        Self {
            pushed: counts.pushed,
            taken: counts.taken,
            dropped: counts.dropped,
            waiting: counts.waiting,
        }
    }
}

/// A count that the loop raises and other threads read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Relaxed: no other memory depends on a counter.
    pub(crate) fn add(&self, n: u64) {
        // Atomic, although the loop alone raises most of them: loopback frames are counted by the threads that send them.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by reason. Locked, since it is touched only when a connection ends.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<BTreeMap<ReasonKind, u64>>);

impl Reasons {
    pub(crate) fn count(&self, kind: ReasonKind) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(kind)
            .or_default() += 1;
    }

    pub(crate) fn read(&self) -> BTreeMap<ReasonKind, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the loop counts for one peer. Frames to the peer are counted by its outbox.
#[derive(Debug, Default)]
pub(crate) struct PeerCounters {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
    /// Reads that brought control frames. The loop uses it to find out whether the link is silent.
    pub(crate) controls: Counter,
    pub(crate) ups: Counter,
    pub(crate) downs: Reasons,
    pub(crate) dials: Counter,
    pub(crate) dropped: Counter,
}

/// What the loop counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) loopback: Counter,
    pub(crate) accepted: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) kept: Counter,
    pub(crate) pending: Counter,
    pub(crate) knocks: Counter,
    pub(crate) rejected: Reasons,
    pub(crate) ups: Counter,
    pub(crate) downs: Reasons,
    pub(crate) dials: Counter,
    pub(crate) dial_failures: Counter,
    pub(crate) renewals_given_up: Counter,
    pub(crate) turns: Counter,
    pub(crate) turn_times: Durations,
    pub(crate) wakeups: Counter,
    pub(crate) connect_times: Durations,
    pub(crate) handshake_times: Durations,
    pub(crate) connections: Counter,
}
