//! Where a message comes from, and whose share of the inbox it uses.
//!
//! Nothing here is queued.

use crate::proto::Sid;

/// The owner of messages and events in the inbox. Each owner has a share of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A configured server, or this one.
    Server(Sid),
    /// All other peers together, so that they get no larger share by being many.
    Others,
    /// This server, as the owner of events about itself.
    Own,
}

impl Owner {
    /// The sid of the owner; [`Sid::OBSERVER`] if it is not one configured server.
    pub(crate) fn sid(self) -> Sid {
        match self {
            Self::Server(sid) => sid,
            Self::Others | Self::Own => Sid::OBSERVER,
        }
    }
}

/// Where frames come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) from: Sid,
    /// True exactly when `from` is configured; see [`Owner`].
    pub(crate) is_server: bool,
    pub(crate) link: u64,
}

impl Source {
    /// This server itself.
    pub(crate) fn loopback(own: Sid) -> Self {
        Self {
            from: own,
            is_server: true,
            link: 0,
        }
    }

    /// The owner whose share of the inbox is used.
    pub(crate) fn owner(self) -> Owner {
        if self.is_server {
            Owner::Server(self.from)
        } else {
            Owner::Others
        }
    }
}
