//! Copies payloads in blocks that are too short for `rep movsb`.
//!
//! The memory copy of the C library uses this instruction from about 2 KiB on. On AMD EPYC (family 25, model 17) it runs at
//! 3.5 GB/s instead of 40 to 100 if the destination lies 1 to 15 bytes behind the source modulo 4096. A payload that is copied behind its length of
//! 4 bytes lies so whenever both buffers begin at the same place in a page, as large ones do. Blocks copy at 45 to 90 GB/s
//! wherever they lie.

use bytes::Bytes;

/// Below the length from which the C library uses `rep movsb`: 2112 bytes in glibc, where the processor has FSRM.
pub(crate) const BLOCK: usize = 2048;

/// Appends these bytes.
#[inline(always)]
pub(crate) fn append(to: &mut Vec<u8>, from: &[u8]) {
    if from.len() <= BLOCK {
        return to.extend_from_slice(from);
    }
    append_blocks(to, from);
}

// Not inlined: the copy of a short payload is a good part of what a frame costs.
#[cold]
#[inline(never)]
fn append_blocks(to: &mut Vec<u8>, from: &[u8]) {
    // Once for all of them.
    to.reserve(from.len());
    for block in from.chunks(BLOCK) {
        to.extend_from_slice(block);
    }
}

/// Writes these bytes over others, of which there are as many.
#[inline(always)]
pub(crate) fn overwrite(to: &mut [u8], from: &[u8]) {
    if from.len() <= BLOCK {
        return to.copy_from_slice(from);
    }
    overwrite_blocks(to, from);
}

// Not inlined, as above.
#[cold]
#[inline(never)]
fn overwrite_blocks(to: &mut [u8], from: &[u8]) {
    debug_assert_eq!(to.len(), from.len(), "the two have the same length");
    for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
        to.copy_from_slice(from);
    }
}

/// Returns a copy of these bytes.
pub(crate) fn to_vec(from: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(from.len());
    append(&mut copy, from);
    copy
}

/// Returns a copy of these bytes.
#[inline]
pub(crate) fn to_bytes(from: &[u8]) -> Bytes {
    to_vec(from).into()
}
