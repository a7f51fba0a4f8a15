//! The metrics of each workload: keys of the results, columns of the tables.

use crate::variants::{Api, Variant};

/// A figure that a workload yields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// The key in the results.
    pub(crate) key: &'static str,
    /// The column of the table; `None` if it is only in the file.
    pub(crate) column: Option<&'static str>,
    /// One unit of the column in units of the result.
    pub(crate) unit: f64,
    /// Whether bare sockets yield it, so that there is a ratio.
    pub(crate) has_limit: bool,
}

impl Metric {
    /// Whether this variant must always yield it.
    pub(crate) fn is_promised_by(&self, variant: Variant) -> bool {
        self.has_limit || variant.api != Api::Raw
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
const KIBI: f64 = 1024.0;
const GIGA: f64 = 1e9;

pub(crate) const TRIPS: [Metric; 5] = [
    shown("rtt_p50_us", "p50 us", 1.0),
    shown("rtt_p90_us", "p90 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    shown("rtt_p999_us", "p99.9 us", 1.0),
    shown("rtt_max_us", "max us", 1.0),
];

pub(crate) const FLOW: [Metric; 7] = [
    shown("delivered_per_s", "frames\nk/s", KILO),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    kept("written_per_s"),
    without_limit(shown("superseded_per_s", "superse-\nded k/s", KILO)),
    shown("age_p50_us", "age p50\nus", 1.0),
    shown("age_p99_us", "p99 us", 1.0),
    kept("age_max_us"),
];

pub(crate) const STREAM: [Metric; 4] = [
    shown("delivered_per_s", "frames\nk/s", KILO),
    shown("bytes_per_s", "GB/s", GIGA),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    without_limit(shown("gaps", "gaps", 1.0)),
];

pub(crate) const FAN_OUT: [Metric; 5] = [
    shown("per_peer_p50_us", "us\na peer", 1.0),
    shown("per_peer_p99_us", "p99 us\na peer", 1.0),
    shown("last_p50_us", "last has\nit, us", 1.0),
    shown("last_p99_us", "p99 us", 1.0),
    without_limit(shown("incomplete", "not\nto all", 1.0)),
];

pub(crate) const MANY: [Metric; 5] = [
    shown("rtt_p50_us", "p50 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    shown("rtt_max_us", "max us", 1.0),
    without_limit(shown("bytes_per_idle_link", "bytes\na link", 1.0)),
    without_limit(kept("bytes_per_member")),
];

pub(crate) const IDLE: [Metric; 4] = [
    without_limit(shown("bytes_per_idle_link", "bytes\na link", 1.0)),
    without_limit(shown("idle_cpu_percent", "idle\nCPU %", 1.0)),
    without_limit(shown("idle_turns_per_s", "idle\nturns/s", 1.0)),
    without_limit(kept("bytes_per_member")),
];

pub(crate) const SLOW_PEER: [Metric; 10] = [
    shown("rtt_p50_us", "others\np50 us", 1.0),
    shown("rtt_p99_us", "p99 us", 1.0),
    kept("rtt_max_us"),
    without_limit(kept("rtt_missing")),
    shown("age_p50_us", "age p50\nus", 1.0),
    kept("age_max_us"),
    shown("newest_age_us", "newest\nus", 1.0),
    shown("stale_bytes", "stale\nKB", KILO),
    without_limit(kept("offered_per_s")),
    kept("delivered_per_s"),
];

pub(crate) const MESH: [Metric; 2] = [
    shown("full_ms", "full mesh\nms", 1.0),
    shown("reform_ms", "one comes\nback, ms", 1.0),
];

pub(crate) const CONTENDED: [Metric; 4] = [
    shown("delivered_per_s", "frames\nk/s", KILO),
    without_limit(shown("offered_per_s", "offered\nk/s", KILO)),
    kept("written_per_s"),
    without_limit(shown("superseded_per_s", "superse-\nded k/s", KILO)),
];

pub(crate) const MIX: [Metric; 2] = [
    shown("acknowledged_per_s", "entries\nk/s", KILO),
    without_limit(shown("gaps", "gaps", 1.0)),
];

pub(crate) const BEATS: [Metric; 5] = [
    without_limit(shown("age_p50_us", "age p50\nus", 1.0)),
    without_limit(shown("age_p99_us", "p99 us", 1.0)),
    without_limit(shown("age_max_us", "max us", 1.0)),
    without_limit(shown("stream_per_s", "stream\nk/s", KILO)),
    without_limit(kept("stream_bytes_per_s")),
];

/// What is seen of a stream from outside.
pub(crate) const WATCHED: [Metric; 8] = [
    shown("in_flight_p50", "in flight\nKiB", KIBI),
    shown("in_flight_max", "max\nKiB", KIBI),
    shown("serve_sleeps_per_s", "receiver\nsleeps/s", 1.0),
    shown("serve_cpu_percent", "CPU %", 1.0),
    shown("drive_sleeps_per_s", "sender\nsleeps/s", 1.0),
    shown("drive_cpu_percent", "CPU %", 1.0),
    shown("faults_per_mib", "faults\na MiB", 1.0),
    shown("cache_line_ns", "line\nns", 1.0),
];

/// What is seen of the path of a delayed stream.
pub(crate) const PATH: [Metric; 6] = [
    shown("path_late_p50_us", "late by\nus", 1.0),
    shown("path_late_p99_us", "p99 us", 1.0),
    shown("path_cpu_percent", "path\nCPU %", 1.0),
    shown("serve_cpu_percent", "receiver\nCPU %", 1.0),
    shown("drive_cpu_percent", "sender\nCPU %", 1.0),
    shown("in_flight_p50", "in flight\nKiB", KIBI),
];

/// Counted in a round of its own, for any workload.
pub(crate) const CALLS: [Metric; 4] = [
    shown("calls_per_frame", "calls\na frame", 1.0),
    shown("drive_calls_per_frame", "of the\nsender", 1.0),
    shown("serve_calls_per_frame", "of the\nreceiver", 1.0),
    without_limit(shown("wakes_per_frame", "wakes\na frame", 1.0)),
];
