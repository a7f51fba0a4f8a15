//! Encoded frames, in memory that is initialized once.
//!
//! Nothing here locks.

use crate::{copy, limits::PREFIX_BYTES};

/// Frames, each behind its prefix.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// As long as its capacity. It keeps its length when the buffer is used again, so that a frame is written over old bytes, and not
    /// first zeroed.
    memory: Vec<u8>,
    /// Bytes of `memory` with frames in them.
    len: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for so many bytes in all, and not for more.
    pub(super) fn reserve_exact(&mut self, len: usize) {
        if len > self.memory.len() {
            self.enlarge(len);
        }
    }

    /// Makes room for so many more bytes, and for others that may follow.
    #[inline(always)]
    pub(super) fn reserve(&mut self, more: usize) {
        if self.memory.len() - self.len < more {
            self.grow(more);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        self.enlarge((self.len + more).max(2 * self.memory.len()));
    }

    fn enlarge(&mut self, len: usize) {
        if self.len == 0 {
            // Not resized: there is nothing to copy, and the allocator often has memory that is zero already.
            self.memory = vec![0; len];
        } else {
            self.memory.reserve_exact(len - self.memory.len());
            self.memory.resize(self.memory.capacity(), 0);
        }
    }

    /// Adds a frame.
    #[inline(always)]
    pub(super) fn append(&mut self, frame: &[u8]) {
        self.append_with(frame.len(), |payload| copy::overwrite(payload, frame));
    }

    /// Adds a frame of `payload_len` bytes that `fill` writes. They have any value before. If it panics, no frame is added.
    #[inline(always)]
    pub(super) fn append_with(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) {
        let len = PREFIX_BYTES + payload_len;
        self.reserve(len);
        let (prefix, payload) = self.memory[self.len..][..len].split_at_mut(PREFIX_BYTES);
        prefix.copy_from_slice(&prefix_of(payload_len));
        fill(payload);
        self.len += len;
    }

    /// Removes the first bytes.
    pub(super) fn remove_first(&mut self, bytes: usize) {
        self.memory.copy_within(bytes..self.len, 0);
        self.len -= bytes;
    }
}

pub(super) fn prefix_of(payload_len: usize) -> [u8; PREFIX_BYTES] {
    // The public calls refuse longer frames.
    u32::try_from(payload_len)
        .expect("a frame is at most 512 KiB long")
        .to_be_bytes()
}
