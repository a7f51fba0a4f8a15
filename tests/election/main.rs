//! Tests the rules of the example `election` without a network: single cases, and invariants in simulated ensembles.
//!
//! No test opens a socket or waits. `ELECTION_SEED=n` replays one simulation; `ELECTION_SEEDS=n` sets how many run.

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

mod cases;
mod ensemble;
mod messages;
mod pictures;
mod quorums;
mod simulations;
mod tenures;
