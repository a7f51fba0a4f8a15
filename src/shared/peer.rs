//! A peer, as every thread sees it.
//!
//! Nothing here is decided; the loop has its own tables beside it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::stats::{Incoming, Outgoing, PeerCounters, PeerStats};
use crate::{
    config,
    outbox::{LoopRequest, Outbox, SendCounts},
    proto::{PeerId, Sid},
};

/// A peer, as every thread sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) sid: Sid,
    pub(crate) outbox: Outbox,
    pub(crate) counters: PeerCounters,
    pub(crate) linked: AtomicBool,
    /// True exactly when the last link ended soon and had brought nothing. Only the loop looks at it.
    pub(crate) doubtful: AtomicBool,
    /// What the loop was asked to do for this peer and has not yet looked at.
    requested: AtomicU8,
}

impl Peer {
    pub(crate) fn new(id: PeerId, sid: Sid, outbox: config::Outbox) -> Self {
        let outbox = match outbox {
            config::Outbox::Latest => Outbox::latest(),
            config::Outbox::Queue { bytes } => Outbox::queue(bytes),
        };
        Self {
            id,
            sid,
            outbox,
            counters: PeerCounters::default(),
            linked: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            requested: AtomicU8::new(0),
        }
    }

    /// Asks the loop for this. Returns whether nothing was asked before, so that the peer is to be noted.
    pub(super) fn ask(&self, request: LoopRequest) -> bool {
        // AcqRel: the thread that finds no bit set pushes the peer to the pending requests; the loop takes the bits afterwards.
        self.requested.fetch_or(request.bits(), Ordering::AcqRel) == 0
    }

    /// What was asked since the last call.
    pub(crate) fn take_request(&self) -> LoopRequest {
        LoopRequest::from_bits(self.requested.swap(0, Ordering::AcqRel))
    }

    pub(super) fn received(&self) -> Incoming {
        Incoming {
            frames: self.counters.frames.read(),
            bytes: self.counters.bytes.read(),
        }
    }

    pub(super) fn stats(&self, counts: SendCounts) -> PeerStats {
        let mut sent = Outgoing::default();
        sent.add(counts);
        PeerStats {
            sid: self.sid,
            linked: self.linked.load(Ordering::Acquire),
            sent,
            received: self.received(),
            ups: self.counters.ups.read(),
            downs: self.counters.downs.read(),
            dials: self.counters.dials.read(),
        }
    }
}
