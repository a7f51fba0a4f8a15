//! Received messages on their way through the inbox: as they were read, a burst of one peer at a time.
//!
//! Small payloads of a burst stand one behind the other in few buffers, so that handing them over costs a copy each, not an
//! allocation.

use std::{
    collections::{VecDeque, vec_deque},
    fmt, mem,
    sync::Arc,
};

use bytes::{Buf as _, Bytes};

use crate::{
    handler::{Frame, Message},
    limits::{INBOX_RUN_BYTES, PREFIX_BYTES, STAGE_BYTES, WHOLE_FRAME_BYTES},
    proto::{Payload, Sid},
    share::{Parcel, Spares},
};

/// Messages of one peer that came together.
#[derive(Debug)]
pub(crate) struct Burst {
    from: Sid,
    form: Form,
    bytes: Bytes,
    messages: usize,
    /// So many bytes are kept from being freed by each payload that is taken out.
    held: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// One payload as it is.
    Whole,
    /// Several, or one, each behind its length.
    Run,
}

impl Burst {
    pub(crate) fn whole(from: Sid, payload: Bytes) -> Self {
        Self {
            from,
            form: Form::Whole,
            held: payload.len(),
            bytes: payload,
            messages: 1,
        }
    }

    /// Its buffer, empty, if that is worth keeping and nobody holds a part of it.
    fn into_spare(self) -> Option<Vec<u8>> {
        let is_useful = |bytes| (WHOLE_FRAME_BYTES..=STAGE_BYTES).contains(&bytes);
        if !is_useful(self.held) {
            return None;
        }
        let mut bytes = self.bytes;
        bytes.advance(bytes.len());
        // Nothing is left to be copied.
        let buffer = Vec::from(bytes);
        is_useful(buffer.capacity()).then_some(buffer)
    }
}

impl Parcel for Burst {
    type Item = Taken;

    fn items(&self) -> usize {
        self.messages
    }

    fn take(&mut self) -> Taken {
        self.messages -= 1;
        let payload = match self.form {
            Form::Whole => mem::take(&mut self.bytes),
            Form::Run => {
                let len = self.bytes.get_u32() as usize;
                self.bytes.split_to(len)
            }
        };
        let message = Message {
            from: self.from,
            payload,
        };
        Taken {
            message,
            held: self.held,
        }
    }

    fn shed(&mut self, messages: usize) {
        for _ in 0..messages {
            let len = self.bytes.get_u32() as usize;
            self.bytes.advance(len);
        }
        self.messages -= messages;
    }

    fn held(&self) -> usize {
        self.held
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
#[derive(Debug)]
pub(crate) struct Packer {
    run: Vec<u8>,
    messages: usize,
    bursts: Vec<Burst>,
    spares: Arc<Spares>,
}

impl Packer {
    pub(crate) fn new(spares: Arc<Spares>) -> Self {
        Self {
            run: Vec::new(),
            messages: 0,
            bursts: Vec::new(),
            spares,
        }
    }

    /// Adds a payload: by a copy if it is small, else in a buffer of its own.
    pub(crate) fn add(&mut self, from: Sid, frame: Frame<'_>) {
        if frame.len() >= WHOLE_FRAME_BYTES {
            self.seal(from);
            let burst = match frame.0 {
                Payload::Borrowed(slice) => {
                    let mut buffer = self.spares.take(slice.len());
                    buffer.extend_from_slice(slice);
                    Burst {
                        held: buffer.capacity(),
                        ..Burst::whole(from, buffer.into())
                    }
                }
                Payload::Owned(bytes) => Burst::whole(from, bytes),
            };
            self.bursts.push(burst);
            return;
        }
        let len = self.run.len() + PREFIX_BYTES + frame.len();
        if len > self.run.capacity() {
            self.make_room(from, len);
        }
        let len = u32::try_from(frame.len()).expect("a frame is at most 512 KiB long");
        self.run.extend_from_slice(&len.to_be_bytes());
        self.run.extend_from_slice(&frame);
        self.messages += 1;
    }

    /// All that was added came from this peer.
    pub(crate) fn pack(&mut self, from: Sid) -> impl Iterator<Item = Burst> + '_ {
        self.seal(from);
        self.bursts.drain(..)
    }

    /// The run is to become this long.
    fn make_room(&mut self, from: Sid, len: usize) {
        if len <= WHOLE_FRAME_BYTES {
            // Perhaps this is all: what holds the message must not be much larger.
            self.run.reserve(len - self.run.len());
            return;
        }
        if len > INBOX_RUN_BYTES {
            self.seal(from);
        }
        let mut room = self.spares.take(INBOX_RUN_BYTES);
        room.append(&mut self.run);
        self.run = room;
    }

    fn seal(&mut self, from: Sid) {
        if self.messages > 0 {
            let run = mem::take(&mut self.run);
            self.bursts.push(Burst {
                from,
                form: Form::Run,
                held: run.capacity(),
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

    /// Fills it anew, and leaves the buffers that it had to others.
    pub(crate) fn fill<E>(
        &mut self,
        spares: &Spares,
        fill: impl FnOnce(&mut VecDeque<Burst>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        spares.give(self.bursts.drain(..).filter_map(Burst::into_spare));
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
    use crate::limits::INBOX_SPARE_BYTES;

    fn spares() -> Arc<Spares> {
        Arc::new(Spares::new(INBOX_SPARE_BYTES))
    }

    fn texts(batch: &Batch) -> Vec<(i64, &[u8])> {
        batch.iter().map(|(sid, bytes)| (sid.0, bytes)).collect()
    }

    /// What came of one peer.
    fn packed(payloads: &[&[u8]]) -> Vec<Burst> {
        let mut packer = Packer::new(spares());
        for payload in payloads {
            packer.add(Sid(1), Frame(Payload::Borrowed(payload)));
        }
        packer.pack(Sid(1)).collect()
    }

    fn fill(batch: &mut Batch, spares: &Spares, bursts: Vec<Burst>) {
        let messages = bursts.iter().map(Burst::items).sum();
        let filled = batch.fill(spares, |into| {
            into.extend(bursts);
            Ok::<_, ()>(messages)
        });
        assert_eq!((filled, batch.len()), (Ok(messages), messages));
    }

    fn batch_of(bursts: Vec<Burst>) -> Batch {
        let mut batch = Batch::new();
        fill(&mut batch, &spares(), bursts);
        batch
    }

    #[test]
    fn a_batch_has_the_messages_in_the_order_in_which_they_came() {
        let large = [3; WHOLE_FRAME_BYTES];
        let mut bursts = packed(&[b"a", b"bc", &large, b"d"]);
        bursts.push(Burst::whole(Sid(2), Bytes::from_static(b"e")));
        let mut batch = batch_of(bursts);
        let expected: [(i64, &[u8]); 5] =
            [(1, b"a"), (1, b"bc"), (1, &large), (1, b"d"), (2, b"e")];
        assert_eq!(texts(&batch), expected);
        assert_eq!(batch.fill(&spares(), |_| Err(())), Err(()));
        assert!(batch.is_empty() && texts(&batch).is_empty());
    }

    #[test]
    fn what_waits_holds_little_more_than_its_bytes() {
        let mixed = [1, 100, 5000, WHOLE_FRAME_BYTES - 1, WHOLE_FRAME_BYTES].repeat(20);
        let alike = [5000; 50];
        let lens = mixed.iter().chain(&alike).zip(0..);
        let payloads: Vec<_> = lens.map(|(len, n)| vec![n; *len]).collect();
        let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        let bursts = packed(&slices);
        let held: usize = bursts.iter().map(Burst::held).sum();
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        assert!(held < 2 * bytes, "{held} for {bytes}");
        assert!(
            bursts
                .iter()
                .all(|burst| burst.held() <= 2 * INBOX_RUN_BYTES)
        );
        let batch = batch_of(bursts);
        assert!(batch.iter().map(|(_, payload)| payload).eq(slices));
    }

    #[test]
    fn buffers_go_round() {
        // No others have just so much room.
        let rooms = [INBOX_RUN_BYTES + 1, 100_001];
        let spares = spares();
        spares.give(rooms.map(Vec::with_capacity));
        let mut packer = Packer::new(Arc::clone(&spares));
        let mut batch = Batch::new();
        for _ in 0..3 {
            for payload in [vec![1; 10_000], vec![2; 10_000], vec![3; 100_000]] {
                packer.add(Sid(1), Frame(Payload::Borrowed(&payload)));
            }
            let bursts: Vec<_> = packer.pack(Sid(1)).collect();
            let held: Vec<_> = bursts.iter().map(Burst::held).collect();
            assert_eq!(held, rooms);
            fill(&mut batch, &spares, bursts);
            // Replaced by a small message, which needs none.
            fill(&mut batch, &spares, packed(&[b"small"]));
        }
        // One that somebody holds, as who sends to himself may, and one that is larger than any that will be copied.
        let ours = Bytes::from(vec![4; 100_000]);
        let payloads = [ours.clone(), vec![5; STAGE_BYTES + 1].into()];
        let bursts = payloads.map(|payload| Burst::whole(Sid(1), payload));
        fill(&mut batch, &spares, bursts.into());
        fill(&mut batch, &spares, Vec::new());
        assert_eq!(spares.rooms(), rooms);
        assert!(ours.iter().all(|byte| *byte == 4));
    }

    #[test]
    fn a_burst_sheds_its_oldest() {
        let mut bursts = packed(&[b"a", b"b", b"c"]);
        let burst = &mut bursts[0];
        burst.shed(2);
        assert_eq!(burst.items(), 1);
        assert_eq!(&burst.take().into_message().payload[..], b"c");
        assert_eq!(burst.items(), 0);
    }

    #[test]
    fn a_small_message_does_not_hold_its_burst() {
        let mut bursts = packed(&[b"small", &[1; 1000]]);
        let run = bursts[0].bytes.clone();
        let small = bursts[0].take().into_message().payload;
        let large = bursts[0].take().into_message().payload;
        let is_inside = |payload: &Bytes| run.as_ptr_range().contains(&payload.as_ptr());
        assert_eq!((is_inside(&small), is_inside(&large)), (false, true));
    }
}
