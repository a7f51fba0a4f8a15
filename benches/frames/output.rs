//! Standard output and standard error, whose reader may go away at any time: `| head`.
//!
//! Nothing here panics then, as `println!` and `eprintln!` do.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes a line to standard output, and says whether somebody reads it. That nobody does is no failure.
pub(crate) fn say(line: impl Display) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("writing to standard output: {error}"),
        )),
    }
}

/// Writes a line to standard error. When nobody reads it, the exit code has to do.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
