//! A peer as all threads see it: its outbox, its counters, and what the loop was asked to do for it.
//!
//! Nothing here decides anything. The loop has its own tables of peers.
//!
//! Invariants:
//!
//! - Whenever `requested` is not 0, the peer is in the pending requests, or is about to be put there, or is in the list that the loop
//!   works off. So a thread that adds a bit to others need not push the peer again.
//! - `links` and `last_link_unproven` are written by the loop only, but for the end of the loop in a forked process.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    lifecycle::Life,
    stats::{Counter, LinkStats, PeerCounters, PeerStats, ReceiveStats, SendStats},
};
use crate::{
    config,
    outbox::{Clock, LoopRequest, PeerOutbox, SendCounts},
    proto::{PeerId, Reason, Sid},
};

/// The link of a peer as other threads see it, and why the one before it ended.
#[derive(Debug, Default)]
struct Links {
    current: Option<LinkStats>,
    last_end: Option<Reason>,
    incarnation: Option<u64>,
}

/// A peer as all threads see it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) sid: Sid,
    pub(crate) outbox: PeerOutbox,
    pub(crate) counters: PeerCounters,
    // The loop records the end of a link after the outbox is detached. So a thread that finds no link also finds which frames of the
    // old one wait again.
    links: Mutex<Links>,
    /// When this was made: `last_frame` counts from here.
    known_since: Instant,
    /// Nanoseconds from `known_since` to the turn in which the last frame was received, plus 1; 0 if none was.
    last_frame: Counter,
    /// True exactly when the last link ended soon and had brought nothing. Only the loop uses it.
    pub(crate) last_link_unproven: AtomicBool,
    /// True exactly when it is a member. Changed under the lock of the registry.
    is_member: AtomicBool,
    /// Frames that were discarded when the peer was removed.
    discarded: Counter,
    /// The requests to the loop that it has not yet taken.
    requested: AtomicU8,
    /// The frames that had been received when [`received_one`](Self::received_one) was last called.
    received_before: Counter,
}

impl Peer {
    /// A peer that is no member, or not yet.
    pub(crate) fn new(id: PeerId, sid: Sid, outbox: config::Outbox, clock: Clock) -> Self {
        let now = clock.now();
        let outbox = match outbox {
            config::Outbox::Latest => PeerOutbox::latest(clock),
            config::Outbox::Queue { bytes } => PeerOutbox::queue(bytes, clock),
            config::Outbox::Lanes { bytes } => PeerOutbox::lanes(bytes, clock),
        };
        Self {
            id,
            sid,
            outbox,
            counters: PeerCounters::default(),
            links: Mutex::default(),
            known_since: now,
            last_frame: Counter::default(),
            last_link_unproven: AtomicBool::new(false),
            is_member: AtomicBool::new(false),
            discarded: Counter::default(),
            requested: AtomicU8::new(0),
            received_before: Counter::default(),
        }
    }

    /// Records that a frame was received in the turn that began at `now`.
    pub(crate) fn received_at(&self, now: Instant) {
        let since = now.saturating_duration_since(self.known_since);
        self.last_frame.set(since.as_nanos() as u64 + 1);
    }

    /// A ping over the link was answered after this time.
    pub(crate) fn on_round_trip(&self, took: Duration) {
        if let Some(link) = &mut self.links().current {
            link.last_round_trip = Some(took);
            // RFC 6298, section 2.
            let smoothed = link
                .round_trip
                .map_or(took, |before| (before * 7 + took) / 8);
            link.round_trip = Some(smoothed);
        }
    }

    fn last_received(&self) -> Option<Instant> {
        let nanos = self.last_frame.read().checked_sub(1)?;
        Some(self.known_since + Duration::from_nanos(nanos))
    }

    pub(crate) fn is_member(&self) -> bool {
        // Acquire: pairs with `set_member`, for those who look without the lock of the registry.
        self.is_member.load(Ordering::Acquire)
    }

    pub(crate) fn set_member(&self, is_member: bool) {
        self.is_member.store(is_member, Ordering::Release);
    }

    /// Whether the peer is linked.
    pub(crate) fn is_linked(&self) -> bool {
        self.links().current.is_some()
    }

    /// Records that this is the link from now on. `incarnation`: that of the peer, if the link says it.
    pub(super) fn set_link(&self, link: LinkStats, incarnation: Option<u64>) {
        let mut links = self.links();
        links.current = Some(link);
        links.incarnation = incarnation.or(links.incarnation);
    }

    /// Records that the link has ended.
    pub(super) fn unset_link(&self, reason: Reason) {
        let mut links = self.links();
        links.current = None;
        links.last_end = Some(reason);
    }

    /// Records that the loop has ended. If there was still a link, as there is after the loop has died, it has ended with it, for the
    /// reason that is returned.
    pub(super) fn end(&self, life: Life) -> Option<Reason> {
        self.outbox.close();
        let mut links = self.links();
        links.current.take()?;
        let reason = match life {
            Life::Died => Reason::Died,
            Life::Halted | Life::Running => Reason::Halted,
        };
        self.counters.downs.count(reason.kind());
        links.last_end = Some(reason.clone());
        Some(reason)
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether exactly one frame was received since the last call. Of calls at the same time, several may return `true`.
    pub(super) fn received_one(&self) -> bool {
        let received = self.counters.frames.read();
        let before = self.received_before.read();
        self.received_before.set(received);
        received == before + 1
    }

    /// Adds a request to the loop. Returns whether none was pending. If so, the caller adds the peer to the pending requests.
    pub(super) fn ask(&self, request: LoopRequest) -> bool {
        // AcqRel: pairs with the swap in `take_request`, so that the loop sees what this thread has done before. Only the thread
        // that finds no bit set pushes the peer to the pending requests. The loop takes the bits after that.
        self.requested.fetch_or(request.bits(), Ordering::AcqRel) == 0
    }

    /// Takes the requests that were added since the last call.
    pub(crate) fn take_request(&self) -> LoopRequest {
        // AcqRel: acquires what each thread released by `fetch_or` in `ask`. A `fetch_or` that comes later finds 0, and its
        // thread pushes the peer again.
        LoopRequest::from_bits(self.requested.swap(0, Ordering::AcqRel))
    }

    /// Takes no more frames, and discards those that wait. Called for the end of the peer, perhaps twice.
    pub(super) fn close(&self) {
        self.discarded.add(self.outbox.close());
    }

    /// How many frames were discarded by [`close`](Self::close).
    pub(crate) fn discarded_at_end(&self) -> u64 {
        self.discarded.read()
    }

    pub(super) fn received(&self) -> ReceiveStats {
        ReceiveStats {
            frames: self.counters.frames.read(),
            bytes: self.counters.bytes.read(),
        }
    }

    /// The counters now.
    pub(crate) fn stats_now(&self) -> PeerStats {
        self.stats(self.outbox.all_counts())
    }

    /// `counts`: those of all frames, and of the frames of the slot.
    pub(super) fn stats(&self, counts: (SendCounts, SendCounts)) -> PeerStats {
        let (mut sent, mut sent_latest) = (SendStats::default(), SendStats::default());
        sent.add(counts.0);
        sent_latest.add(counts.1);
        let links = self.links();
        PeerStats {
            sid: self.sid,
            linked: links.current.is_some(),
            link: links.current.clone(),
            last_end: links.last_end.clone(),
            incarnation: links.incarnation,
            sent,
            sent_latest,
            received: self.received(),
            last_received: self.last_received(),
            ups: self.counters.ups.read(),
            downs: self.counters.downs.read(),
            dials: self.counters.dials.read(),
            dropped: self.counters.dropped.read(),
        }
    }
}
