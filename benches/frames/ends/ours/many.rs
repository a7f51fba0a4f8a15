//! One busy link beside many idle ones: latency, memory per idle link, and processor time of an idle loop.
//!
//! The other ends of the idle links are bare sockets, which send an initial message and nothing else.

use std::{
    fs, io,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{Config, EventLoop, Sid};
use serde_json::{Map, Value, json};

use super::{
    latency,
    setup::{DRIVER, HaltOnDrop, Ignore, serving},
};
use crate::{
    ends::{
        Control, Task,
        raw::{BUSY, idle_links},
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
    variants::Api,
};

/// Time for which the links stay open after the measurement.
const SETTLE: Duration = Duration::from_millis(200);

/// How often it is checked whether all idle links are up.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// With fewer links the memory per link cannot be measured: the allocator takes memory from the system in larger steps.
const MEASURABLE_MIN: u32 = 100;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let before = resident();
    let idle: Vec<Sid> = (BUSY as i64 + 1..)
        .take(task.peers as usize)
        .map(Sid)
        .collect();
    let (config, at) = serving(task, idle.iter().copied().chain([DRIVER]))?;
    let mut workers = Workers::default();
    let halt = start(task, config, control, &mut workers)?;
    let configured = resident();
    let linked = Arc::new(OnceLock::new());
    let (when_linked, handle) = (Arc::clone(&linked), halt.0.clone());
    workers.spawn("idle links", move || {
        // The last one is checked first. A list of all linked peers would take memory.
        while !idle
            .iter()
            .rev()
            .all(|peer| handle.connected_to_peer(*peer))
        {
            if handle.is_halted() {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
        let _ = when_linked.set(resident());
        Ok(())
    })?;
    control.ready(at);
    let handle = &halt.0;
    let counts = || [busy_nanos(), handle.stats().turns];
    let mut window = Window::open(counts());
    let wanted = control.measure(&mut workers, || window = Window::open(counts()))?;
    let growth = window.close(counts());
    let mut results = Map::new();
    if wanted {
        let Some(linked) = linked.get() else {
            let up = handle.linked_peers().len();
            return Err(failure(format_args!(
                "only {up} of {} links came up",
                task.peers
            )));
        };
        let each = |from: u64, to: u64| {
            let is_measurable = task.peers >= MEASURABLE_MIN;
            json!(if is_measurable {
                to.saturating_sub(from) / u64::from(task.peers)
            } else {
                0
            })
        };
        results.insert("bytes_per_member".into(), each(before, configured));
        results.insert("bytes_per_idle_link".into(), each(configured, *linked));
        if task.variant.api == Api::Idle {
            results.insert("idle_cpu_percent".into(), json!(growth.per_second(0) / 1e7));
            results.insert("idle_turns_per_s".into(), json!(growth.per_second(1)));
        }
    }
    Ok(results)
}

fn start(
    task: &Task,
    config: Config,
    control: &Control,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    if task.variant.api != Api::Idle {
        return latency::start_echo(task, config, control, workers);
    }
    let mut event_loop = EventLoop::new(config, Ignore).context("starting the loop")?;
    let handle = event_loop.handle().clone();
    control
        .connected()
        .store(true, std::sync::atomic::Ordering::Release);
    workers.spawn("loop", move || event_loop.run())?;
    Ok(HaltOnDrop(handle))
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let links = idle_links(task)?;
    if task.variant.api != Api::Idle {
        return latency::drive(task, control);
    }
    control.ready(links[0].local_addr()?);
    let begun = Instant::now();
    control.measure(&mut Workers::default(), || {})?;
    // Closing the links would disturb the other end, which measures a little longer than this one.
    thread::sleep(SETTLE);
    let mut results = Map::new();
    results.insert("silent_s".into(), json!(begun.elapsed().as_secs_f64()));
    Ok(results)
}

/// Resident memory of this process in bytes; 0 if the system does not report it.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
        << 10
}

/// Processor time of the threads of loops in nanoseconds; 0 if the system does not report it.
fn busy_nanos() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let mut nanos = 0;
    for thread in threads.flatten() {
        let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if read("comm").trim() == "loop" {
            let ran = read("schedstat");
            nanos += ran
                .split(' ')
                .next()
                .and_then(|ran| ran.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    nanos
}
