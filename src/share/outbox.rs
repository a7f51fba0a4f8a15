//! What waits for one peer, of either kind, and the words that both kinds share.
//!
//! Nothing is decided here: [`Latest`] is one slot that its callers write, [`Queue`] a stream that the loop writes.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use super::{latest::Latest, queue::Queue};

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
pub(crate) struct Tally {
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
    /// The link is broken: see [`Outbox::broken`].
    Broken,
}

/// The outbox of one peer.
#[derive(Debug)]
pub(crate) enum Outbox {
    Latest(Latest),
    Queue(Queue),
}

impl Outbox {
    pub(crate) fn is_queue(&self) -> bool {
        matches!(self, Self::Queue(_))
    }

    /// Takes a frame.
    pub(crate) fn put(&self, frame: Bytes) -> (Put, Ask) {
        match self {
            Self::Latest(latest) => latest.put(frame),
            Self::Queue(queue) => queue.put(frame),
        }
    }

    /// Takes the first of these frames, as many as there is room for: their number, with what became of the last.
    pub(crate) fn put_all(&self, frames: &[&[u8]]) -> (usize, Put, Ask) {
        match self {
            Self::Latest(latest) => {
                let (mut put, mut ask) = (Put::Queued, Ask::Nothing);
                for frame in frames {
                    let (next, more) = latest.put(Bytes::copy_from_slice(frame));
                    put = next;
                    if more != Ask::Nothing {
                        ask = more;
                    }
                }
                let taken = if put == Put::Closed { 0 } else { frames.len() };
                (taken, put, ask)
            }
            Self::Queue(queue) => queue.put_all(frames),
        }
    }

    /// The socket is writable again, or somebody asked the loop to go on.
    pub(crate) fn resume(&self) -> Ask {
        match self {
            Self::Latest(latest) => latest.resume(),
            Self::Queue(queue) => queue.resume(),
        }
    }

    /// A link has come up, perhaps in place of an older one.
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>) -> Ask {
        match self {
            Self::Latest(latest) => latest.attach(wire),
            Self::Queue(queue) => queue.attach(wire),
        }
    }

    /// The link has ended.
    pub(crate) fn detach(&self) {
        match self {
            Self::Latest(latest) => latest.detach(),
            Self::Queue(queue) => queue.detach(),
        }
    }

    /// The peer is gone for good: what waits is discarded, nothing more is accepted.
    pub(crate) fn close(&self) {
        match self {
            Self::Latest(latest) => latest.close(),
            Self::Queue(queue) => queue.close(),
        }
    }

    /// Why the link that was attached last cannot be written to. Whoever was told [`Ask::Broken`] asks this before he
    /// ends a link: a new one may have taken the place of the broken one by then.
    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Latest(latest) => latest.broken(),
            Self::Queue(queue) => queue.broken(),
        }
    }

    /// Whether every accepted frame has been written, replaced or discarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.tally().waiting == 0
    }

    pub(crate) fn tally(&self) -> Tally {
        match self {
            Self::Latest(latest) => latest.tally(),
            Self::Queue(queue) => queue.tally(),
        }
    }
}
