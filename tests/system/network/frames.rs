//! The frames of the driver: numbered from one for each direction. Length and content of a frame follow from its number.

/// One of so many frames is long, so that it is written and read in parts.
const LONG_EVERY: u64 = 32;
const LONG_BYTES: usize = 20_000;

pub(crate) fn is_long(number: u64) -> bool {
    number % LONG_EVERY == LONG_EVERY - 1
}

/// A frame, as the text of the program's command `send`.
pub(crate) fn text(from: i64, to: i64, number: u64) -> String {
    let mut text = format!("{from}>{to}#{number}:");
    let len = if is_long(number) {
        LONG_BYTES
    } else {
        32 + (number * 37 % 300) as usize
    };
    // Periods are primes, so that parts of a frame differ from each other and from other frames.
    let letters = (number % 251..).map(|n| char::from(b'a' + (n % 23) as u8));
    text.extend(letters.take(len));
    text
}

/// The number of a frame that the program has printed, or an error if it is torn.
pub(crate) fn number(from: i64, to: i64, hex: &str) -> Result<u64, String> {
    let bytes = decode_hex(hex).ok_or("not hexadecimal")?;
    let found = String::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let number = found
        .split_once('#')
        .and_then(|(_, rest)| rest.split_once(':'))
        .and_then(|(number, _)| number.parse().ok())
        .ok_or_else(|| format!("no number: {found}"))?;
    if found == text(from, to, number) {
        Ok(number)
    } else {
        Err(format!(
            "differs from frame {number} as it was sent: {found}"
        ))
    }
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    hex.as_bytes()
        .chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8))
        .collect()
}
