//! The common part of all `drive` ends of a fan-out: the schedule, the warm-up and the measurement. Nothing here sends a frame.

use std::{io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use serde_json::{Map, Value};

use super::{Control, Task, ticker::Ticker, times::Times, workers::Workers};
use crate::failure::failure;

/// Values that are sent before the measurement begins.
const WARM: u64 = 10;

/// Time per peer between two values: several times that of a write, so that values do not queue up.
const PER_PEER: Duration = Duration::from_micros(30);

/// The shortest time between two values: long enough for all receivers to block again.
const SHORTEST: Duration = Duration::from_millis(2);

/// The schedule of the values.
pub(super) fn pace(task: &Task) -> Ticker {
    Ticker::new((PER_PEER * task.peers).max(SHORTEST))
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
    let wanted = control.measure(workers, || times.reset())?;
    let mut results = Map::new();
    if wanted {
        times.report("per_peer", &[("p50", 0.5), ("p99", 0.99)], &mut results);
        if results.is_empty() {
            return Err(failure(
                "no value was sent since `mark`: the time is too short",
            ));
        }
    }
    Ok(results)
}
