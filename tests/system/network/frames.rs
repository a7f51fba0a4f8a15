//! The frames of the driver: numbered from one for each way, of many lengths, and each byte of them follows from the number.
//!
//! Nothing here sends.

/// One of so many is long, so that it leaves and arrives in parts.
const LONG_EVERY: u64 = 32;
const LONG_BYTES: usize = 20_000;

pub(crate) fn is_long(number: u64) -> bool {
    number % LONG_EVERY == LONG_EVERY - 1
}

/// The frame, as the program takes it.
pub(crate) fn text(from: i64, to: i64, number: u64) -> String {
    let mut text = format!("{from}>{to}#{number}:");
    let len = if is_long(number) {
        LONG_BYTES
    } else {
        32 + (number * 37 % 300) as usize
    };
    // A prime, so that no part of a frame is like another part or another frame.
    let letters = (number % 251..).map(|n| char::from(b'a' + (n % 23) as u8));
    text.extend(letters.take(len));
    text
}

/// The number of the frame that the program has printed, if it is whole.
pub(crate) fn number(from: i64, to: i64, hex: &str) -> Result<u64, String> {
    let bytes = unhex(hex).ok_or("it is not hexadecimal")?;
    let found = String::from_utf8(bytes).map_err(|_| "it is not text")?;
    let number = found
        .split_once('#')
        .and_then(|(_, rest)| rest.split_once(':'))
        .and_then(|(number, _)| number.parse().ok())
        .ok_or_else(|| format!("it has no number: {found}"))?;
    if found == text(from, to, number) {
        Ok(number)
    } else {
        Err(format!(
            "it is not what was sent as number {number}: {found}"
        ))
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    hex.as_bytes()
        .chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8))
        .collect()
}
