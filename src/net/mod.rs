//! The operating system below the loop: sockets, their options, and the resolver.
//!
//! Nothing here knows peers or the roster.

mod mio;
mod platform;
mod resolver;
mod traits;

#[allow(unreachable_pub, reason = "not exported: see its definition")]
pub use mio::MioNet;
pub(crate) use platform::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
pub(crate) use resolver::{NO_ADDRESS, cut, words_of};
#[cfg(feature = "simulation")]
pub use traits::{Found, Waker};
pub use traits::{Identity, Net, Ready, Stream};
