//! What can be measured: the workloads, who takes part in each, what each yields, and what its limit is.
//!
//! Nothing here is measured.

use std::{fmt, str::FromStr};

use clap::ValueEnum;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Workload {
    /// Strict ping-pong of one frame
    Latency,
    /// A sender that never pauses, into one slot: what arrives, and how old it is
    Latest,
    /// One slot, and a sender that waits until it is free
    Lossless,
    /// Every frame counts, in order
    Stream,
    /// One value to many peers
    FanOut,
    /// One busy pair beside many idle links
    Many,
    /// One peer that does not keep up, and what the others feel of it
    SlowPeer,
    /// Time until everybody is linked to everybody
    Mesh,
    /// Eight threads that send at once
    Contended,
}

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
    /// One blocking write for each frame.
    Write,
    /// Many frames that were encoded before, in one write.
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

const HOWS: [(How, &str); 5] = [
    (How::Block, "block"),
    (How::Spin, "spin"),
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

const fn variant(way: Way, how: How) -> Variant {
    Variant { way, how }
}

/// A figure that a workload yields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// Its key in the results.
    pub(crate) key: &'static str,
    /// Its column in the table; none if it is only in the file.
    pub(crate) column: Option<&'static str>,
    /// What one unit of the column is in units of the result.
    pub(crate) unit: f64,
    /// Whether bare sockets have it, so that there is a ratio.
    pub(crate) has_limit: bool,
}

impl Metric {
    /// Whether this one must yield it, in any circumstances.
    pub(crate) fn is_promised_by(&self, variant: Variant) -> bool {
        self.has_limit || variant.way != Way::Raw
    }
}

const fn shown(key: &'static str, column: &'static str, unit: f64) -> Metric {
    Metric {
        key,
        column: Some(column),
        unit,
        has_limit: true,
    }
}

const fn kept(key: &'static str) -> Metric {
    Metric {
        key,
        column: None,
        unit: 1.0,
        has_limit: true,
    }
}

const fn without_limit(metric: Metric) -> Metric {
    Metric {
        has_limit: false,
        ..metric
    }
}

const KILO: f64 = 1e3;
const GIGA: f64 = 1e9;

const TRIPS: [Metric; 5] = [
    shown("rtt_p50_us", "p50 us", 1.0),
    shown("rtt_p90_us", "p90 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    shown("rtt_p999_us", "p99.9 us", 1.0),
    shown("rtt_max_us", "max us", 1.0),
];

const FLOW: [Metric; 7] = [
    shown("delivered_per_s", "delivered\nk/s", KILO),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    kept("written_per_s"),
    without_limit(shown("superseded_per_s", "superse-\nded k/s", KILO)),
    shown("age_p50_us", "age p50\nus", 1.0),
    shown("age_p99_us", "p99 us", 1.0),
    shown("age_max_us", "max us", 1.0),
];

const STREAM: [Metric; 4] = [
    shown("delivered_per_s", "frames\nk/s", KILO),
    shown("bytes_per_s", "GB/s", GIGA),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    without_limit(shown("gaps", "gaps", 1.0)),
];

const FAN_OUT: [Metric; 5] = [
    shown("per_peer_p50_us", "us\na peer", 1.0),
    shown("per_peer_p99_us", "p99 us\na peer", 1.0),
    shown("last_p50_us", "last has\nit, us", 1.0),
    shown("last_p99_us", "p99 us", 1.0),
    without_limit(shown("incomplete", "not\nto all", 1.0)),
];

const MANY: [Metric; 5] = [
    shown("rtt_p50_us", "p50 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    shown("rtt_max_us", "max us", 1.0),
    without_limit(shown("bytes_per_idle_link", "bytes\na link", 1.0)),
    without_limit(kept("bytes_per_member")),
];

const IDLE: [Metric; 4] = [
    without_limit(shown("bytes_per_idle_link", "bytes\na link", 1.0)),
    without_limit(shown("idle_cpu_percent", "idle\nCPU %", 1.0)),
    without_limit(shown("idle_turns_per_s", "idle\nturns/s", 1.0)),
    without_limit(kept("bytes_per_member")),
];

const SLOW_PEER: [Metric; 10] = [
    shown("rtt_p50_us", "others\np50 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    shown("rtt_max_us", "max us", 1.0),
    without_limit(kept("rtt_missing")),
    shown("age_p50_us", "age p50\nus", 1.0),
    kept("age_max_us"),
    shown("newest_age_us", "newest\nus", 1.0),
    shown("stale_bytes", "stale\nKB", KILO),
    without_limit(kept("offered_per_s")),
    kept("delivered_per_s"),
];

const MESH: [Metric; 2] = [
    shown("full_ms", "full mesh\nms", 1.0),
    shown("reform_ms", "one comes\nback, ms", 1.0),
];

const CONTENDED: [Metric; 4] = [
    shown("delivered_per_s", "delivered\nk/s", KILO),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    kept("written_per_s"),
    without_limit(shown("superseded_per_s", "superse-\nded k/s", KILO)),
];

/// What is counted in a round of its own, whatever the workload.
pub(crate) const CALLS: [Metric; 4] = [
    shown("calls_per_frame", "calls\na frame", 1.0),
    shown("drive_calls_per_frame", "of the\nsender", 1.0),
    shown("serve_calls_per_frame", "of the\nreceiver", 1.0),
    without_limit(shown("wakes_per_frame", "wakes\na frame", 1.0)),
];

impl Workload {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Latest => "latest",
            Self::Lossless => "lossless",
            Self::Stream => "stream",
            Self::FanOut => "fan-out",
            Self::Many => "many",
            Self::SlowPeer => "slow-peer",
            Self::Mesh => "mesh",
            Self::Contended => "contended",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Latency => "latency: there and back, one frame at a time",
            Self::Latest => {
                "latest: a sender that never pauses, into one slot; only the newest matters"
            }
            Self::Lossless => "lossless: one slot, and a sender that waits until it is free",
            Self::Stream => "stream: every frame counts, in order",
            Self::FanOut => "fan-out: one value to many peers",
            Self::Many => "many: a busy pair beside idle links",
            Self::SlowPeer => {
                "slow-peer: one peer does not keep up; what the others feel of it, and what it gets"
            }
            Self::Mesh => "mesh: until everybody is linked to everybody",
            Self::Contended => "contended: eight threads send at once",
        }
    }

    /// Whether a second process is needed.
    pub(crate) fn has_two_ends(self) -> bool {
        self != Self::Mesh
    }

    /// Whether frames are sent at all.
    pub(crate) fn has_sizes(self) -> bool {
        self != Self::Mesh
    }

    /// Whether the time of a single frame counts rather than their number: such are pinned to processors by default.
    pub(crate) fn is_about_latency(self) -> bool {
        matches!(self, Self::Latency | Self::Many | Self::SlowPeer)
    }

    /// What the number beside the size means; none if there is no such number.
    pub(crate) fn count_means(self) -> Option<&'static str> {
        match self {
            Self::Latency | Self::Latest | Self::Lossless => None,
            Self::Stream => Some("frames\na call"),
            Self::FanOut | Self::Contended => Some("peers"),
            Self::Many => Some("idle\nlinks"),
            Self::SlowPeer => Some("slow\nMB/s"),
            Self::Mesh => Some("managers"),
        }
    }

    /// Payload sizes, and the numbers beside them.
    pub(crate) fn cells(self, quick: bool) -> (&'static [u32], &'static [u32]) {
        const SMALL: &[u32] = &[64];
        const EVERY: &[u32] = &[64, 1 << 10, 16 << 10, 64 << 10, 512 << 10];
        match (self, quick) {
            (Self::Latency, false) => (&[64, 1 << 10], &[0]),
            (Self::Latency | Self::Latest | Self::Lossless, true) => (SMALL, &[0]),
            (Self::Latest | Self::Lossless, false) => (&[64, 1 << 10, 16 << 10], &[0]),
            (Self::Stream, false) => (EVERY, &[1, 16]),
            (Self::Stream, true) => (&[64, 64 << 10], &[16]),
            (Self::FanOut, false) => (SMALL, &[10, 100, 1000]),
            (Self::FanOut, true) => (SMALL, &[10, 100]),
            (Self::Many, false) => (SMALL, &[10, 1000, 5000]),
            (Self::Many, true) => (SMALL, &[10, 1000]),
            (Self::SlowPeer, _) => (&[1 << 10], &[0, 1]),
            (Self::Mesh, false) => (SMALL, &[3, 9, 33, 65]),
            (Self::Mesh, true) => (SMALL, &[3, 9]),
            (Self::Contended, _) => (SMALL, &[1, 8]),
        }
    }

    /// Who takes part, besides the other programs. The limits go first.
    pub(crate) fn variants(self) -> Vec<Variant> {
        let both = |way| [variant(way, How::Block), variant(way, How::Spin)];
        let write = variant(Way::Raw, How::Write);
        match self {
            Self::Latency => [Way::Raw, Way::Handler, Way::Loop, Way::Inbox]
                .map(both)
                .concat(),
            Self::Latest | Self::Lossless => {
                [vec![write], [Way::Handler, Way::Inbox].map(both).concat()].concat()
            }
            Self::Stream => vec![
                variant(Way::Raw, How::Chunks),
                write,
                variant(Way::Handler, How::Block),
                variant(Way::Inbox, How::Block),
            ],
            Self::FanOut => vec![
                write,
                variant(Way::Handler, How::Block),
                variant(Way::Loop, How::Block),
            ],
            Self::Many => [
                [Way::Raw, Way::Handler].map(both).concat(),
                vec![variant(Way::Idle, How::Block)],
            ]
            .concat(),
            Self::SlowPeer => vec![
                variant(Way::Raw, How::Spin),
                variant(Way::Loop, How::Spin),
                variant(Way::Handler, How::Block),
            ],
            Self::Mesh => vec![
                variant(Way::Raw, How::Connect),
                variant(Way::Inbox, How::Block),
            ],
            Self::Contended => vec![write, variant(Way::Handler, How::Block)],
        }
    }

    /// The bare sockets to which this one, or another program (`None`), is compared.
    pub(crate) fn limit(self, of: Option<Variant>) -> Option<Variant> {
        let how = match self {
            Self::Latency | Self::Many => match of {
                Some(Variant { way: Way::Idle, .. }) => return None,
                Some(Variant { how, .. }) => how,
                None => How::Block,
            },
            Self::Latest | Self::Lossless | Self::FanOut | Self::Contended => How::Write,
            Self::Stream => How::Chunks,
            Self::SlowPeer => How::Spin,
            Self::Mesh => How::Connect,
        };
        Some(variant(Way::Raw, how))
    }

    /// What is yielded by all who take part, the idle ones excepted.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Latency => &TRIPS,
            Self::Latest | Self::Lossless => &FLOW,
            Self::Stream => &STREAM,
            Self::FanOut => &FAN_OUT,
            Self::Many => &MANY,
            Self::SlowPeer => &SLOW_PEER,
            Self::Mesh => &MESH,
            Self::Contended => &CONTENDED,
        }
    }

    /// What this one must yield.
    pub(crate) fn metrics_of(self, of: Variant) -> &'static [Metric] {
        if of.way == Way::Idle {
            &IDLE
        } else {
            self.metrics()
        }
    }
}
