//! The driving end of a fan-out, whoever carries it: how often, warm, ready, measured.
//!
//! Nothing here sends a frame.

use std::{io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use serde_json::{Map, Value};

use super::{Control, Task, pace::Pace, times::Times, workers::Workers};
use crate::failure::failure;

/// Values that are sent before it counts.
const WARM: u64 = 10;

/// Time for each peer between two values: several times what a write takes, so that values do not pile up.
const PER_PEER: Duration = Duration::from_micros(30);

/// The shortest time between two values: everybody has gone to sleep meanwhile.
const SHORTEST: Duration = Duration::from_millis(2);

/// When the values are due.
pub(super) fn pace(task: &Task) -> Pace {
    Pace::new((PER_PEER * task.peers).max(SHORTEST))
}

pub(super) fn measure(
    control: &Control,
    workers: &mut Workers,
    times: &Times,
    at: SocketAddr,
) -> io::Result<Map<String, Value>> {
    control.wait("warm values", workers, || times.count() >= WARM)?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
    let wanted = control.measure(workers, || times.forget())?;
    let mut results = Map::new();
    if wanted {
        times.tell("per_peer", &[("p50", 0.5), ("p99", 0.99)], &mut results);
        if results.is_empty() {
            return Err(failure(
                "no value was sent since the mark: the time is too short",
            ));
        }
    }
    Ok(results)
}
