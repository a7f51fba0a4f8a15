//! The words that an outbox shares with those who use it.
//!
//! Nothing here is decided.

use std::{
    fmt,
    io::{self, IoSlice},
};

/// Where an outbox writes to: the write half of a connection.
pub trait Wire: Send + Sync + fmt::Debug {
    /// Writes some bytes without blocking, as `writev(2)` does.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room now; the connection is then reported writable once there is. Any other error
    /// but `Interrupted` means that nothing can be written any more.
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The account of one outbox, in frames: `accepted == written + superseded + discarded + waiting` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendCounts {
    pub(crate) accepted: u64,
    pub(crate) written: u64,
    pub(crate) superseded: u64,
    pub(crate) discarded: u64,
    pub(crate) waiting: u64,
    /// Last frames written once more; they were accepted, and written, before.
    pub(crate) resent: u64,
    /// Payload and prefix bytes of all frames written to their end.
    pub(crate) bytes: u64,
}

impl SendCounts {
    /// Frames written to their end, those that were written once more included.
    pub(crate) fn sent(&self) -> u64 {
        self.written + self.resent
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no room.
    Full,
    /// Nothing is taken any more.
    Closed,
}

/// What the loop is asked to do for a peer: several things at a time, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the loop does not do it by itself"]
pub(crate) struct LoopRequest(u8);

impl LoopRequest {
    pub(crate) const NONE: Self = Self(0);
    /// There is no link: one is to be made.
    pub(crate) const LINK: Self = Self(1);
    /// The peer is to be dialed even if it has a link.
    pub(crate) const INITIATE: Self = Self(2);
    /// There is more to write than the sender may.
    pub(crate) const RESUME: Self = Self(4);
    /// The link is broken: see `Outbox::broken`.
    pub(crate) const BROKEN: Self = Self(8);

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What became of a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOutcome {
    /// The kernel has all of it.
    Written,
    /// It waits in the slot or is being written. As long as it waits, a newer one may replace it. In a
    /// [queue](crate::Outbox::Queue) it waits for those in front of it, or has left with them, and is never replaced.
    Queued,
    /// It waits in the slot, where it has replaced an older frame, which is never sent.
    Superseded,
    /// It is in the own inbox.
    Loopback,
}
