//! Received messages in the inbox: chunks, each of messages that one peer has sent and one read has returned.
//!
//! Small payloads of one read share a buffer, into which they are copied one after the other. Nothing here waits.

use std::{mem, sync::Arc};

use bytes::{Buf as _, Bytes};

use super::{
    buffer_pool::BufferPool,
    shares::Entry,
    source::{Owner, Source},
};
use crate::{
    copy,
    limits::{CHUNK_BYTES, FRAME_BYTES_MAX, PLACE_BYTES, PREFIX_BYTES, WHOLE_FRAME_BYTES},
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

    /// Returns the buffer, if its size makes it worth keeping and no payload shares it.
    pub(super) fn into_buffer(self) -> Option<Vec<u8>> {
        if !is_useful(self.held) {
            return None;
        }
        take_buffer(self.bytes)
    }
}

/// Whether a buffer of so many bytes is worth keeping, and not larger than any frame.
fn is_useful(bytes: usize) -> bool {
    (WHOLE_FRAME_BYTES..=FRAME_BYTES_MAX).contains(&bytes)
}

// Not inlined: small messages do not come here.
#[inline(never)]
fn take_buffer(bytes: Bytes) -> Option<Vec<u8>> {
    if !bytes.is_unique() {
        return None;
    }
    // No message was taken out one by one, so that the bytes begin where the buffer begins, and `Vec::from` moves none.
    let buffer = Vec::from(bytes);
    is_useful(buffer.capacity()).then_some(buffer)
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
        // Here and not in `take`, which runs under the lock of the inbox. To copy there, in place of a slice of the chunk, was
        // tried: it takes 3 to 7 % less time on one thread, and no less if another one pushes, which waits longer for the lock.
        let mut message = self.message;
        if self.held > 2 * (message.payload.len() + PREFIX_BYTES) {
            message.payload = copy::to_bytes(&message.payload);
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
                    copy::append(&mut buffer, slice);
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
        copy::append(&mut self.run, &frame);
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
        // The frames so far move once. From then on the run fills a buffer of the pool, and is not copied again.
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
                // The room and not the bytes: it is what each payload of the run keeps from being freed.
                held: run.capacity(),
                bytes: run.into(),
                messages: mem::take(&mut self.messages),
            });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
