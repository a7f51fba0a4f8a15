//! raft-rs on quorum-cnx: a counter that five nodes replicate.
//!
//! `README.md` says how messages of raft map to frames.

mod counter;
mod disk;
mod replica;
mod server;

pub use counter::Request;
pub use disk::Disk;
pub use replica::{Answer, Replica};
pub use server::{Server, TICK};
