//! Received messages on their way through the inbox: as they were read, a burst of one peer at a time.
//!
//! Small payloads of a burst stand one behind the other in one buffer, so that handing them over costs a copy each, not an
//! allocation.

use std::{
    collections::{VecDeque, vec_deque},
    fmt, mem,
};

use bytes::{Buf as _, Bytes};

use crate::{
    handler::Message,
    limits::{PREFIX_BYTES, WHOLE_FRAME_BYTES},
    proto::Sid,
    share::Parcel,
};

/// Messages of one peer that came together.
#[derive(Debug)]
pub(crate) struct Burst {
    from: Sid,
    form: Form,
    /// One payload, or several, each behind its length.
    bytes: Bytes,
    messages: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// One payload as it is.
    Whole,
    /// So many bytes are kept from being freed by each payload that is taken out.
    Run { held: usize },
}

impl Burst {
    pub(crate) fn whole(from: Sid, payload: Bytes) -> Self {
        Self {
            from,
            form: Form::Whole,
            bytes: payload,
            messages: 1,
        }
    }
}

impl Parcel for Burst {
    type Item = Taken;

    fn items(&self) -> usize {
        self.messages
    }

    fn take(&mut self) -> Taken {
        self.messages -= 1;
        let (payload, held) = match self.form {
            Form::Whole => (mem::take(&mut self.bytes), 0),
            Form::Run { held } => {
                let len = self.bytes.get_u32() as usize;
                (self.bytes.split_to(len), held)
            }
        };
        let message = Message {
            from: self.from,
            payload,
        };
        Taken { message, held }
    }

    fn shed(&mut self, messages: usize) {
        for _ in 0..messages {
            let len = self.bytes.get_u32() as usize;
            self.bytes.advance(len);
        }
        self.messages -= messages;
    }

    fn held(&self) -> usize {
        match self.form {
            Form::Whole => self.bytes.len(),
            Form::Run { held } => held,
        }
    }
}

/// A message taken out of a burst, which holds its bytes together with those of others.
#[derive(Debug)]
pub(crate) struct Taken {
    message: Message,
    held: usize,
}

impl Taken {
    /// The message on its own: it is copied unless it is most of what it holds.
    pub(crate) fn into_message(self) -> Message {
        let Message { from, payload } = self.message;
        if self.held <= 2 * (payload.len() + PREFIX_BYTES) {
            return Message { from, payload };
        }
        let payload = Bytes::copy_from_slice(&payload);
        Message { from, payload }
    }
}

/// Puts bursts together.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    run: Vec<u8>,
    messages: usize,
    bursts: Vec<Burst>,
}

impl Packer {
    /// Adds a payload by a copy.
    pub(crate) fn copy(&mut self, payload: &[u8]) {
        self.run.reserve(PREFIX_BYTES + payload.len());
        let len = u32::try_from(payload.len()).expect("a frame is at most 512 KiB long");
        self.run.extend_from_slice(&len.to_be_bytes());
        self.run.extend_from_slice(payload);
        self.messages += 1;
    }

    /// Adds a payload that has a buffer of its own, which is kept if it is large.
    pub(crate) fn add(&mut self, from: Sid, payload: Bytes) {
        if payload.len() < WHOLE_FRAME_BYTES {
            self.copy(&payload);
        } else {
            self.seal(from);
            self.bursts.push(Burst::whole(from, payload));
        }
    }

    /// All that was added came from this peer.
    pub(crate) fn pack(&mut self, from: Sid) -> impl Iterator<Item = Burst> + '_ {
        self.seal(from);
        self.bursts.drain(..)
    }

    fn seal(&mut self, from: Sid) {
        if self.messages > 0 {
            let run = mem::take(&mut self.run);
            self.bursts.push(Burst {
                from,
                form: Form::Run {
                    held: run.capacity(),
                },
                bytes: run.into(),
                messages: mem::take(&mut self.messages),
            });
        }
    }
}

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
    bursts: VecDeque<Burst>,
    messages: usize,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The messages, oldest first: who sent it, and the payload of its frame.
    #[must_use]
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter {
            bursts: self.bursts.iter(),
            from: Sid(0),
            rest: &[],
        }
    }

    /// Fills it anew.
    pub(crate) fn fill<E>(
        &mut self,
        fill: impl FnOnce(&mut VecDeque<Burst>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.bursts.clear();
        self.messages = 0;
        self.messages = fill(&mut self.bursts)?;
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

/// The messages of a [`Batch`], oldest first.
pub struct BatchIter<'a> {
    bursts: vec_deque::Iter<'a, Burst>,
    from: Sid,
    /// Of the burst that was begun: payloads behind their lengths.
    rest: &'a [u8],
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = (Sid, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let burst = self.bursts.next()?;
            self.from = burst.from;
            if let Form::Whole = burst.form {
                return Some((burst.from, &burst.bytes));
            }
            self.rest = &burst.bytes;
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
        write!(f, "BatchIter({} bursts)", self.bursts.len())
    }
}

/// An event, which comes alone.
#[derive(Debug)]
pub(crate) struct Single<T>(Option<T>);

impl<T> Single<T> {
    pub(crate) fn new(item: T) -> Self {
        Self(Some(item))
    }
}

impl<T> Parcel for Single<T> {
    type Item = T;

    fn items(&self) -> usize {
        usize::from(self.0.is_some())
    }

    fn take(&mut self) -> T {
        self.0.take().expect("it is taken once")
    }

    fn shed(&mut self, _: usize) {}

    /// Their number bounds their memory.
    fn held(&self) -> usize {
        0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn texts(batch: &Batch) -> Vec<(i64, &[u8])> {
        batch.iter().map(|(sid, bytes)| (sid.0, bytes)).collect()
    }

    fn packed(add: impl FnOnce(&mut Packer)) -> Vec<Burst> {
        let mut packer = Packer::default();
        add(&mut packer);
        packer.pack(Sid(1)).collect()
    }

    #[test]
    fn a_batch_has_the_messages_in_the_order_in_which_they_came() {
        let large = Bytes::from(vec![3; WHOLE_FRAME_BYTES]);
        let mut bursts = packed(|packer| {
            packer.copy(b"a");
            packer.add(Sid(1), Bytes::from_static(b"bc"));
            packer.add(Sid(1), large.clone());
            packer.copy(b"d");
        });
        bursts.push(Burst::whole(Sid(2), Bytes::from_static(b"e")));
        let mut batch = Batch::new();
        let filled = batch.fill(|into| {
            into.extend(bursts);
            Ok::<_, ()>(5)
        });
        assert_eq!((filled, batch.len()), (Ok(5), 5));
        let expected: [(i64, &[u8]); 5] =
            [(1, b"a"), (1, b"bc"), (1, &large), (1, b"d"), (2, b"e")];
        assert_eq!(texts(&batch), expected);
        assert_eq!(batch.fill(|_| Err(())), Err(()));
        assert!(batch.is_empty() && texts(&batch).is_empty());
    }

    #[test]
    fn a_burst_sheds_its_oldest() {
        let mut bursts = packed(|packer| b"abc".chunks(1).for_each(|text| packer.copy(text)));
        let burst = &mut bursts[0];
        burst.shed(2);
        assert_eq!(burst.items(), 1);
        assert_eq!(&burst.take().into_message().payload[..], b"c");
        assert_eq!(burst.items(), 0);
    }

    #[test]
    fn a_small_message_does_not_hold_its_burst() {
        let mut bursts = packed(|packer| {
            packer.copy(b"small");
            packer.copy(&[1; 1000]);
        });
        let run = bursts[0].bytes.clone();
        let small = bursts[0].take().into_message().payload;
        let large = bursts[0].take().into_message().payload;
        let is_inside = |payload: &Bytes| run.as_ptr_range().contains(&payload.as_ptr());
        assert_eq!((is_inside(&small), is_inside(&large)), (false, true));
    }
}
