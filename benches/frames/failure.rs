//! Errors that say what failed, where, and what can be done about it.
//!
//! Nothing here decides whether to go on.

use std::{fmt::Display, io};

/// An error of our own.
pub(crate) fn failure(what: impl Display) -> io::Error {
    io::Error::other(what.to_string())
}

/// Puts in front of an error what was being done.
pub(crate) trait While<T> {
    fn context(self, doing: impl Display) -> io::Result<T>;
}

impl<T, E: Display> While<T> for Result<T, E> {
    fn context(self, doing: impl Display) -> io::Result<T> {
        self.map_err(|error| failure(format!("{doing}: {error}")))
    }
}
