//! The bytes of an input, as one choice after the other.
//!
//! Nothing is refused: what is missing at the end is zero.

#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Up to so many bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The length of something: 1 to 524 288 in two bytes, the small ones exactly.
    pub(crate) fn size(&mut self) -> usize {
        let size = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
        match size.checked_sub(1 << 15) {
            None => size + 1,
            Some(large) => (large + 1) << 4,
        }
    }
}
