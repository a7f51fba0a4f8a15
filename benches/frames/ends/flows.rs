//! Both ends of traffic that goes one way, whoever carries it: warm, ready, measured.
//!
//! Nothing here sends or receives a frame.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{Control, Task, received::Received, window::Window, workers::Workers};
use crate::{failure::failure, workloads::Workload};

/// Traffic runs for this long before it counts.
const WARM: Duration = Duration::from_millis(100);

/// Threads that send at once, where several do.
pub(super) const SENDERS: usize = 8;

/// Measures what a receiving end gets.
pub(super) fn measure_received(
    task: &Task,
    control: &Control,
    workers: &mut Workers,
    received: &Received,
) -> io::Result<Map<String, Value>> {
    let mut window = Window::open(received.counts());
    let wanted = control.measure(workers, || {
        received.forget_ages();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        let with_ages = task.workload != Workload::Stream;
        received.tell(&window, with_ages, &mut results);
        if results["delivered"] == 0 {
            return Err(failure(
                "no frame came since the mark: the sender has stopped, or the time is too short",
            ));
        }
    }
    Ok(results)
}

/// Measures what a sending end offers; `counts` says how many frames it has offered, written and replaced by newer ones.
pub(super) fn measure_sent(
    control: &Control,
    workers: &mut Workers,
    at: SocketAddr,
    counts: impl Fn() -> [u64; 3],
) -> io::Result<Map<String, Value>> {
    control.wait("frame that could be sent", workers, || counts()[1] > 0)?;
    let start = Instant::now();
    control.wait("warm traffic", workers, || start.elapsed() >= WARM)?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
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
