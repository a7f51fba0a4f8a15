//! The head of a payload: the time when it was offered, and its sequence number.
//!
//! Both are big-endian, 8 bytes each.

use std::time::{SystemTime, UNIX_EPOCH};

/// The smallest payload with a head.
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

/// The time and the number in a payload; `None` if it is too short.
pub(crate) fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let stamp = payload.first_chunk()?;
    let number = payload.get(8..)?.first_chunk()?;
    Some((u64::from_be_bytes(*stamp), u64::from_be_bytes(*number)))
}
