//! Received messages, many at once, as the application takes them.
//!
//! Nothing here waits.

use std::{
    collections::{VecDeque, vec_deque},
    fmt,
};

use super::{
    buffer_pool::BufferPool,
    chunk::{Chunk, Form},
};
use crate::{limits::PREFIX_BYTES, proto::Sid};

/// Received messages, taken from the inbox all at once with [`CnxManager::recv_all`](crate::CnxManager::recv_all).
///
/// # Examples
///
/// ```
/// # fn f(manager: &quorum_cnx::CnxManager) -> Result<(), quorum_cnx::RecvError> {
/// let mut batch = quorum_cnx::Batch::new();
/// manager.recv_all(&mut batch)?;
/// for (from, payload) in &batch {
///     println!("{} bytes from {from}", payload.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Batch {
    chunks: VecDeque<Chunk>,
    messages: usize,
}

impl Batch {
    /// Makes an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The messages, oldest first: the sender and the payload of each.
    #[must_use]
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter {
            chunks: self.chunks.iter(),
            from: Sid(0),
            link: 0,
            rest: &[],
        }
    }

    /// The messages, oldest first, with the number of the link that each arrived over.
    pub fn messages(&self) -> impl Iterator<Item = MessageRef<'_>> {
        let mut iter = self.iter();
        std::iter::from_fn(move || {
            let (from, payload) = iter.next()?;
            let link = iter.link;
            Some(MessageRef {
                from,
                link,
                payload,
            })
        })
    }

    /// Replaces the messages by those that `fill` adds. The old buffers are given to the pool.
    pub(crate) fn fill<E>(
        &mut self,
        pool: &BufferPool,
        fill: impl FnOnce(&mut VecDeque<Chunk>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        pool.give(self.chunks.drain(..).filter_map(Chunk::into_buffer));
        // If `fill` fails, the batch is empty and says so.
        self.messages = 0;
        self.messages = fill(&mut self.chunks)?;
        Ok(self.messages)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = (Sid, &'a [u8]);
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> BatchIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} messages)", self.messages)
    }
}

/// A message in a [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageRef<'a> {
    /// The peer that sent it.
    pub from: Sid,
    /// The number of the link that it arrived over, as in [`Event::Up`](crate::Event::Up); 0 for a message of this server to
    /// itself.
    pub link: u64,
    /// The payload of its frame.
    pub payload: &'a [u8],
}

impl fmt::Debug for MessageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MessageRef({} bytes from {} over link {})",
            self.payload.len(),
            self.from,
            self.link
        )
    }
}

/// The messages of a [`Batch`], oldest first.
pub struct BatchIter<'a> {
    chunks: vec_deque::Iter<'a, Chunk>,
    from: Sid,
    link: u64,
    /// The part of the current chunk that has not been read: payloads, each behind its length.
    rest: &'a [u8],
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = (Sid, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let chunk = self.chunks.next()?;
            (self.from, self.link) = (chunk.from, chunk.link);
            if let Form::Whole = chunk.form {
                return Some((chunk.from, &chunk.bytes));
            }
            self.rest = &chunk.bytes;
        }
        let (len, rest) = self
            .rest
            .split_first_chunk::<PREFIX_BYTES>()
            .expect("each payload stands behind its length");
        let (payload, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        self.rest = rest;
        Some((self.from, payload))
    }
}

impl fmt::Debug for BatchIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchIter({} chunks)", self.chunks.len())
    }
}
