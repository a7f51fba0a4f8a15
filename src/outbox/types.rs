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

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Written,
    Queued,
    Superseded,
    /// There is no room; the frame was not taken.
    Full,
    /// Nothing is taken any more.
    Closed,
}

/// What is left for the loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Nothing,
    /// There is no link, and nobody has asked for one yet.
    Link,
    /// There is more to write than this thread may.
    Resume,
    /// The link is broken: see `Outbox::broken`.
    Broken,
}

/// What became of a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
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
