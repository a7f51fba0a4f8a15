//! Unit tests of `chunk`.

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
fn batch_keeps_the_order_of_messages() {
    let large = [3; WHOLE_FRAME_BYTES];
    let mut chunks = packed(&[b"a", b"bc", &large, b"d"]);
    chunks.push(Chunk::whole(source(2), Bytes::from_static(b"e")));
    let mut batch = batch_of(chunks);
    let expected: [(i64, &[u8]); 5] = [(1, b"a"), (1, b"bc"), (1, &large), (1, b"d"), (2, b"e")];
    assert_eq!(texts(&batch), expected);
    let messages = batch.messages().map(|one| (one.from.0, one.payload));
    assert!(messages.eq(expected));
    assert!(batch.messages().all(|one| one.link == 7));
    assert_eq!(batch.fill(&pool(), |_| Err(())), Err(()));
    assert!(batch.is_empty() && texts(&batch).is_empty());
}

#[test]
fn chunks_hold_less_than_twice_their_bytes() {
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
fn chunk_buffers_are_reused() {
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
    let payloads = [ours.clone(), vec![5; FRAME_BYTES_MAX + 1].into()];
    let chunks = payloads.map(|payload| Chunk::whole(source(1), payload));
    fill(&mut batch, &pool, chunks.into());
    fill(&mut batch, &pool, Vec::new());
    assert_eq!(pool.rooms(), rooms);
    assert!(ours.iter().all(|byte| *byte == 4));
}

#[test]
fn chunk_drops_its_oldest_messages() {
    let mut chunks = packed(&[b"a", b"b", b"c"]);
    let chunk = &mut chunks[0];
    chunk.drop_oldest(2);
    assert_eq!(chunk.items(), 1);
    assert_eq!(&chunk.take().into_message().payload[..], b"c");
    assert_eq!(chunk.items(), 0);
}

#[test]
fn small_message_does_not_keep_its_chunk_alive() {
    let mut chunks = packed(&[b"small", &[1; 1000]]);
    let run = chunks[0].bytes.clone();
    let small = chunks[0].take().into_message().payload;
    let large = chunks[0].take().into_message().payload;
    let is_inside = |payload: &Bytes| run.as_ptr_range().contains(&payload.as_ptr());
    assert_eq!((is_inside(&small), is_inside(&large)), (false, true));
}
