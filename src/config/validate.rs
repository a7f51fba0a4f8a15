//! Checks whether the options of a configuration can work: the range of each, and what they have to do with each other.
//!
//! Nothing here opens a socket or resolves a name.

use std::time::Duration;

use super::{
    options::Options,
    policy::{Idle, Outbox, Unknown},
};
use crate::{error::ConfigError, limits, proto::InitialMessageVersion};

/// Checks the range of each option, and options that contradict each other.
pub(super) fn check_options(options: &Options) -> Result<(), ConfigError> {
    let times = [
        ("connect_timeout", options.connect_timeout),
        ("handshake_timeout", options.handshake_timeout),
        ("listen_pause", options.listen_pause),
        ("backoff", options.backoff_min),
        ("backoff", options.backoff_max),
        ("peer_dead_after", options.peer_dead_after),
    ];
    let ping_every = options.ping_every.map(|every| ("ping_every", every));
    for (option, value) in times.into_iter().chain(ping_every) {
        if value < Duration::from_millis(1) || value > DAY {
            return bad(option, format!("{value:?} is outside 1 ms to 24 h"));
        }
    }
    for (option, value, min, max) in sizes(options) {
        if value < min || value > max {
            return bad(option, format!("{value} is outside {min} to {max}"));
        }
    }
    if options.backoff_min > options.backoff_max {
        let (first, last) = (options.backoff_min, options.backoff_max);
        let why = format!("starts at {first:?}, above its end {last:?}");
        return bad("backoff", why);
    }
    if options.peer_dead_after < limits::PEER_DEAD_AFTER_MIN {
        let (after, min) = (options.peer_dead_after, limits::PEER_DEAD_AFTER_MIN);
        return bad("peer_dead_after", format!("{after:?} is less than {min:?}"));
    }
    if options.native_only && options.initial_message != InitialMessageVersion::Native {
        let why = "other servers with this setting would refuse this server: it sends no native initial message";
        return bad("native_only", why.to_owned());
    }
    if options.unsent_limit == Some(0) {
        let why = "0 bytes would never let a frame leave, use None for no limit";
        return bad("unsent_limit", why.to_owned());
    }
    if let Some(name) = &options.congestion_control {
        let is_name = (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !is_name {
            let why = format!("{name:?} is not a name of 1 to 15 bytes of ASCII");
            return bad("congestion_control", why);
        }
    }
    match options.idle {
        Idle::Spin { for_at_most } if for_at_most > SPIN_MAX => bad(
            "idle",
            format!("spinning for {for_at_most:?} is above {SPIN_MAX:?}"),
        ),
        Idle::Spin { .. } | Idle::Block => Ok(()),
    }
}

/// The sizes among the options, each with its smallest and its largest value.
fn sizes(options: &Options) -> impl Iterator<Item = (&'static str, usize, usize, usize)> {
    let queue = match options.outbox {
        Outbox::Queue { bytes } | Outbox::Lanes { bytes } => Some(bytes),
        Outbox::Latest => None,
    };
    let admitted = match options.unknown {
        Unknown::Admit { max } => Some(max),
        Unknown::Reject => None,
    };
    // One frame of the greatest length must fit.
    let queue_min = limits::PREFIX_BYTES + limits::FRAME_BYTES_MAX;
    let inbox_min = limits::FRAME_BYTES_MAX;
    [
        ("inbox_frames", Some(options.inbox_frames), 1, 1 << 20),
        (
            "inbox_bytes",
            Some(options.inbox_bytes),
            inbox_min,
            usize::MAX,
        ),
        ("pending_max", Some(options.pending_max), 1, 1 << 16),
        ("observers_max", Some(options.observers_max), 0, 1 << 16),
        ("unknown", admitted, 1, 1 << 16),
        ("receive_buffer", options.receive_buffer, 1, 1 << 30),
        ("outbox", queue, queue_min, 1 << 30),
    ]
    .into_iter()
    .filter_map(|(option, value, min, max)| Some((option, value?, min, max)))
}

/// The longest timeout. A longer one is most likely a mistake in the unit.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time to spin.
const SPIN_MAX: Duration = Duration::from_secs(60);

fn bad(option: &'static str, why: String) -> Result<(), ConfigError> {
    Err(ConfigError::BadOption { option, why })
}
