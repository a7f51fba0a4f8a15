//! The common part of all `drive` ends with a slow and a quick peer: the schedule, the warm-up and the measurement. Nothing here
//! sends a frame.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{
    Control,
    payload::{HEAD_BYTES, Head},
    ticker::{Tick, Ticker},
    times::Times,
    trips,
    window::Window,
    workers::Workers,
};

/// Payload bytes of frames to the quick peer and back.
pub(super) const QUICK_BYTES: usize = 64;

/// Interval of frames to the quick peer, which sends them back.
const QUICK_INTERVAL: Duration = Duration::from_micros(500);

/// Interval of frames to the slow peer: ten thousand a second, ten times what a peer takes that reads 1 MB/s of 1 KiB frames.
const SLOW_INTERVAL: Duration = Duration::from_micros(100);

/// Time for frames in flight to arrive at the end.
const SETTLE: Duration = Duration::from_secs(3);

const _: () = assert!(QUICK_BYTES >= HEAD_BYTES, "a payload has a head");

/// The schedules of both peers.
pub(super) struct Schedule {
    quick: Ticker,
    slow: Ticker,
}

impl Schedule {
    pub(super) fn new() -> Self {
        Self {
            quick: Ticker::new(QUICK_INTERVAL),
            slow: Ticker::new(SLOW_INTERVAL),
        }
    }

    /// The head of the next frame to the quick peer, if it is due: the intended time since the start, and the number 0.
    pub(super) fn quick(&mut self) -> Option<Head> {
        let stamp = |tick: Tick| tick.since.as_nanos() as u64;
        self.quick.due().map(|tick| Head {
            stamp: stamp(tick),
            number: 0,
        })
    }

    /// The head of the next frame to the slow peer, if it is due.
    pub(super) fn slow(&mut self) -> Option<Head> {
        self.slow.due().map(|tick| Head {
            stamp: tick.wall,
            number: tick.number,
        })
    }

    /// The start of the quick peer's schedule.
    pub(super) fn start(&self) -> Instant {
        self.quick.start()
    }
}

/// Counters of the sender for the quick peer.
#[derive(Default)]
pub(super) struct QuickCounts {
    pub(super) times: Times,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    /// True exactly when no further frame may be offered to either peer.
    pub(super) over: AtomicBool,
}

impl QuickCounts {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn on_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame has come back.
    pub(super) fn on_answer(&self, start: Instant, head: Head) {
        let time = start
            .elapsed()
            .saturating_sub(Duration::from_nanos(head.stamp));
        self.times.record(time);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn missing(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.answered.load(Ordering::Relaxed))
    }
}

/// Measures. `counts` returns the frames to the slow peer that were offered, written and superseded; `is_empty` whether none of
/// them waits.
pub(super) fn measure(
    control: &Control,
    workers: &mut Workers,
    quick: &Arc<QuickCounts>,
    at: SocketAddr,
    counts: impl Fn() -> [u64; 3],
    is_empty: impl Fn() -> bool,
) -> io::Result<Map<String, Value>> {
    let warm = Instant::now();
    control.wait("first answer", workers, || quick.times.count() > 0)?;
    control.wait("warm traffic", workers, || {
        warm.elapsed() > Duration::from_millis(200)
    })?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
    let mut window = Window::open(counts());
    let wanted = control.measure(workers, || {
        quick.times.reset();
        window = Window::open(counts());
    })?;
    let mut results = Map::new();
    if wanted {
        let growth = window.close(counts());
        trips::report(&quick.times, &mut results)?;
        for (at, key) in ["offered_per_s", "written_per_s", "superseded_per_s"]
            .into_iter()
            .enumerate()
        {
            results.insert(key.into(), json!(growth.per_second(at)));
        }
        // Waits until the newest frame is written, and every frame of the quick peer is back.
        quick.over.store(true, Ordering::Relaxed);
        let end = Instant::now();
        control.wait("end of the frames in flight", workers, || {
            (is_empty() && quick.missing() == 0) || end.elapsed() > SETTLE
        })?;
        results.insert("rtt_missing".into(), json!(quick.missing()));
    }
    Ok(results)
}
