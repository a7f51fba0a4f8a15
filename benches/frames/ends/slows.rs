//! The driving end beside a slow peer, whoever carries it: what is due to whom, warm, ready, measured.
//!
//! Nothing here sends a frame.

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
    pace::{Beat, Pace},
    payload::{HEAD_BYTES, Head},
    times::Times,
    trips,
    window::Window,
    workers::Workers,
};

/// Payload bytes of what goes to the others and comes back.
pub(super) const QUICK_BYTES: usize = 64;

/// Who is asked to send it back.
const QUICK: Duration = Duration::from_micros(500);

/// Ten thousand frames a second, ten times what a peer takes that reads 1 MB/s of 1 KiB frames.
const SLOW: Duration = Duration::from_micros(100);

/// How long what is underway may take at the end.
const SETTLE: Duration = Duration::from_secs(3);

const _: () = assert!(QUICK_BYTES >= HEAD_BYTES, "a payload has a head");

/// When what is due.
pub(super) struct Due {
    quick: Pace,
    slow: Pace,
}

impl Due {
    pub(super) fn new() -> Self {
        Self {
            quick: Pace::new(QUICK),
            slow: Pace::new(SLOW),
        }
    }

    /// What is due to the other peer: its head says when, and as the number 0.
    pub(super) fn quick(&mut self) -> Option<Head> {
        let stamp = |beat: Beat| beat.since.as_nanos() as u64;
        self.quick.due().map(|beat| Head {
            stamp: stamp(beat),
            number: 0,
        })
    }

    /// What is due to the slow one.
    pub(super) fn slow(&mut self) -> Option<Head> {
        self.slow.due().map(|beat| Head {
            stamp: beat.wall,
            number: beat.number,
        })
    }

    /// From when the quick ones count.
    pub(super) fn start(&self) -> Instant {
        self.quick.start()
    }
}

/// What the sender counts.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) times: Times,
    pub(super) asked: AtomicU64,
    pub(super) came: AtomicU64,
    /// True exactly when nothing more is to be offered; what is underway goes on.
    pub(super) over: AtomicBool,
}

impl Beside {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn on_asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// What was due then has come back.
    pub(super) fn on_answer(&self, start: Instant, head: Head) {
        let time = start
            .elapsed()
            .saturating_sub(Duration::from_nanos(head.stamp));
        self.times.record(time);
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    fn missing(&self) -> u64 {
        let asked = self.asked.load(Ordering::Relaxed);
        asked.saturating_sub(self.came.load(Ordering::Relaxed))
    }
}

/// Measures; `counts` says how many frames were offered to the slow peer, written and superseded, and `is_empty` whether
/// none of them waits.
pub(super) fn measure(
    control: &Control,
    workers: &mut Workers,
    beside: &Arc<Beside>,
    at: SocketAddr,
    counts: impl Fn() -> [u64; 3],
    is_empty: impl Fn() -> bool,
) -> io::Result<Map<String, Value>> {
    let warm = Instant::now();
    control.wait("first answer", workers, || beside.times.count() > 0)?;
    control.wait("warm traffic", workers, || {
        warm.elapsed() > Duration::from_millis(200)
    })?;
    control.connected().store(true, Ordering::Release);
    control.ready(at);
    let mut window = Window::open(counts());
    let wanted = control.measure(workers, || {
        beside.times.forget();
        window = Window::open(counts());
    })?;
    let mut results = Map::new();
    if wanted {
        let growth = window.close(counts());
        trips::tell(&beside.times, &mut results)?;
        for (at, key) in ["offered_per_s", "written_per_s", "superseded_per_s"]
            .into_iter()
            .enumerate()
        {
            results.insert(key.into(), json!(growth.per_second(at)));
        }
        // The newest frame must get out, and every question has had its time.
        beside.over.store(true, Ordering::Relaxed);
        let end = Instant::now();
        control.wait("end of what is underway", workers, || {
            (is_empty() && beside.missing() == 0) || end.elapsed() > SETTLE
        })?;
        results.insert("rtt_missing".into(), json!(beside.missing()));
    }
    Ok(results)
}
