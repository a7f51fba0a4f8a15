//! What can be said about a mistake of the caller.
//!
//! Nothing here is logged or retried. Why a connection ends is in `proto::reason`.

use std::{error, fmt};

use crate::proto::{Address, AddressError, Sid};

/// A configuration that cannot work. Returned before any socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The own sid is not among the servers, so nobody knows where to listen.
    OwnSidMissing(Sid),
    /// Two servers have this sid.
    DuplicateSid(Sid),
    /// This sid cannot belong to a member: it is negative or [`Sid::OBSERVER`].
    ReservedSid(Sid),
    /// The server has no address.
    NoAddress(Sid),
    /// An address of this server cannot be used.
    BadAddress {
        /// Whose address it is.
        sid: Sid,
        /// The address as it was given.
        text: String,
        /// What is wrong with it.
        why: AddressError,
    },
    /// Two servers have this address, so that only one of them could be reached at it. IP addresses are compared by value,
    /// names without regard to case; no name is resolved.
    SharedAddress {
        /// One server, the one with the smaller sid.
        first: Sid,
        /// The other server.
        second: Sid,
        /// The address, as the other server has it.
        address: Address,
    },
    /// An option has a value outside its range, or values that contradict each other.
    BadOption {
        /// The option, by the name of its builder method.
        option: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A line of a `zoo.cfg` cannot be used.
    ZooCfg {
        /// The line, from 1; 0 when it concerns the file as a whole.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnSidMissing(sid) => write!(
                f,
                "server {sid} is this server, but it is not among the servers"
            ),
            Self::DuplicateSid(sid) => write!(f, "server {sid} is configured twice"),
            Self::ReservedSid(sid) => {
                write!(
                    f,
                    "{sid} cannot be the id of a server: use 0 to {}",
                    i64::MAX - 1
                )
            }
            Self::NoAddress(sid) => write!(f, "server {sid} has no address"),
            Self::BadAddress { sid, text, why } => {
                write!(f, "address {text:?} of server {sid}: {why}")
            }
            Self::SharedAddress {
                first,
                second,
                address,
            } => write!(
                f,
                "servers {first} and {second} have the same address {address}: each needs one of its own"
            ),
            Self::BadOption { option, why } => write!(f, "{option}: {why}"),
            Self::ZooCfg { line: 0, why } => write!(f, "zoo.cfg: {why}"),
            Self::ZooCfg { line, why } => write!(f, "zoo.cfg line {line}: {why}"),
        }
    }
}

impl error::Error for ConfigError {}

/// A frame that was not taken. It has changed nothing and is counted nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody with this sid is configured, admitted or connected as an observer.
    UnknownPeer(Sid),
    /// A frame has at least one byte.
    Empty,
    /// The frame is longer than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX); the length is in bytes.
    TooLarge(usize),
    /// The queue of this peer has no room for it ([`Outbox::Queue`](crate::Outbox::Queue)).
    Full,
    /// The manager has halted or was asked to, or its loop has died.
    Halted,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPeer(sid) => write!(f, "no peer has the id {sid}"),
            Self::Empty => f.write_str("a frame has at least one byte"),
            Self::TooLarge(len) => {
                write!(
                    f,
                    "a frame of {len} bytes is longer than {}",
                    crate::limits::FRAME_BYTES_MAX
                )
            }
            Self::Full => {
                f.write_str("the queue of this peer is full: wait until it has written something")
            }
            Self::Halted => f.write_str("the connection manager has halted"),
        }
    }
}

impl error::Error for SendError {}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing came in the time given.
    Timeout,
    /// Nothing is left and nothing can come: the manager has halted, or its loop has died.
    Halted,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "nothing was received in time",
            Self::Halted => "the connection manager has halted",
        })
    }
}

impl error::Error for RecvError {}
