//! The rules of the protocol, without a clock, a socket, a thread or a log line.
//!
//! Nothing in this folder calls the operating system. Events and the time enter as arguments (`on_*`, `now`). What must be done is
//! returned as values. Of the other folders, only the limits are imported.

mod address;
mod backoff;
mod control;
mod frame;
mod incarnations;
mod initial_message;
mod native;
mod reason;
mod refusal;
mod roster;
mod sid;
mod standing;
mod tls_failure;

pub use address::{Address, AddressError};
pub use initial_message::{InitialMessageError, InitialMessageVersion};

pub use reason::{Fault, Reason, ReasonKind};
pub use refusal::Refusal;
pub use sid::Sid;
pub use tls_failure::TlsFailure;

pub(crate) use address::parse_list;
pub(crate) use control::{CONTROL_BYTES, Controls};
pub(crate) use frame::{Assembler, BadLength, Payload};
pub(crate) use initial_message::{InitialMessage, decode, encode};
pub(crate) use native::{Answer, Native};
pub(crate) use roster::{
    Action, Claim, ConnectionKey, NativeRules, PeerId, PeerIds, Roster, Rules, Verdict,
};
pub(crate) use standing::{Brought, Source};
