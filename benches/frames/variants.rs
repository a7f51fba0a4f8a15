//! The variants of a participant, by name: `raw/write`, `handler/spin`, `inbox/block`.

use std::{fmt, str::FromStr};

/// The interface that sends and receives the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// Bare sockets, which are the limit.
    Raw,
    /// A handler on the loop's thread.
    Handler,
    /// An event loop that the application's own thread turns.
    Loop,
    /// A `CnxManager` and its inbox.
    Inbox,
    /// Links without any frames.
    Idle,
}

/// How it waits or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// Blocks until something is ready.
    Block,
    /// Polls without blocking.
    Spin,
    /// Polls without blocking, with the socket registered with a readiness queue (epoll), as in an event loop.
    Watch,
    /// Makes one blocking write for each frame.
    Write,
    /// Writes many frames at once, encoded beforehand. Both ends poll without blocking.
    Chunks,
    /// Connects and accepts, one after the other.
    Connect,
}

/// A variant: `handler/spin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) way: Way,
    pub(crate) how: How,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Raw, "raw"),
    (Way::Handler, "handler"),
    (Way::Loop, "loop"),
    (Way::Inbox, "inbox"),
    (Way::Idle, "idle"),
];

const HOWS: [(How, &str); 6] = [
    (How::Block, "block"),
    (How::Spin, "spin"),
    (How::Watch, "watch"),
    (How::Write, "write"),
    (How::Chunks, "chunks"),
    (How::Connect, "connect"),
];

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = WAYS.iter().find(|(way, _)| *way == self.way);
        let how = HOWS.iter().find(|(how, _)| *how == self.how);
        let name = |found: Option<&'static str>| found.expect("all are in the table");
        let [way, how] = [way.map(|way| way.1), how.map(|how| how.1)].map(name);
        f.pad(&format!("{way}/{how}"))
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = || {
            let (way, how) = text.split_once('/')?;
            let (way, _) = WAYS.iter().find(|(_, name)| *name == way)?;
            let (how, _) = HOWS.iter().find(|(_, name)| *name == how)?;
            Some(variant(*way, *how))
        };
        named().ok_or_else(|| "no such variant; there are handler/block, raw/spin, ...".into())
    }
}

pub(crate) const fn variant(way: Way, how: How) -> Variant {
    Variant { way, how }
}
