//! The configuration: the sid of this server, the addresses of all servers, and the options.
//!
//! Nothing here opens a socket or a file, or resolves a name. A configuration is checked once and then only read.

mod builder;
mod members;
mod memory;
mod options;
mod policy;
#[cfg(feature = "tls")]
mod secure;
mod servers;
mod validate;

pub use builder::ConfigBuilder;
pub use members::{Leave, Members};
pub use options::Config;
pub(crate) use options::{Listens, Options, Server, Sockets};
pub use policy::{Dial, Idle, Outbox, Replace, Unknown};
#[cfg(feature = "tls")]
pub(crate) use secure::check_named;
pub(crate) use servers::{Given, check_servers, take_own};
