//! Reads a ZooKeeper `zoo.cfg`, and the dynamic configuration file that it names.
//!
//! Nothing here resolves a name, and only `read` opens files.

mod configure;
mod keys;
mod properties;
mod read;
mod server_line;
#[cfg(feature = "tls-ring")]
mod tls;
mod types;

pub use read::ZooCfgReader;
pub use types::{ZooCfg, ZooServer};
