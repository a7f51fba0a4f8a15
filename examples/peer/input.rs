//! Reads commands, one a line, of bounded length.
//!
//! The program `election` uses this file, too.

use std::io::{self, BufRead, Read as _};

use quorum_cnx::FRAME_BYTES_MAX;

/// The longest command has the longest frame in hexadecimal.
const LINE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + 64;

/// The next line without its end, or why it is no command. `None` at the end of the input.
///
/// # Errors
///
/// The input cannot be read.
pub(crate) fn next_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, String>>> {
    let mut line = Vec::new();
    let mut bounded = input.by_ref().take(LINE_BYTES_MAX as u64);
    if bounded.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        let why = format!("a command is longer than {LINE_BYTES_MAX} bytes");
        return Ok(Some(Err(why)));
    }
    let line = String::from_utf8(line).map_err(|_| "a command is not UTF-8".to_owned());
    Ok(Some(line.map(|line| {
        line.trim_end_matches(['\n', '\r']).to_owned()
    })))
}
