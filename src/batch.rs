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
    limits::{INBOX_RUN_BYTES, PLACE_BYTES, PREFIX_BYTES, STAGE_BYTES, WHOLE_FRAME_BYTES},
    proto::{Payload, Sid},
    share::{Parcel, Spares},
};

/// Messages of one peer that came together.
#[derive(Debug)]
pub(crate) struct Burst {
    from: Sid,
    /// True exactly when `from` is configured; see [`Owner`].
    is_server: bool,
    /// The number of the link that it came over.
    link: u64,
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

/// In whose share of the inbox messages and events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A configured server, or this one.
    Server(Sid),
    /// All others together, so that they gain nothing by coming as many.
    Others,
    /// What this server says of itself.
    Own,
}

impl Owner {
    /// Whom it is about; [`Sid::OBSERVER`] if that is several.
    pub(crate) fn sid(self) -> Sid {
        match self {
            Self::Server(sid) => sid,
            Self::Others | Self::Own => Sid::OBSERVER,
        }
    }
}

/// Where frames come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) from: Sid,
    /// True exactly when `from` is configured; see [`Owner`].
    pub(crate) is_server: bool,
    pub(crate) link: u64,
}

impl Source {
    /// This server itself.
    pub(crate) fn loopback(own: Sid) -> Self {
        Self {
            from: own,
            is_server: true,
            link: 0,
        }
    }

    /// In whose share of the inbox it is.
    pub(crate) fn owner(self) -> Owner {
        if self.is_server {
            Owner::Server(self.from)
        } else {
            Owner::Others
        }
    }
}

impl Burst {
    pub(crate) fn whole(source: Source, payload: Bytes) -> Self {
        let Source {
            from,
            is_server,
            link,
        } = source;
        Self {
            from,
            is_server,
            link,
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
    type Owner = Owner;

    #[inline]
    fn owner(&self) -> Owner {
        let Self {
            from,
            is_server,
            link,
            ..
        } = *self;
        let source = Source {
            from,
            is_server,
            link,
        };
        source.owner()
    }

    fn emptied(&self) -> Self {
        Self {
            form: Form::Run,
            bytes: Bytes::new(),
            messages: 0,
            held: 0,
            ..*self
        }
    }

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
            link: self.link,
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
        if self.messages > 0 {
            self.held + PLACE_BYTES
        } else {
            0
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
        let mut message = self.message;
        if self.held > 2 * (message.payload.len() + PREFIX_BYTES) {
            message.payload = Bytes::copy_from_slice(&message.payload);
        }
        message
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
    pub(crate) fn add(&mut self, source: Source, frame: Frame<'_>) {
        if frame.len() >= WHOLE_FRAME_BYTES {
            self.seal(source);
            let burst = match frame.payload {
                Payload::Borrowed(slice) => {
                    let mut buffer = self.spares.take(slice.len());
                    buffer.extend_from_slice(slice);
                    Burst {
                        held: buffer.capacity(),
                        ..Burst::whole(source, buffer.into())
                    }
                }
                Payload::Owned(bytes) => Burst::whole(source, bytes),
            };
            self.bursts.push(burst);
            return;
        }
        let len = self.run.len() + PREFIX_BYTES + frame.len();
        if len > self.run.capacity() {
            self.make_room(source, len);
        }
        let len = u32::try_from(frame.len()).expect("a frame is at most 512 KiB long");
        self.run.extend_from_slice(&len.to_be_bytes());
        self.run.extend_from_slice(&frame);
        self.messages += 1;
    }

    /// All that was added came from there.
    pub(crate) fn pack(&mut self, source: Source) -> impl Iterator<Item = Burst> + '_ {
        self.seal(source);
        self.bursts.drain(..)
    }

    /// The run is to become this long.
    fn make_room(&mut self, source: Source, len: usize) {
        if len <= WHOLE_FRAME_BYTES {
            // Perhaps this is all: what holds the message must not be much larger.
            self.run.reserve(len - self.run.len());
            return;
        }
        if len > INBOX_RUN_BYTES {
            self.seal(source);
        }
        let mut room = self.spares.take(INBOX_RUN_BYTES);
        room.append(&mut self.run);
        self.run = room;
    }

    fn seal(&mut self, source: Source) {
        if self.messages > 0 {
            let run = mem::take(&mut self.run);
            let Source {
                from,
                is_server,
                link,
            } = source;
            self.bursts.push(Burst {
                from,
                is_server,
                link,
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
            link: 0,
            rest: &[],
        }
    }

    /// The same, with the number of the link that each message came over.
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

/// A message in a [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageRef<'a> {
    /// Who sent it.
    pub from: Sid,
    /// The number of the link that it came over, as in [`Event::Up`](crate::Event::Up); 0 for a message of this server to
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
    bursts: vec_deque::Iter<'a, Burst>,
    from: Sid,
    link: u64,
    /// Of the burst that was begun: payloads behind their lengths.
    rest: &'a [u8],
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = (Sid, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let burst = self.bursts.next()?;
            (self.from, self.link) = (burst.from, burst.link);
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
pub(crate) struct Single<T> {
    owner: Owner,
    item: Option<T>,
}

impl<T> Single<T> {
    pub(crate) fn new(owner: Owner, item: T) -> Self {
        let item = Some(item);
        Self { owner, item }
    }
}

impl<T> Parcel for Single<T> {
    type Item = T;
    type Owner = Owner;

    fn owner(&self) -> Owner {
        self.owner
    }

    fn emptied(&self) -> Self {
        Self {
            owner: self.owner,
            item: None,
        }
    }

    fn items(&self) -> usize {
        usize::from(self.item.is_some())
    }

    fn take(&mut self) -> T {
        self.item.take().expect("it is taken once")
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

    fn source(sid: i64) -> Source {
        Source {
            link: 7,
            ..Source::loopback(Sid(sid))
        }
    }

    fn frame(payload: &[u8]) -> Frame<'_> {
        let payload = Payload::Borrowed(payload);
        Frame { payload, link: 7 }
    }

    fn texts(batch: &Batch) -> Vec<(i64, &[u8])> {
        batch.iter().map(|(sid, bytes)| (sid.0, bytes)).collect()
    }

    /// What came of one peer.
    fn packed(payloads: &[&[u8]]) -> Vec<Burst> {
        let mut packer = Packer::new(spares());
        for payload in payloads {
            packer.add(source(1), frame(payload));
        }
        packer.pack(source(1)).collect()
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
        bursts.push(Burst::whole(source(2), Bytes::from_static(b"e")));
        let mut batch = batch_of(bursts);
        let expected: [(i64, &[u8]); 5] =
            [(1, b"a"), (1, b"bc"), (1, &large), (1, b"d"), (2, b"e")];
        assert_eq!(texts(&batch), expected);
        let messages = batch.messages().map(|one| (one.from.0, one.payload));
        assert!(messages.eq(expected));
        assert!(batch.messages().all(|one| one.link == 7));
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
                packer.add(source(1), frame(&payload));
            }
            let bursts: Vec<_> = packer.pack(source(1)).collect();
            let held: Vec<_> = bursts.iter().map(|burst| burst.held).collect();
            assert_eq!(held, rooms);
            fill(&mut batch, &spares, bursts);
            // Replaced by a small message, which needs none.
            fill(&mut batch, &spares, packed(&[b"small"]));
        }
        // One that somebody holds, as who sends to himself may, and one that is larger than any that will be copied.
        let ours = Bytes::from(vec![4; 100_000]);
        let payloads = [ours.clone(), vec![5; STAGE_BYTES + 1].into()];
        let bursts = payloads.map(|payload| Burst::whole(source(1), payload));
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
