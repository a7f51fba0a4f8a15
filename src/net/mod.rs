//! The operating system below the loop: sockets, their options, and the resolver.
//!
//! Nothing here knows peers or the roster.

mod mio;
mod platform;
mod resolver;
#[cfg(feature = "tls")]
mod tls;
mod traits;

use std::io;

use crate::config::Options;

#[allow(unreachable_pub, reason = "not exported: see its definition")]
pub use mio::MioNet;
pub(crate) use platform::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
pub(crate) use resolver::{NO_ADDRESS, cut, words_of};
#[cfg(feature = "tls")]
pub use tls::{TlsNet, TlsStream};
pub(crate) use traits::random;
#[cfg(feature = "simulation")]
pub use traits::{Found, Waker};
pub use traits::{Identity, Net, Ready, Stream};

/// The network of an `EventLoop` on real sockets.
#[cfg(not(feature = "tls"))]
#[allow(
    unreachable_pub,
    reason = "the default of `EventLoop`, which is exported"
)]
pub type SystemNet = MioNet;

/// The network of an `EventLoop` on real sockets. It passes plaintext through if TLS is not configured.
#[cfg(feature = "tls")]
#[allow(
    unreachable_pub,
    reason = "the default of `EventLoop`, which is exported"
)]
pub type SystemNet = TlsNet<MioNet>;

/// Real sockets with these options.
pub(crate) fn system_net(options: &Options) -> io::Result<SystemNet> {
    let net = MioNet::new(options)?;
    #[cfg(feature = "tls")]
    let net = TlsNet::new(net);
    Ok(net)
}
