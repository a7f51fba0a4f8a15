//! The frames of the driver: numbered from one for each direction. The length of a frame follows from its number.

use support::numbered::numbered;

/// One of so many frames is long, so that it is written and read in parts.
const LONG_EVERY: u64 = 32;
const LONG_BYTES: usize = 20_000;

pub(crate) fn is_long(number: u64) -> bool {
    number % LONG_EVERY == LONG_EVERY - 1
}

/// A frame, as the text of the program's command `send`.
pub(crate) fn text(from: i64, to: i64, number: u64) -> String {
    let bytes = if is_long(number) {
        LONG_BYTES
    } else {
        32 + (number * 37 % 300) as usize
    };
    numbered(from, to, number, bytes)
}
