//! Errors with a message and a context.

use std::{fmt::Display, io};

/// An error with this message.
pub(crate) fn failure(what: impl Display) -> io::Error {
    io::Error::other(what.to_string())
}

/// Adds a context to an error.
pub(crate) trait While<T> {
    fn context(self, doing: impl Display) -> io::Result<T>;
}

impl<T, E: Display> While<T> for Result<T, E> {
    fn context(self, doing: impl Display) -> io::Result<T> {
        self.map_err(|error| failure(format!("{doing}: {error}")))
    }
}
