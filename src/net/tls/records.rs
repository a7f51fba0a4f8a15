//! Ciphertext on its way to the socket, and how much plaintext of it counts as written.
//!
//! Nothing here encrypts or makes a system call.
//!
//! The outbox offers plaintext again and again until it is reported as written, and counts a frame as written when its last byte is.
//! That must mean that the system has the frame. So the plaintext of a record is reported when the whole record has left. If the
//! socket is full before a first record has left, one byte is reported: a frame that is encrypted cannot be replaced any more, and the
//! outbox replaces none that has begun.

use std::collections::VecDeque;

/// Records that were encrypted and have not left, and the bounds between them.
#[derive(Debug, Default)]
pub(super) struct Records {
    ciphertext: Vec<u8>,
    /// How many bytes of `ciphertext` have left.
    sent: usize,
    /// The plaintext bytes of each record, and where the record ends in `ciphertext`.
    bounds: VecDeque<(usize, usize)>,
    /// Plaintext bytes of the records that have left, and of those that were encrypted.
    left: u64,
    encrypted: u64,
    reported: u64,
    /// Records so far.
    count: u64,
}

impl Records {
    /// The ciphertext that has not left.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.ciphertext[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.ciphertext.len()
    }

    /// Plaintext bytes that were encrypted and not reported. The outbox offers them once more.
    pub(super) fn ahead(&self) -> usize {
        (self.encrypted - self.reported) as usize
    }

    /// Where the next record is written.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.ciphertext
    }

    /// A record with this many bytes of plaintext ends here.
    pub(super) fn end_record(&mut self, plaintext: usize) {
        self.encrypted += plaintext as u64;
        self.count += 1;
        self.bounds.push_back((plaintext, self.ciphertext.len()));
    }

    /// How many records were encrypted so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    /// The socket has taken this many bytes of ciphertext.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some(&(plaintext, end)) = self.bounds.front() {
            if end > self.sent {
                break;
            }
            self.bounds.pop_front();
            self.left += plaintext as u64;
        }
        if self.is_empty() {
            self.ciphertext.clear();
            self.sent = 0;
        }
    }

    /// How many plaintext bytes to report as written, of `offered` bytes that the outbox offers.
    pub(super) fn report(&mut self, offered: usize) -> usize {
        let left = self.left.saturating_sub(self.reported);
        // The only byte of an offer cannot stand for a beginning: reported, it would count as the end of its frame.
        let begins = left == 0 && self.left == self.reported && self.ahead() > 0 && offered > 1;
        let bytes = if begins { 1 } else { left };
        self.reported += bytes;
        bytes as usize
    }

    /// The buffer, if it is empty, for the next stream that writes.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        if self.is_empty() {
            std::mem::take(&mut self.ciphertext)
        } else {
            Vec::new()
        }
    }

    pub(super) fn has_buffer(&self) -> bool {
        self.ciphertext.capacity() > 0
    }

    /// Uses this buffer, which is empty.
    pub(super) fn give_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty() && self.is_empty());
        self.ciphertext = buffer;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Encrypts a record of this many bytes as one of 10 bytes more.
    fn encrypt(records: &mut Records, plaintext: usize) {
        let end = records.unsent().len() + plaintext + 10;
        records.room().resize(end, 0);
        records.end_record(plaintext);
    }

    #[test]
    fn plaintext_is_reported_when_its_record_has_left() {
        let mut records = Records::default();
        encrypt(&mut records, 100);
        encrypt(&mut records, 50);
        records.on_sent(109);
        // No record has left: one byte says that the first has begun, and only once.
        assert_eq!(records.report(150), 1);
        assert_eq!(records.report(149), 0);
        assert_eq!(records.ahead(), 149);
        records.on_sent(1);
        assert_eq!(records.report(149), 99);
        // The second record has not begun to count: its first byte is reported for the same reason.
        assert_eq!(records.report(50), 1);
        records.on_sent(60);
        assert_eq!(records.report(49), 49);
        assert_eq!((records.ahead(), records.is_empty()), (0, true));
    }

    #[test]
    fn last_byte_of_a_frame_is_not_reported_before_its_record_has_left() {
        let mut records = Records::default();
        encrypt(&mut records, 1);
        assert_eq!(records.report(1), 0);
        records.on_sent(11);
        assert_eq!(records.report(1), 1);
    }
}
