//! Writes to standard output and standard error, whose reader may close the pipe at any time: `| head`.
//!
//! Unlike `println!` and `eprintln!`, nothing here panics then.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes a line to standard output. Returns `false` if the pipe is closed, which is no error.
pub(crate) fn print_line(line: impl Display) -> io::Result<bool> {
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

/// Writes a line to standard error. Errors are ignored: then only the exit code is left.
pub(crate) fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
