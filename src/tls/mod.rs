//! TLS without a socket: what a server needs to speak it, and which certificate may be which server.
//!
//! Nothing here opens a connection. The handshake and the records are the task of `net::tls`, which calls what is exported here:
//!
//! 1. [`Tls::client_config`] for a connection that this server dials, unless it dials in plaintext ([`Tls::dials_tls`]).
//!    [`Tls::server_config`] for one that it accepts. [`Tls::accepts_plain`] says whether the far end may speak without TLS. The name
//!    that rustls needs for a dial is the IP address.
//! 2. [`failure_of`] for an error of rustls: the reason that is reported.
//! 3. [`Identities::check`] when the handshake has ended and the sid is known.
//! 4. [`Identities::recheck`] for each link after the application has replaced the [`Tls`], and [`Tls::not_after`] to warn of the own
//!    certificate's expiry.
//!
//! The handshake verifies the chain of a certificate only. Its names are checked afterwards, since only then the sid is known.

mod certificate;
mod configs;
mod context;
mod failure;
mod identities;
mod peer_name;
#[cfg(feature = "tls-ring")]
pub(crate) mod pem;
mod trust;

pub use configs::{Plaintext, Tls, TlsBuilder};
pub use context::TlsContext;
pub use peer_name::PeerName;

pub(crate) use failure::failure_of;
pub(crate) use identities::Identities;

#[cfg(all(test, not(loom), feature = "tls-ring"))]
pub(crate) mod fixture;
#[cfg(all(test, not(loom), feature = "tls-ring"))]
mod tests;
