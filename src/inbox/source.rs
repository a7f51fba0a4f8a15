//! Where a message comes from, and in whose share of the inbox it is.
//!
//! Nothing here is queued.

use crate::proto::Sid;

/// In whose share of the inbox messages and events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A configured server, or this one.
    Server(Sid),
    /// All others together, so that they gain nothing by coming as many.
    Others,
    /// What this server says of itself.
    Own,
}

impl Owner {
    /// Whom it is about; [`Sid::OBSERVER`] if that is several.
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

    /// In whose share of the inbox it is.
    pub(crate) fn owner(self) -> Owner {
        if self.is_server {
            Owner::Server(self.from)
        } else {
            Owner::Others
        }
    }
}
