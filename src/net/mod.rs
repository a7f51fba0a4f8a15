//! The operating system below the loop: sockets, their options, and the resolver.
//!
//! Nothing here knows peers or the roster.

mod mio;
mod platform;
mod resolver;
#[cfg(feature = "tls")]
mod tls;
mod traits;

#[allow(unreachable_pub, reason = "not exported: see its definition")]
pub use mio::MioNet;
pub(crate) use platform::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
pub(crate) use resolver::{NO_ADDRESS, cut, words_of};
#[cfg(feature = "tls")]
pub use tls::TlsNet;
#[cfg(all(feature = "tls", feature = "simulation"))]
pub use tls::TlsStream;
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

/// The network of an `EventLoop` on these sockets.
pub(crate) fn on_system(net: MioNet) -> SystemNet {
    #[cfg(feature = "tls")]
    let net = TlsNet::new(net);
    net
}
