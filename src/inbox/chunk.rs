//! Received messages in the inbox: chunks, each of messages that one peer has sent and one read has returned.
//!
//! Nothing here allocates for a single small payload: the small payloads of a chunk are copied into one buffer, one after the
//! other.

use std::{mem, sync::Arc};

use bytes::{Buf as _, Bytes};

use super::{
    buffer_pool::BufferPool,
    fair_queue::Entry,
    source::{Owner, Source},
};
use crate::{
    limits::{CHUNK_BYTES, PLACE_BYTES, PREFIX_BYTES, READ_BUFFER_BYTES, WHOLE_FRAME_BYTES},
    message::{Frame, Message},
    proto::{Payload, Sid},
};

/// Messages of one peer that arrived together.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(super) from: Sid,
    /// True exactly when `from` is configured; see [`Owner`].
    is_server: bool,
    /// The number of the link that the messages arrived over.
    pub(super) link: u64,
    pub(super) form: Form,
    pub(super) bytes: Bytes,
    messages: usize,
    /// The bytes that each payload that is taken out keeps from being freed.
    held: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// One payload, without its length.
    Whole,
    /// One payload or several, each behind its length.
    Run,
}

impl Chunk {
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

    /// Returns the buffer, empty, if its size makes it worth keeping and no payload shares it.
    pub(super) fn into_buffer(self) -> Option<Vec<u8>> {
        let is_useful = |bytes| (WHOLE_FRAME_BYTES..=READ_BUFFER_BYTES).contains(&bytes);
        if !is_useful(self.held) {
            return None;
        }
        let mut bytes = self.bytes;
        bytes.advance(bytes.len());
        // No byte is left, so `Vec::from` copies nothing.
        let buffer = Vec::from(bytes);
        is_useful(buffer.capacity()).then_some(buffer)
    }
}

impl Entry for Chunk {
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

    fn drop_oldest(&mut self, messages: usize) {
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

/// A message that was taken out of a chunk, and still shares the buffer of the chunk.
#[derive(Debug)]
pub(crate) struct Taken {
    message: Message,
    held: usize,
}

impl Taken {
    /// Returns the message on its own. Its payload is copied if it is less than half of the buffer that it would keep.
    pub(crate) fn into_message(self) -> Message {
        let mut message = self.message;
        if self.held > 2 * (message.payload.len() + PREFIX_BYTES) {
            message.payload = Bytes::copy_from_slice(&message.payload);
        }
        message
    }
}

/// Packs frames into chunks.
#[derive(Debug)]
pub(crate) struct ChunkBuilder {
    run: Vec<u8>,
    messages: usize,
    chunks: Vec<Chunk>,
    pool: Arc<BufferPool>,
}

impl ChunkBuilder {
    pub(crate) fn new(pool: Arc<BufferPool>) -> Self {
        Self {
            run: Vec::new(),
            messages: 0,
            chunks: Vec::new(),
            pool,
        }
    }

    /// Adds a payload. A small one is copied behind others, a large one gets a buffer of its own.
    pub(crate) fn add(&mut self, source: Source, frame: Frame<'_>) {
        if frame.len() >= WHOLE_FRAME_BYTES {
            self.flush(source);
            let chunk = match frame.payload {
                Payload::Borrowed(slice) => {
                    let mut buffer = self.pool.take(slice.len());
                    buffer.extend_from_slice(slice);
                    Chunk {
                        held: buffer.capacity(),
                        ..Chunk::whole(source, buffer.into())
                    }
                }
                Payload::Owned(bytes) => Chunk::whole(source, bytes),
            };
            self.chunks.push(chunk);
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

    /// Returns the chunks of all frames that were added, which are all of this source.
    pub(crate) fn pack(&mut self, source: Source) -> impl Iterator<Item = Chunk> + '_ {
        self.flush(source);
        self.chunks.drain(..)
    }

    /// Makes room for a run of this length.
    fn make_room(&mut self, source: Source, len: usize) {
        if len <= WHOLE_FRAME_BYTES {
            // There may be no other message, and then the buffer must not be much larger than this one.
            self.run.reserve(len - self.run.len());
            return;
        }
        if len > CHUNK_BYTES {
            self.flush(source);
        }
        let mut room = self.pool.take(CHUNK_BYTES);
        room.append(&mut self.run);
        self.run = room;
    }

    fn flush(&mut self, source: Source) {
        if self.messages > 0 {
            let run = mem::take(&mut self.run);
            let Source {
                from,
                is_server,
                link,
            } = source;
            self.chunks.push(Chunk {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{super::batch::Batch, *};
    use crate::limits::BUFFER_POOL_BYTES;

    fn pool() -> Arc<BufferPool> {
        Arc::new(BufferPool::new(BUFFER_POOL_BYTES))
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

    /// The chunks of these messages of one peer.
    fn packed(payloads: &[&[u8]]) -> Vec<Chunk> {
        let mut builder = ChunkBuilder::new(pool());
        for payload in payloads {
            builder.add(source(1), frame(payload));
        }
        builder.pack(source(1)).collect()
    }

    fn fill(batch: &mut Batch, pool: &BufferPool, chunks: Vec<Chunk>) {
        let messages = chunks.iter().map(Chunk::items).sum();
        let filled = batch.fill(pool, |into| {
            into.extend(chunks);
            Ok::<_, ()>(messages)
        });
        assert_eq!((filled, batch.len()), (Ok(messages), messages));
    }

    fn batch_of(chunks: Vec<Chunk>) -> Batch {
        let mut batch = Batch::new();
        fill(&mut batch, &pool(), chunks);
        batch
    }

    #[test]
    fn a_batch_has_the_messages_in_the_order_in_which_they_came() {
        let large = [3; WHOLE_FRAME_BYTES];
        let mut chunks = packed(&[b"a", b"bc", &large, b"d"]);
        chunks.push(Chunk::whole(source(2), Bytes::from_static(b"e")));
        let mut batch = batch_of(chunks);
        let expected: [(i64, &[u8]); 5] =
            [(1, b"a"), (1, b"bc"), (1, &large), (1, b"d"), (2, b"e")];
        assert_eq!(texts(&batch), expected);
        let messages = batch.messages().map(|one| (one.from.0, one.payload));
        assert!(messages.eq(expected));
        assert!(batch.messages().all(|one| one.link == 7));
        assert_eq!(batch.fill(&pool(), |_| Err(())), Err(()));
        assert!(batch.is_empty() && texts(&batch).is_empty());
    }

    #[test]
    fn what_waits_holds_little_more_than_its_bytes() {
        let mixed = [1, 100, 5000, WHOLE_FRAME_BYTES - 1, WHOLE_FRAME_BYTES].repeat(20);
        let alike = [5000; 50];
        let lens = mixed.iter().chain(&alike).zip(0..);
        let payloads: Vec<_> = lens.map(|(len, n)| vec![n; *len]).collect();
        let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        let chunks = packed(&slices);
        let held: usize = chunks.iter().map(Chunk::held).sum();
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        assert!(held < 2 * bytes, "{held} for {bytes}");
        assert!(chunks.iter().all(|chunk| chunk.held() <= 2 * CHUNK_BYTES));
        let batch = batch_of(chunks);
        assert!(batch.iter().map(|(_, payload)| payload).eq(slices));
    }

    #[test]
    fn buffers_go_round() {
        // No other buffer has exactly these capacities.
        let rooms = [CHUNK_BYTES + 1, 100_001];
        let pool = pool();
        pool.give(rooms.map(Vec::with_capacity));
        let mut builder = ChunkBuilder::new(Arc::clone(&pool));
        let mut batch = Batch::new();
        for _ in 0..3 {
            for payload in [vec![1; 10_000], vec![2; 10_000], vec![3; 100_000]] {
                builder.add(source(1), frame(&payload));
            }
            let chunks: Vec<_> = builder.pack(source(1)).collect();
            let held: Vec<_> = chunks.iter().map(|chunk| chunk.held).collect();
            assert_eq!(held, rooms);
            fill(&mut batch, &pool, chunks);
            // Replaced by a small message, which needs no buffer from the pool.
            fill(&mut batch, &pool, packed(&[b"small"]));
        }
        // A buffer that is shared, as a sender to its own sid may share it, and one that is larger than any that a copy needs.
        let ours = Bytes::from(vec![4; 100_000]);
        let payloads = [ours.clone(), vec![5; READ_BUFFER_BYTES + 1].into()];
        let chunks = payloads.map(|payload| Chunk::whole(source(1), payload));
        fill(&mut batch, &pool, chunks.into());
        fill(&mut batch, &pool, Vec::new());
        assert_eq!(pool.rooms(), rooms);
        assert!(ours.iter().all(|byte| *byte == 4));
    }

    #[test]
    fn a_burst_sheds_its_oldest() {
        let mut chunks = packed(&[b"a", b"b", b"c"]);
        let chunk = &mut chunks[0];
        chunk.drop_oldest(2);
        assert_eq!(chunk.items(), 1);
        assert_eq!(&chunk.take().into_message().payload[..], b"c");
        assert_eq!(chunk.items(), 0);
    }

    #[test]
    fn a_small_message_does_not_hold_its_burst() {
        let mut chunks = packed(&[b"small", &[1; 1000]]);
        let run = chunks[0].bytes.clone();
        let small = chunks[0].take().into_message().payload;
        let large = chunks[0].take().into_message().payload;
        let is_inside = |payload: &Bytes| run.as_ptr_range().contains(&payload.as_ptr());
        assert_eq!((is_inside(&small), is_inside(&large)), (false, true));
    }
}
