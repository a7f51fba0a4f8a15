//! The common part of all `drive` ends of a ping-pong: the warm-up and the measurement. Nothing here sends a frame.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{Control, times::Times, workers::Workers};
use crate::failure::failure;

/// Round trips that warm caches and branch predictors.
const WARM_TRIPS: u64 = 2000;

/// The longest warm-up, for slower participants.
const WARM_AT_MOST: Duration = Duration::from_secs(1);

/// The reported quantiles of round trips.
pub(super) const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("max", 1.0),
];

/// Measures the round trips that `workers` make.
pub(super) fn measure(
    control: &Control,
    workers: &mut Workers,
    times: &Times,
    at: SocketAddr,
) -> io::Result<Map<String, Value>> {
    warm(control, workers, times)?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
    let wanted = control.measure(workers, || times.reset())?;
    let mut results = Map::new();
    if wanted {
        report(times, &mut results)?;
    }
    Ok(results)
}

/// Waits until enough round trips were made.
pub(super) fn warm(control: &Control, workers: &mut Workers, times: &Times) -> io::Result<()> {
    let start = Instant::now();
    control.wait("warm round trips", workers, || {
        let trips = times.count();
        trips >= WARM_TRIPS || (trips > 0 && start.elapsed() > WARM_AT_MOST)
    })
}

/// Inserts the results.
pub(super) fn report(times: &Times, results: &mut Map<String, Value>) -> io::Result<()> {
    let trips = times.count();
    if trips == 0 {
        return Err(failure(
            "no frame came back since `mark`: the other end has stopped answering, or the time is too short",
        ));
    }
    times.report("rtt", &QUANTILES, results);
    results.insert("round_trips".into(), json!(trips));
    results.insert("rtt_percentiles".into(), times.percentiles());
    Ok(())
}
