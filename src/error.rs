//! The errors that calls return to the application.
//!
//! Nothing here is logged or retried. The reasons why connections end are in `proto::reason`.

use std::{error, fmt};

use crate::proto::{Address, AddressError, Sid};

/// Why the members were not changed. Everything is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// The new members cannot work.
    Config(ConfigError),
    /// The version is older than that of the members now.
    #[non_exhaustive]
    OldVersion {
        /// The version that was given.
        given: u64,
        /// The version of the members now.
        current: u64,
    },
    /// The members now have this version, and differ from those that were given.
    SameVersion(u64),
    /// This server, which has this sid, is not among the new members. It cannot remove itself: halt it.
    OwnSid(Sid),
    /// The manager has halted, was asked to halt, or its loop has died.
    Halted,
}

impl fmt::Display for ReconfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::OldVersion { given, current } => {
                write!(f, "version {given} of the members is older than {current}")
            }
            Self::SameVersion(version) => {
                write!(
                    f,
                    "version {version} of the members is another set already: a change needs a higher version"
                )
            }
            Self::OwnSid(sid) => write!(
                f,
                "server {sid} is this server, and it is not among the members: halt it instead"
            ),
            Self::Halted => f.write_str("the connection manager has halted"),
        }
    }
}

impl error::Error for ReconfigureError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for ReconfigureError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::OwnSidMissing(sid) => Self::OwnSid(sid),
            error => Self::Config(error),
        }
    }
}

/// A configuration that cannot work. Returned before any socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The own sid is not among the servers, so it is not known where to listen.
    OwnSidMissing(Sid),
    /// Two servers have this sid.
    DuplicateSid(Sid),
    /// This sid cannot belong to a member: it is negative or [`Sid::OBSERVER`].
    ReservedSid(Sid),
    /// The server has no address.
    NoAddress(Sid),
    /// An address of this server cannot be used.
    #[non_exhaustive]
    BadAddress {
        /// The server.
        sid: Sid,
        /// The address as it was given.
        text: String,
        /// What is wrong with it.
        why: AddressError,
    },
    /// Two servers have this address, so only one of them could be reached at it. IP addresses are compared by value, and names
    /// without regard to case. No name is resolved.
    #[non_exhaustive]
    SharedAddress {
        /// The server with the smaller sid.
        first: Sid,
        /// The other server.
        second: Sid,
        /// The address as it is configured for the other server.
        address: Address,
    },
    /// The certificates of two servers may have this name, so that one of them could be taken for the other.
    #[non_exhaustive]
    SharedName {
        /// The server with the smaller sid.
        first: Sid,
        /// The other server, or [`Sid::OBSERVER`] for observers without an id.
        second: Sid,
        /// The name.
        name: String,
    },
    /// An option has a value outside its range, or values that contradict each other.
    #[non_exhaustive]
    BadOption {
        /// The name of the option, which is that of its builder method.
        option: &'static str,
        /// What is wrong, and which values are allowed.
        why: String,
    },
    /// A line of a `zoo.cfg` cannot be used.
    #[non_exhaustive]
    ZooCfg {
        /// The number of the line, from 1; 0 if the error concerns the whole file.
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
            Self::SharedName {
                first,
                second: Sid::OBSERVER,
                name,
            } => write!(
                f,
                "server {first} and observers have the same name {name}: observers need names of their own"
            ),
            Self::SharedName {
                first,
                second,
                name,
            } => write!(
                f,
                "servers {first} and {second} have the same name {name}: each certificate needs one of its own, and peer_names says which"
            ),
            Self::BadOption { option, why } => write!(f, "{option}: {why}"),
            Self::ZooCfg { line: 0, why } => write!(f, "zoo.cfg: {why}"),
            Self::ZooCfg { line, why } => write!(f, "zoo.cfg line {line}: {why}"),
        }
    }
}

impl error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::BadAddress { why, .. } => Some(why),
            _ => None,
        }
    }
}

/// Why a frame was not taken. Such a frame has changed nothing and is counted nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No member, admitted peer or connected observer has this sid.
    UnknownPeer(Sid),
    /// The peer was removed after it was found: by a [`PeerHandle`](crate::PeerHandle) or a [`Sender`](crate::Sender), or while this call
    /// sent to it. If the sid is that of a member again, that is another peer.
    Removed(Sid),
    /// The frame is empty. A frame has at least one byte.
    Empty,
    /// The frame is longer than [`FRAME_BYTES_MAX`](crate::FRAME_BYTES_MAX); the length is in bytes.
    TooLarge(usize),
    /// The queue of this peer has no room for the frame ([`Outbox::Queue`](crate::Outbox::Queue)). For the own sid: the inbox has
    /// none ([`InboxFull::PushBack`](crate::InboxFull::PushBack)).
    Full,
    /// The manager has halted, was asked to halt, or its loop has died.
    Halted,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPeer(sid) => write!(f, "no peer has the id {sid}"),
            Self::Removed(sid) => write!(f, "peer {sid} was removed"),
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
    /// Nothing arrived in the given time.
    Timeout,
    /// Nothing is left and nothing can arrive any more: the manager has halted, or its loop has died.
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

/// Why nothing was received by a call that does not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// Nothing is left and nothing can arrive any more: the manager has halted, or its loop has died.
    Halted,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing is there to be received",
            Self::Halted => "the connection manager has halted",
        })
    }
}

impl error::Error for TryRecvError {}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Timeout => Self::Empty,
            RecvError::Halted => Self::Halted,
        }
    }
}
