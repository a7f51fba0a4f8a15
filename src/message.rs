//! What is received: a frame as a handler sees it, a message as the inbox holds it.
//!
//! Nothing here is queued.

use std::{fmt, ops::Deref};

use bytes::Bytes;

use crate::proto::{Payload, Sid};

/// A message of a peer, as the inbox holds it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who sent it.
    pub from: Sid,
    /// The number of the link that it came over, as in [`Event::Up`](crate::Event::Up); 0 for a message of this server to itself.
    pub link: u64,
    /// The payload of its frame.
    pub payload: Bytes,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Message({} bytes from {})",
            self.payload.len(),
            self.from
        )
    }
}

/// The payload of a frame that has just been decoded.
///
/// One that came whole in one read is borrowed from the read buffer, one that came in pieces owns its bytes; both are read
/// as a slice.
pub struct Frame<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) link: u64,
}

impl Frame<'_> {
    /// The number of the link that it came over, as in [`Event::Up`](crate::Event::Up); 0 for a frame of this server to itself.
    #[must_use]
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Keeps the payload beyond the call: with a copy if the frame came whole in one read, without one if it came in pieces,
    /// as all do that are longer than the [read buffer](crate::limits::READ_BUFFER_BYTES).
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.payload {
            Payload::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.payload {
            Payload::Borrowed(slice) => slice,
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
