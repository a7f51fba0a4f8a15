//! Received messages on their way through the inbox: as they were read, a burst of one peer at a time.
//!
//! Small payloads of a burst stand one behind the other in few buffers, so that handing them over costs a copy each, not an
//! allocation.

use std::{mem, sync::Arc};

use bytes::{Buf as _, Bytes};

use super::{
    fair_queue::Parcel,
    source::{Owner, Source},
    spares::Spares,
};
use crate::{
    limits::{INBOX_RUN_BYTES, PLACE_BYTES, PREFIX_BYTES, READ_BUFFER_BYTES, WHOLE_FRAME_BYTES},
    message::{Frame, Message},
    proto::{Payload, Sid},
};

/// Messages of one peer that came together.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(super) from: Sid,
    /// True exactly when `from` is configured; see [`Owner`].
    is_server: bool,
    /// The number of the link that it came over.
    pub(super) link: u64,
    pub(super) form: Form,
    pub(super) bytes: Bytes,
    messages: usize,
    /// So many bytes are kept from being freed by each payload that is taken out.
    held: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// One payload as it is.
    Whole,
    /// Several, or one, each behind its length.
    Run,
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
    pub(super) fn into_spare(self) -> Option<Vec<u8>> {
        let is_useful = |bytes| (WHOLE_FRAME_BYTES..=READ_BUFFER_BYTES).contains(&bytes);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{super::batch::Batch, *};
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
        let payloads = [ours.clone(), vec![5; READ_BUFFER_BYTES + 1].into()];
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
