//! A pool of buffers. The thread that takes messages returns their buffers, and the loop fills them again.
//!
//! Nothing here is freed under the lock. Without the pool, the allocator may return a large buffer to the kernel, which clears its
//! pages for the next use. For a stream through the inbox that took up to half of the time.

use std::{mem, ops::RangeInclusive};

use crate::{
    limits::WHOLE_FRAME_BYTES,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
};

#[derive(Debug)]
pub(crate) struct BufferPool {
    /// The buffers that were given last are at the end.
    buffers: Mutex<Vec<Vec<u8>>>,
    bytes_max: usize,
    /// True exactly when a buffer was given or taken since the last [`release_unused`](Self::release_unused). Relaxed: a value that is
    /// a moment old only delays a release.
    used: AtomicBool,
}

impl BufferPool {
    /// `bytes_max`: the most that all buffers together may hold.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            buffers: Mutex::new(Vec::new()),
            bytes_max,
            used: AtomicBool::new(false),
        }
    }

    /// Returns an empty buffer with room for at least `bytes` bytes. One from the pool has room for at most twice as many.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut buffer = self
            .find(bytes..=2 * bytes)
            .unwrap_or_else(|| Vec::with_capacity(bytes));
        buffer.clear();
        buffer
    }

    /// Returns a buffer for a frame of `bytes` bytes, if there is one of about this size. It still holds what was in it, so that it need not be
    /// cleared before it is read into.
    pub(crate) fn take_used(&self, bytes: usize) -> Option<Vec<u8>> {
        // Short frames are not pooled: see `Chunk::into_buffer`.
        (bytes >= WHOLE_FRAME_BYTES)
            .then(|| self.find(bytes..=bytes + bytes / 16))
            .flatten()
    }

    fn find(&self, range: RangeInclusive<usize>) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| range.contains(&buffer.capacity());
        let mut buffers = lock(&self.buffers);
        // From the end: the buffer that was given last is most likely in the cache.
        let index = buffers.iter().rposition(fits)?;
        self.used.store(true, Ordering::Relaxed);
        Some(buffers.remove(index))
    }

    /// Adds buffers to the pool. If they are too many, the oldest are freed.
    pub(crate) fn give(&self, given: impl IntoIterator<Item = Vec<u8>>) {
        // Before the lock is taken: the iterator takes chunks apart, which frees memory.
        let given: Vec<_> = given.into_iter().collect();
        if given.is_empty() {
            return;
        }
        self.used.store(true, Ordering::Relaxed);
        let mut buffers = lock(&self.buffers);
        buffers.extend(given);
        let mut bytes = 0;
        let is_kept = |buffer: &&Vec<u8>| {
            bytes += buffer.capacity();
            bytes <= self.bytes_max
        };
        let kept = buffers.iter().rev().take_while(is_kept).count();
        let excess = buffers.len() - kept;
        let gone: Vec<_> = buffers.drain(..excess).collect();
        // Freed after the lock is released.
        drop(buffers);
        drop(gone);
    }

    /// Whether a buffer was given or taken since the last [`release_unused`](Self::release_unused).
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Frees all buffers, if none was given or taken since the last call. Returns whether there are any left.
    pub(crate) fn release_unused(&self) -> bool {
        let is_used = self.used.swap(false, Ordering::Relaxed);
        let mut buffers = lock(&self.buffers);
        if is_used {
            return !buffers.is_empty();
        }
        let gone = mem::take(&mut *buffers);
        // Freed after the lock is released.
        drop(buffers);
        drop(gone);
        false
    }
}

#[cfg(all(test, not(loom)))]
impl BufferPool {
    /// The capacity of each buffer.
    pub(crate) fn rooms(&self) -> Vec<usize> {
        lock(&self.buffers).iter().map(Vec::capacity).collect()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn loom_pooled_buffer_is_taken_once() {
        loom::model(|| {
            let pool = Arc::new(BufferPool::new(100));
            let other = {
                let pool = Arc::clone(&pool);
                thread::spawn(move || pool.take(10).capacity())
            };
            pool.give([Vec::with_capacity(15)]);
            let rooms = [pool.take(10).capacity(), other.join().unwrap()];
            assert!(rooms == [15, 10] || rooms == [10, 15], "{rooms:?}");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pooled_buffer_is_taken_if_not_much_too_large() {
        let pool = BufferPool::new(1000);
        pool.give([Vec::with_capacity(100), Vec::with_capacity(200)]);
        let rooms = [101, 30, 100, 40].map(|bytes| pool.take(bytes).capacity());
        assert_eq!(rooms, [200, 30, 100, 40]);
        pool.give([Vec::with_capacity(10), Vec::with_capacity(11)]);
        assert_eq!(pool.take(10).capacity(), 11, "given last, so in the cache");
    }

    #[test]
    fn full_pool_frees_its_oldest_buffers() {
        let pool = BufferPool::new(1000);
        pool.give([300, 400].map(Vec::with_capacity));
        pool.give([500, 90].map(Vec::with_capacity));
        assert_eq!(pool.rooms(), [400, 500, 90]);
        pool.give([Vec::with_capacity(1001)]);
        assert_eq!(pool.rooms(), [0; 0]);
    }

    #[test]
    fn pool_frees_its_buffers_once_they_were_not_used_for_a_while() {
        let pool = BufferPool::new(1000);
        assert!(!pool.is_used());
        pool.give([100, 200].map(Vec::with_capacity));
        assert!(pool.is_used() && pool.release_unused());
        pool.take(100);
        assert!(pool.is_used() && pool.release_unused());
        assert_eq!(pool.rooms(), [100]);
        assert!(!pool.is_used() && !pool.release_unused());
        assert_eq!(pool.rooms(), [0; 0]);
    }
}
