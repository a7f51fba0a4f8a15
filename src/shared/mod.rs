//! The state that the handles, on any thread, share with the loop.
//!
//! Nothing here waits for the network, and nothing decides which peer is linked.

mod histogram;
mod lifecycle;
mod membership;
mod openmetrics;
mod peer;
mod process;
mod reconfigure;
mod registry;
mod send;
mod state;
mod stats;
#[cfg(feature = "tls")]
mod tls;

pub use histogram::Histogram;
pub(crate) use lifecycle::Life;
pub use lifecycle::Listening;
pub use membership::Changes;
pub(crate) use membership::{Leaver, Member, Membership, View, are_same};
pub(crate) use peer::Peer;
#[cfg(test)]
pub(crate) use process::FORKED;
pub(crate) use process::Home;
pub(crate) use state::{Shared, StandIn};
pub use stats::{LinkStats, PeerStats, QueueStats, ReceiveStats, SendStats, Stats};
