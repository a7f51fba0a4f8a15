//! Who this server is, where its peers live, and how it is to behave.
//!
//! Nothing here opens a socket, a file or a name: a configuration is checked, and then read.

mod builder;
mod memory;
mod options;
mod policy;
mod validate;

pub use builder::ConfigBuilder;
pub use options::Config;
pub(crate) use options::Options;
pub use policy::{Dial, Idle, Outbox, Replace, Unknown};
