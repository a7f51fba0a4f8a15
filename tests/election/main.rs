//! The rules of the example `election` without a network: on paper, where each case is written down, and in simulated
//! worlds, where nothing is but what must hold.
//!
//! Nothing here opens a socket or waits. `ELECTION_SEED=n` replays one world; `ELECTION_SEEDS=n` is for how many are tried.

#[path = "../../examples/election/election.rs"]
mod election;
#[path = "../../examples/election/notification.rs"]
mod notification;
#[path = "../../examples/election/picture.rs"]
mod picture;
#[path = "../../examples/election/quorum.rs"]
mod quorum;
#[path = "../../examples/election/tenure.rs"]
mod tenure;
#[path = "../../examples/election/timeline.rs"]
mod timeline;

#[path = "../sim/chance.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "another simulator draws more from it"
)]
mod chance;

mod messages;
mod paper;
mod pictures;
mod quorums;
mod tenures;
mod world;
mod worlds;
