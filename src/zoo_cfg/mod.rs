//! A ZooKeeper `zoo.cfg`, or the dynamic configuration file that it names.
//!
//! Only `read` opens files. Nothing here resolves a name.

mod configure;
mod keys;
mod properties;
mod read;
mod server_line;
mod types;

pub use read::ZooCfgReader;
pub use types::{ZooCfg, ZooServer};
