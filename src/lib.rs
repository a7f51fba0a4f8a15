//! The connection manager of a quorum.
#![forbid(unsafe_code)]

mod config;
mod driver;
mod error;
mod handler;
pub mod limits;
mod manager;
mod proto;
mod share;
mod shared;
mod stats;
mod zoo_cfg;

pub use config::{Config, ConfigBuilder, Dial, Idle, Replace, Unknown};
pub use driver::{EventLoop, Found, MioNet, Net, Ready, Stream, Waker};
pub use error::{ConfigError, Fault, Reason, RecvError, SendError};
pub use handler::{Event, Frame, Handler, Message};
pub use manager::{CnxManager, Events, Handle, Sent};
pub use proto::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Address, AddressError, CHALLENGE_BYTES_MAX, Challenge,
    ChallengeError, Sid,
};
pub use share::Wire;
pub use shared::Listening;
pub use stats::{Incoming, Outgoing, PeerStats, Queue, Stats};
