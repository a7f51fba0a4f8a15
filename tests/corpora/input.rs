//! Reads choices from the bytes of a fuzz input. Bytes that are missing at the end are zero.

use quorum_cnx::FRAME_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length from 1 to 524 288, mostly small, encoded in two bytes.
    pub(crate) fn size(&mut self) -> usize {
        let (high, low) = (usize::from(self.byte()), usize::from(self.byte()));
        let less_one = match high {
            0..192 => (high & 3) << 8 | low,
            // Around the length from which a frame is read directly into its own buffer.
            192..248 => (high - 192) << 9 | low,
            248.. => (high - 247) * (FRAME_BYTES_MAX / 8) - 1 - low,
        };
        less_one + 1
    }
}
