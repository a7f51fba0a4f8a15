//! The rules, without a clock, a socket, a thread or a log line.
//!
//! Nothing in this folder knows the operating system: what happened comes in as arguments (`on_*`, `now`), what is to be
//! done leaves as return values. It imports nothing of the others but the limits.

mod address;
mod backoff;
mod frame;
mod initial_message;
mod reason;
mod roster;
mod sid;
mod standing;

pub use address::{Address, AddressError};
pub use initial_message::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, INITIAL_MESSAGE_BYTES_MAX, InitialMessageError,
    InitialMessageVersion,
};

pub use reason::{Fault, Reason};
pub use sid::Sid;

pub(crate) use address::parse_list;
pub(crate) use frame::{Assembler, BadLength, Payload};
pub(crate) use initial_message::{InitialMessage, decode, encode};
pub(crate) use roster::{Action, Claim, ConnectionKey, PeerId, Roster, Rules, Verdict};
pub(crate) use standing::{Brought, Source};
