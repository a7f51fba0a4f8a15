//! Two ways to use quorum-cnx in a program on tokio.
//!
//! Nothing here needs a runtime of several threads.

mod manager;
mod turned;

pub use manager::{halt, serve};
pub use turned::turn;
