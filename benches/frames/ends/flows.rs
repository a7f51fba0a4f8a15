//! The common part of all ends of one-way traffic: the warm-up and the measurement. Nothing here sends or receives a frame.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{Control, Task, received::Received, window::Window, workers::Workers};
use crate::failure::failure;

/// Traffic runs for this time before the measurement begins.
const WARM: Duration = Duration::from_millis(100);

/// Traffic runs for at least so many round trips of a delayed path: until then the kernel's windows have grown.
const WARM_ROUND_TRIPS: u32 = 50;

/// Threads that send at the same time (`contended`).
pub(super) const SENDERS: usize = 8;

/// Measures at the end that receives.
pub(super) fn measure_received(
    task: &Task,
    control: &Control,
    workers: &mut Workers,
    received: &Received,
) -> io::Result<Map<String, Value>> {
    let mut window = Window::open(received.counts());
    let wanted = control.measure(workers, || {
        received.reset_ages();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        let with_ages = !task.workload.is_stream();
        received.report(&window, with_ages, &mut results);
        if results["delivered"] == 0 {
            return Err(failure(
                "no frame arrived since `mark`: the sender has stopped, or the time is too short",
            ));
        }
    }
    Ok(results)
}

/// Waits until the traffic, which runs already, is warm, and reports that.
pub(super) fn warm(
    task: &Task,
    control: &Control,
    workers: &mut Workers,
    at: SocketAddr,
) -> io::Result<()> {
    let start = Instant::now();
    let round_trip = 2 * Duration::from_millis(task.delay_ms.into());
    let time = WARM.max(WARM_ROUND_TRIPS * round_trip);
    control.wait("warm traffic", workers, || start.elapsed() >= time)?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
    Ok(())
}

/// Measures at the end that sends. `counts` returns the frames that were offered, written and superseded.
pub(super) fn measure_sent(
    task: &Task,
    control: &Control,
    workers: &mut Workers,
    at: SocketAddr,
    counts: impl Fn() -> [u64; 3],
) -> io::Result<Map<String, Value>> {
    control.wait("frame that could be sent", workers, || counts()[1] > 0)?;
    warm(task, control, workers, at)?;
    let mut window = Window::open(counts());
    let wanted = control.measure(workers, || window = Window::open(counts()))?;
    let mut results = Map::new();
    if wanted {
        let growth = window.close(counts());
        for (at, key) in ["offered_per_s", "written_per_s", "superseded_per_s"]
            .into_iter()
            .enumerate()
        {
            results.insert(key.into(), json!(growth.per_second(at)));
        }
    }
    Ok(results)
}
