//! The variants of a participant, by name: `raw/write`, `handler/spin`, `inbox/block`, `handler/block/tls`.

use std::{fmt, str::FromStr};

/// The interface that sends and receives the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Api {
    /// Bare sockets, which are the limit.
    Raw,
    /// A handler on the loop's thread.
    Handler,
    /// An event loop that the application's own thread turns.
    Loop,
    /// The same, and a `Sender` that collects frames without a lock.
    Feed,
    /// The same; frames are written where they are sent from.
    FeedWith,
    /// A `CnxManager` and its inbox.
    Inbox,
    /// Links without any frames.
    Idle,
}

/// How it waits or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Blocks until something is ready. Bare sockets in a stream: as `Chunks`, but blocking.
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
    /// Blocks, and frames go through a queue instead of a slot.
    Queue,
    /// The same, with one thread instead of many.
    QueueAlone,
}

/// A variant: `handler/spin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) api: Api,
    pub(crate) mode: Mode,
    pub(crate) has_tls: bool,
}

/// What the name of a variant with TLS ends with.
const TLS: &str = "/tls";

const APIS: [(Api, &str); 7] = [
    (Api::Raw, "raw"),
    (Api::Handler, "handler"),
    (Api::Loop, "loop"),
    (Api::Feed, "feed"),
    (Api::FeedWith, "feed-with"),
    (Api::Inbox, "inbox"),
    (Api::Idle, "idle"),
];

const MODES: [(Mode, &str); 8] = [
    (Mode::Block, "block"),
    (Mode::Spin, "spin"),
    (Mode::Watch, "watch"),
    (Mode::Write, "write"),
    (Mode::Chunks, "chunks"),
    (Mode::Connect, "connect"),
    (Mode::Queue, "queue"),
    (Mode::QueueAlone, "queue-alone"),
];

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let api = APIS.iter().find(|(api, _)| *api == self.api);
        let mode = MODES.iter().find(|(mode, _)| *mode == self.mode);
        let name = |found: Option<&'static str>| found.expect("all are in the table");
        let [api, mode] = [api.map(|api| api.1), mode.map(|mode| mode.1)].map(name);
        let tls = if self.has_tls { TLS } else { "" };
        f.pad(&format!("{api}/{mode}{tls}"))
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = || {
            let (plain, has_tls) = match text.strip_suffix(TLS) {
                Some(plain) => (plain, true),
                None => (text, false),
            };
            let (api, mode) = plain.split_once('/')?;
            let (api, _) = APIS.iter().find(|(_, name)| *name == api)?;
            let (mode, _) = MODES.iter().find(|(_, name)| *name == mode)?;
            Some(Self {
                has_tls,
                ..variant(*api, *mode)
            })
        };
        named().ok_or_else(|| "no such variant; there are handler/block, raw/spin, ...".into())
    }
}

pub(crate) const fn variant(api: Api, mode: Mode) -> Variant {
    Variant {
        api,
        mode,
        has_tls: false,
    }
}
