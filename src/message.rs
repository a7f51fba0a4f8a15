//! What is received: a frame as a handler gets it, and a message as the inbox holds it.
//!
//! Nothing here is queued.

use std::{fmt, ops::Deref};

use bytes::Bytes;

use crate::{
    copy,
    proto::{Payload, Sid},
};

/// A received message, taken from the inbox.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The peer that sent it.
    pub from: Sid,
    /// The number of the link that it arrived over, as in [`Event::Up`](crate::Event::Up); 0 for a message of this server to
    /// itself.
    pub link: u64,
    /// The payload of its frame.
    pub payload: Bytes,
}

impl Message {
    /// A message as [`recv`](crate::CnxManager::recv) returns it, for tests of an application.
    #[must_use]
    pub fn new(from: Sid, link: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            from,
            link,
            payload: payload.into(),
        }
    }
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
/// If the whole frame arrived in one read, the payload is borrowed from the read buffer. If the frame arrived in pieces, the
/// payload owns its bytes. Both dereference to a slice.
pub struct Frame<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) link: u64,
}

impl<'a> Frame<'a> {
    /// A frame as [`Handler::on_frame`](crate::Handler::on_frame) gets it, for tests of a handler.
    #[must_use]
    pub fn new(payload: &'a [u8], link: u64) -> Self {
        Self {
            payload: Payload::Borrowed(payload),
            link,
        }
    }

    /// The number of the link that it arrived over, as in [`Event::Up`](crate::Event::Up); 0 for a frame of this server to itself.
    #[must_use]
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Keeps the payload beyond the call of the handler. If the whole frame arrived in one read, this copies the payload. If it
    /// arrived in pieces, as each frame does that is longer than the read buffer of 256 KiB, this copies
    /// nothing.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.payload {
            Payload::Borrowed(slice) => copy::to_bytes(slice),
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

impl AsRef<[u8]> for Frame<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
