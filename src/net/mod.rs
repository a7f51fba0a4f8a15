//! The operating system under the loop: sockets, their options, the resolver.
//!
//! Nothing here knows peers or rules.

mod mio;
mod platform;
mod resolver;
mod traits;

pub use mio::{MioNet, MioStream};
pub(crate) use platform::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
pub(crate) use resolver::{NO_ADDRESS, cut, words_of};
pub use traits::{Found, Net, Ready, Stream, Waker};
