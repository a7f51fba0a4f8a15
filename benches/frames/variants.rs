//! Who takes part, by name: `raw/write`, `handler/spin`, `inbox/block`.
//!
//! Nothing here runs.

use std::{fmt, str::FromStr};

/// Who carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// Bare sockets: the limit.
    Raw,
    /// A handler on the loop's thread.
    Handler,
    /// The application's own thread turns the loop.
    Loop,
    /// A `CnxManager` and its inbox.
    Inbox,
    /// Links, and nothing on them.
    Idle,
}

/// How it waits, or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// It sleeps until something happens.
    Block,
    /// It asks again and again.
    Spin,
    /// It asks again and again, and a readiness queue watches its socket, too, as that of an event loop does.
    Watch,
    /// One blocking write for each frame.
    Write,
    /// Many frames that were encoded before, in one write, and nobody ever sleeps.
    Chunks,
    /// Connects and accepts, one after the other.
    Connect,
}

/// One of those who take part, by name: `handler/spin`.
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
