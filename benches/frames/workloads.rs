//! The workloads: their sizes, participants, metrics and limits.

use std::ops::RangeInclusive;

use clap::ValueEnum;

use crate::{
    metrics::{
        BEATS, CONTENDED, FAN_OUT, FLOW, IDLE, MANY, MESH, MIX, Metric, SLOW_PEER, STREAM, TRIPS,
    },
    variants::{Api, Mode, Variant, variant},
};

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Workload {
    /// Ping-pong: one frame at a time
    Latency,
    /// A sender that never pauses, with a one-slot outbox: rate and age of the frames that arrive
    Latest,
    /// A one-slot outbox, and a sender that waits until the slot is free
    Lossless,
    /// A queue: every frame arrives, in order
    Stream,
    /// One value to many peers
    FanOut,
    /// One busy pair beside many idle links
    Many,
    /// One slow peer, and its effect on another peer
    SlowPeer,
    /// Time until all servers are linked to each other
    Mesh,
    /// Eight threads that send at the same time
    Contended,
    /// A leader that sends entries to two followers, each of which acknowledges them
    Mix,
    /// The same as `stream`, over a path with a delay
    Delayed,
    /// Heartbeats beside a stream: the age of those that arrive
    Beats,
}

impl Workload {
    /// The name on the command line.
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
            Self::Mix => "mix",
            Self::Delayed => "delayed",
            Self::Beats => "beats",
        }
    }

    /// The title of its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Latency => "latency: round trips, one frame at a time",
            Self::Latest => {
                "latest: a sender that never pauses, into one slot; the newest frame wins"
            }
            Self::Lossless => "lossless: one slot, and a sender that waits until it is free",
            Self::Stream => "stream: every frame arrives, in order",
            Self::FanOut => "fan-out: one value to many peers",
            Self::Many => "many: a busy pair beside idle links",
            Self::SlowPeer => {
                "slow-peer: one peer does not keep up; its effect on another peer, and the frames that it gets"
            }
            Self::Mesh => "mesh: time until all servers are linked to each other",
            Self::Contended => {
                "contended: eight threads send at the same time; `queue` is compared to `queue-alone`, one thread"
            }
            Self::Mix => {
                "mix: a leader sends entries to two followers; those that both have acknowledged"
            }
            Self::Delayed => "delayed: a stream over a path with a delay, one frame a call",
            Self::Beats => "beats: a heartbeat of 64 B each millisecond, beside a stream and alone",
        }
    }

    /// Whether a second process is needed.
    pub(crate) fn has_two_ends(self) -> bool {
        self != Self::Mesh
    }

    /// Whether all frames of one connection arrive, in order and as fast as possible.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::Delayed)
    }

    /// Whether frames are sent at all.
    pub(crate) fn has_sizes(self) -> bool {
        self != Self::Mesh
    }

    /// Whether the latency of single frames is measured rather than a rate. Such ends are pinned to processors by default.
    pub(crate) fn is_about_latency(self) -> bool {
        matches!(self, Self::Latency | Self::Many | Self::SlowPeer)
    }

    /// The meaning of the count of a cell; `None` if there is no count.
    pub(crate) fn count_means(self) -> Option<&'static str> {
        match self {
            Self::Latency | Self::Latest | Self::Lossless => None,
            Self::Stream => Some("frames\na call"),
            Self::FanOut | Self::Contended => Some("peers"),
            Self::Many => Some("idle\nlinks"),
            Self::SlowPeer => Some("slow\nMB/s"),
            Self::Mesh => Some("managers"),
            Self::Mix => Some("entries\nin flight"),
            Self::Delayed => Some("ms\neach way"),
            Self::Beats => Some("streams"),
        }
    }

    /// The range of the count; `None` if there is no count.
    pub(crate) fn count_range(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Latency | Self::Latest | Self::Lossless => None,
            Self::Stream => Some(1..=1024),
            Self::FanOut | Self::Contended | Self::Many => Some(1..=16_000),
            Self::SlowPeer => Some(0..=1000),
            // All are in one process, which then has n * (n - 1) sockets.
            Self::Mesh => Some(2..=1000),
            Self::Mix => Some(1..=16_000),
            Self::Delayed => Some(1..=1000),
            Self::Beats => Some(0..=1),
        }
    }

    /// The default payload sizes and counts.
    pub(crate) fn cells(self, quick: bool) -> (&'static [u32], &'static [u32]) {
        const SMALL: &[u32] = &[64];
        const ENTRY: &[u32] = &[200];
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
            (Self::Mix, false) => (ENTRY, &[100, 1000, 10_000]),
            (Self::Mix, true) => (ENTRY, &[1000]),
            (Self::Delayed, false) => (&[1 << 10, 64 << 10], &[1, 20]),
            (Self::Delayed, true) => (&[64 << 10], &[1]),
            (Self::Beats, false) => (&[1 << 10, 16 << 10], &[0, 1]),
            (Self::Beats, true) => (&[1 << 10], &[0, 1]),
        }
    }

    /// The participants, without the other programs. The limits come first.
    pub(crate) fn variants(self) -> Vec<Variant> {
        let mut variants = self.plain_variants();
        if cfg!(feature = "tls") {
            let apis: &[Api] = match self {
                Self::Latency => &[Api::Handler],
                Self::Stream => &[Api::Handler, Api::Loop, Api::Feed],
                Self::Many => &[Api::Idle],
                _ => &[],
            };
            let is_with_tls = |one: &Variant| {
                let spins = one.mode == Mode::Spin && self == Self::Latency;
                apis.contains(&one.api) && (spins || one.mode == Mode::Block)
            };
            let with_tls = |one: Variant| Variant {
                has_tls: true,
                ..one
            };
            let those = variants.clone().into_iter().filter(is_with_tls);
            variants.extend(those.map(with_tls));
        }
        variants
    }

    fn plain_variants(self) -> Vec<Variant> {
        let both = |api| [variant(api, Mode::Block), variant(api, Mode::Spin)];
        let write = variant(Api::Raw, Mode::Write);
        match self {
            Self::Latency => [
                both(Api::Raw).to_vec(),
                vec![variant(Api::Raw, Mode::Watch)],
                [Api::Handler, Api::Loop, Api::Inbox].map(both).concat(),
                vec![variant(Api::Inbox, Mode::Queue)],
            ]
            .concat(),
            Self::Latest | Self::Lossless => {
                [vec![write], [Api::Handler, Api::Inbox].map(both).concat()].concat()
            }
            Self::Stream => [
                vec![variant(Api::Raw, Mode::Chunks), write],
                [Api::Handler, Api::Loop, Api::Feed, Api::Inbox]
                    .map(both)
                    .concat(),
                vec![variant(Api::FeedWith, Mode::Block)],
            ]
            .concat(),
            Self::FanOut => vec![
                write,
                variant(Api::Handler, Mode::Block),
                variant(Api::Loop, Mode::Block),
            ],
            Self::Many => [
                [Api::Raw, Api::Handler].map(both).concat(),
                vec![variant(Api::Idle, Mode::Block)],
            ]
            .concat(),
            Self::SlowPeer => vec![
                variant(Api::Raw, Mode::Spin),
                variant(Api::Loop, Mode::Spin),
                variant(Api::Handler, Mode::Block),
            ],
            Self::Mesh => vec![
                variant(Api::Raw, Mode::Connect),
                variant(Api::Inbox, Mode::Block),
            ],
            Self::Contended => [
                vec![write],
                [Mode::Block, Mode::Queue, Mode::QueueAlone]
                    .map(|mode| variant(Api::Handler, mode))
                    .to_vec(),
            ]
            .concat(),
            Self::Delayed => [Api::Raw, Api::Handler, Api::Loop, Api::Inbox]
                .map(|api| variant(api, Mode::Block))
                .to_vec(),
            Self::Beats => [Mode::Block, Mode::Queue]
                .map(|mode| variant(Api::Handler, mode))
                .to_vec(),
            Self::Mix => [Api::Handler, Api::Loop, Api::Inbox]
                .map(|api| variant(api, Mode::Block))
                .to_vec(),
        }
    }

    /// The variant to which this variant, or another program (`None`), is compared: bare sockets, if there are any.
    pub(crate) fn limit(self, of: Option<Variant>) -> Option<Variant> {
        let mode = match self {
            Self::Latency | Self::Many => match of {
                Some(Variant { api: Api::Idle, .. }) => return None,
                Some(Variant {
                    mode: Mode::Watch, ..
                }) => Mode::Spin,
                Some(Variant {
                    mode: Mode::Queue, ..
                }) => Mode::Block,
                Some(Variant { mode, .. }) => mode,
                None => Mode::Block,
            },
            Self::Contended => match of.map(|variant| variant.mode) {
                Some(Mode::Queue) => return Some(variant(Api::Handler, Mode::QueueAlone)),
                Some(Mode::QueueAlone) => return None,
                _ => Mode::Write,
            },
            Self::Latest | Self::Lossless | Self::FanOut => Mode::Write,
            Self::Stream => Mode::Chunks,
            Self::SlowPeer => Mode::Spin,
            Self::Mesh => Mode::Connect,
            Self::Mix | Self::Beats => return None,
            Self::Delayed => Mode::Block,
        };
        Some(variant(Api::Raw, mode))
    }

    /// The metrics of all participants, idle ones excepted.
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
            Self::Mix => &MIX,
            Self::Delayed => &STREAM,
            Self::Beats => &BEATS,
        }
    }

    /// The metrics of this variant.
    pub(crate) fn metrics_of(self, of: Variant) -> &'static [Metric] {
        if of.api == Api::Idle {
            &IDLE
        } else {
            self.metrics()
        }
    }
}
