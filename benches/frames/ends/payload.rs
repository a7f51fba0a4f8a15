//! The head of a payload: the time when the frame was offered, and its sequence number.
//!
//! Both are big-endian, so that any program can write and read them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Bytes of the head.
pub(crate) const HEAD_BYTES: usize = 16;

/// Nanoseconds since 1970, by the wall clock, which the two processes share.
pub(crate) fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stamp: u64,
    pub(crate) number: u64,
}

impl Head {
    pub(crate) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        (u128::from(self.stamp) << 64 | u128::from(self.number)).to_be_bytes()
    }

    /// The head of a payload; `None` if the payload is too short.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let both = u128::from_be_bytes(*payload.first_chunk::<HEAD_BYTES>()?);
        Some(Self {
            stamp: (both >> 64) as u64,
            number: both as u64,
        })
    }

    /// A payload that begins with this head.
    pub(crate) fn payload(self, bytes: usize) -> Bytes {
        let mut payload = vec![b'x'; bytes];
        payload[..HEAD_BYTES].copy_from_slice(&self.to_bytes());
        payload.into()
    }
}

/// An encoded frame: length, then payload.
pub(crate) fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = (bytes as u32).to_be_bytes().to_vec();
    frame.resize(4 + bytes, b'x');
    frame
}

/// Writes a head into an encoded frame.
pub(crate) fn stamp(frame: &mut [u8], head: Head) {
    frame[4..4 + HEAD_BYTES].copy_from_slice(&head.to_bytes());
}
