//! The operating system below the loop: sockets, their options, and the resolver.
//!
//! Nothing here knows peers or the roster.

mod mio;
mod platform;
mod resolver;
mod traits;

pub use mio::{MioNet, MioStream};
pub(crate) use platform::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
pub(crate) use resolver::{NO_ADDRESS, cut, words_of};
pub use traits::{Found, Net, Ready, Stream, Waker};
