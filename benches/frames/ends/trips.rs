//! The driving end of a ping-pong, whoever carries it: warm, ready, measured.
//!
//! Nothing here sends a frame.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{Control, times::Times, workers::Workers};
use crate::failure::failure;

/// Round trips after which caches and branch predictors know the way.
const WARM_TRIPS: u64 = 2000;

/// Who is slower than that is warm as well.
const WARM_AT_MOST: Duration = Duration::from_secs(1);

/// What a distribution of round trips is told by.
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
    let wanted = control.measure(workers, || times.forget())?;
    let mut results = Map::new();
    if wanted {
        tell(times, &mut results)?;
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

/// The results.
pub(super) fn tell(times: &Times, results: &mut Map<String, Value>) -> io::Result<()> {
    let trips = times.count();
    if trips == 0 {
        return Err(failure(
            "no frame came back since the mark: the other end has stopped answering, or the time is too short",
        ));
    }
    times.tell("rtt", &QUANTILES, results);
    results.insert("round_trips".into(), json!(trips));
    results.insert("rtt_percentiles".into(), times.percentiles());
    Ok(())
}
