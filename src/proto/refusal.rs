//! Why the far end refuses a connection, as it says in a native handshake.
//!
//! Nothing here decides anything. The numbers are those on the wire.

use std::{error, fmt};

use super::sid::Sid;

/// Why the far end has refused this server, as its answer to a native initial message says
/// ([`InitialMessageVersion::Native`](crate::InitialMessageVersion::Native)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Another server answers at the address of the peer: this one. The address is wrong or old.
    WrongServer(Sid),
    /// The server there has another [cluster id](crate::ConfigBuilder::cluster_id).
    WrongCluster,
    /// It does not know the sid of this server.
    UnknownSid,
    /// Another process that is alive has the sid of this server: the far end itself, or one to which it is linked.
    DuplicateSid,
    /// It has an older link to this server, which is alive.
    OlderLinkAlive,
    /// It serves no more servers that are not configured.
    NoRoom,
    /// For a reason that it does not say, for example since it halts.
    Other,
}

impl Refusal {
    /// Its number on the wire. 0 is no refusal.
    pub(super) fn code(self) -> i32 {
        match self {
            Self::Other => 1,
            Self::WrongServer(_) => 2,
            Self::WrongCluster => 3,
            Self::UnknownSid => 4,
            Self::DuplicateSid => 5,
            Self::OlderLinkAlive => 6,
            Self::NoRoom => 7,
        }
    }

    /// The refusal with this number, by the server `sid`. A number that is not known is a refusal too: a later version may have more.
    pub(super) fn of_code(code: i32, sid: Sid) -> Option<Self> {
        Some(match code {
            0 => return None,
            2 => Self::WrongServer(sid),
            3 => Self::WrongCluster,
            4 => Self::UnknownSid,
            5 => Self::DuplicateSid,
            6 => Self::OlderLinkAlive,
            7 => Self::NoRoom,
            _ => Self::Other,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongServer(sid) => write!(f, "another server answers there, server {sid}"),
            Self::WrongCluster => f.write_str("the server there belongs to another cluster"),
            Self::UnknownSid => f.write_str("the far end does not know this server"),
            Self::DuplicateSid => f.write_str("another live process has the id of this server"),
            Self::OlderLinkAlive => {
                f.write_str("the far end has an older link to this server, which is alive")
            }
            Self::NoRoom => f.write_str("the far end admits no more servers"),
            Self::Other => f.write_str("refused by the far end, which does not say why"),
        }
    }
}

impl error::Error for Refusal {}
