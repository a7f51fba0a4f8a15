//! The types of an outbox that its callers use.
//!
//! Nothing here decides what is written.

use std::{
    fmt,
    io::{self, IoSlice},
    time::Instant,
};

/// The write half of a connection, to which an outbox writes.
pub trait Wire: Send + Sync + fmt::Debug {
    /// Writes some bytes without blocking, as `writev(2)` does. The next call begins with the first byte that this one has not
    /// reported as written, so that an implementation may hold it already. It reports a byte that it holds as written once the
    /// system has it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room now. The connection is reported writable once there is. Any other error except
    /// `Interrupted` means that nothing can be written any more.
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The counts of one outbox, in frames: `accepted == written + superseded + discarded + waiting` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendCounts {
    pub(crate) accepted: u64,
    pub(crate) written: u64,
    pub(crate) superseded: u64,
    pub(crate) discarded: u64,
    pub(crate) waiting: u64,
    /// Last frames that were written once more. They were accepted and written before.
    pub(crate) resent: u64,
    /// Payload and prefix bytes of all frames that were written to their end.
    pub(crate) bytes: u64,
    /// When the oldest frame that waits was put. `None` if none waits, or none waits but what a sender is writing for the first time.
    pub(crate) waiting_since: Option<Instant>,
}

impl SendCounts {
    /// Frames that were written to their end, including those that were written once more.
    pub(crate) fn sent(&self) -> u64 {
        self.written + self.resent
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no room for it.
    Full,
    /// The outbox is closed.
    Closed,
}

/// What the loop is asked to do for a peer: nothing, one thing or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the loop does not do it by itself"]
pub(crate) struct LoopRequest(u8);

impl LoopRequest {
    pub(crate) const NONE: Self = Self(0);
    /// Link the peer, now or when its backoff has passed: there is no link.
    pub(crate) const LINK: Self = Self(1);
    /// Dial the peer, even if it has a link.
    pub(crate) const INITIATE: Self = Self(2);
    /// Write: frames wait that the sender has left to the loop.
    pub(crate) const RESUME: Self = Self(4);
    /// End the link, since it is broken: see `PeerOutbox::broken`.
    pub(crate) const BROKEN: Self = Self(8);
    /// Close the link.
    pub(crate) const DISCONNECT: Self = Self(16);
    /// Call `PeerOutbox::release_unused` after a while: there are spare buffers.
    pub(crate) const RELEASE: Self = Self(32);
    /// Dial the peer now, if it has no link.
    pub(crate) const CONNECT: Self = Self(64);

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// This request without the other.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both requests.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What happened to a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOutcome {
    /// The kernel has all of it.
    Written,
    /// It waits in the slot or is being written. While it waits, a newer frame may replace it. In a
    /// queue it waits behind older frames, or was written together with them, and is never replaced.
    Queued,
    /// It waits in the slot, and has replaced an older frame there, which is never sent.
    Superseded,
    /// It is in the inbox of this server, since it was sent to the own sid.
    Loopback,
}
