//! What stands at the beginning of a payload: when it was offered, and its running number.
//!
//! Both are big-endian, 8 bytes each. Nothing here keeps anything.

use std::time::{SystemTime, UNIX_EPOCH};

/// The least payload that carries both.
pub(crate) const BYTES_MIN: usize = 16;

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

pub(crate) fn set_stamp(payload: &mut [u8], stamp: u64) {
    payload[..8].copy_from_slice(&stamp.to_be_bytes());
}

pub(crate) fn set_number(payload: &mut [u8], number: u64) {
    payload[8..16].copy_from_slice(&number.to_be_bytes());
}

/// The stamp and the number of a frame that came, unless it is too short.
pub(crate) fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let stamp = payload.first_chunk()?;
    let number = payload.get(8..)?.first_chunk()?;
    Some((u64::from_be_bytes(*stamp), u64::from_be_bytes(*number)))
}
