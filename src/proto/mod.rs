//! The rules, without a clock, a socket, a thread or a log line.
//!
//! Nothing in this folder knows the operating system: what happened comes in as arguments (`on_*`, `now`), what is to be
//! done leaves as return values. It imports nothing of the other folders.

mod address;
mod backoff;
mod challenge;
mod frame;
mod roster;
mod standing;

use std::fmt;

pub use address::{Address, AddressError};
pub use challenge::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, CHALLENGE_BYTES_MAX, Challenge, ChallengeError,
};

pub(crate) use address::parse_list;
pub(crate) use challenge::{Hello, decode, encode};
pub(crate) use frame::{Assembler, BadLength, Payload};
pub(crate) use roster::{Action, Claim, LinkKey, PeerId, Roster, Rules, Verdict};
pub(crate) use standing::{Brought, Source};

/// The id of a server: the signed 64-bit number that ZooKeeper keeps in its `myid` file.
///
/// Valid ids of members are `0..i64::MAX`. [`Sid::OBSERVER`] is what an observer without an id sends; negative ids are
/// what this side gives to such observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid(pub i64);

impl Sid {
    /// What an observer without an id of its own sends in place of one (`Long.MAX_VALUE`, ZOOKEEPER-599).
    pub const OBSERVER: Self = Self(i64::MAX);
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
