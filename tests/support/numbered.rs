//! Numbered frames: text that follows from the sender, the receiver, the number and the length, so that a torn frame and one that
//! went astray are detected.

/// The frame, which is longer than `bytes` if its header alone is.
pub fn numbered(from: i64, to: i64, number: u64, bytes: usize) -> String {
    let mut text = format!("{from}>{to}#{number}/{bytes}:");
    let left = bytes.saturating_sub(text.len());
    // Periods are primes, so that parts of a frame differ from each other and from other frames.
    let letters = (number % 251..).map(|n| char::from(b'a' + (n % 23) as u8));
    text.extend(letters.take(left));
    text
}

/// The number of a frame that has arrived, or an error if it is not whole.
pub fn number_of(from: i64, to: i64, frame: &[u8]) -> Result<u64, String> {
    let shown = || String::from_utf8_lossy(&frame[..frame.len().min(100)]).into_owned();
    let parse = || {
        let end = frame.iter().position(|byte| *byte == b':')?;
        let header = std::str::from_utf8(&frame[..end]).ok()?;
        let (number, bytes) = header.split_once('#')?.1.split_once('/')?;
        Some((number.parse().ok()?, bytes.parse().ok()?))
    };
    let (number, bytes) = parse().ok_or_else(|| format!("no header: {}", shown()))?;
    if bytes <= frame.len() && frame == numbered(from, to, number, bytes).as_bytes() {
        return Ok(number);
    }
    let arrived = frame.len();
    Err(format!(
        "{arrived} bytes differ from frame {number} as it was sent: {}",
        shown()
    ))
}
