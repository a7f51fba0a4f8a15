//! Watches a stream from outside: how many bytes are on their way, how often its ends sleep, and the rate in short intervals.
//!
//! It is the same for all participants, since it asks only the kernel: `sock_diag(7)` for the bytes in the queues of the connection,
//! `proc(5)` for the rest. What cannot be found out is left out.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::queues::Queues;

/// Time between two looks at the queues.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The length of the intervals of which the rate is reported.
const RATE_OF: Duration = Duration::from_millis(50);

/// A stream that is watched.
pub(crate) struct Watch {
    ends: [u32; 2],
    queues: Option<Queues>,
    start: Instant,
    before: [Usage; 2],
    /// Bytes in both queues, at each look.
    in_flight: Vec<u64>,
    /// Bytes a second in each interval.
    rates: Vec<f64>,
    interval: (Instant, u64),
}

/// What an end has used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Times a thread has slept.
    sleeps: u64,
    /// Nanoseconds on a processor.
    cpu: u64,
    /// Page faults.
    faults: u64,
}

impl Watch {
    /// Watches the processes `serve` and `drive`, whose connection ends at `at`.
    pub(crate) fn start(serve: u32, drive: u32, at: &str) -> Self {
        let now = Instant::now();
        Self {
            ends: [serve, drive],
            queues: Queues::find(at),
            start: now,
            before: [serve, drive].map(Usage::of),
            in_flight: Vec::new(),
            rates: Vec::new(),
            interval: (now, loopback_bytes()),
        }
    }

    /// Looks at the connection. Returns the time until it wants to look again.
    pub(crate) fn look(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(bytes) = self.queues.as_ref().and_then(Queues::bytes) {
            self.in_flight.push(bytes);
        }
        let (since, before) = self.interval;
        let took = now.saturating_duration_since(since);
        if took >= RATE_OF {
            let bytes = loopback_bytes();
            let rate = bytes.saturating_sub(before) as f64 / took.as_secs_f64();
            self.rates.push(rate);
            self.interval = (now, bytes);
        }
        LOOK_EVERY
    }

    /// What was seen until now.
    pub(crate) fn results(mut self) -> Map<String, Value> {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut results = Map::new();
        let mut add = |key: String, value: f64| results.insert(key, json!(value));
        self.in_flight.sort_unstable();
        if let (Some(last), Some(middle)) = (
            self.in_flight.last(),
            self.in_flight.get(self.in_flight.len() / 2),
        ) {
            add("in_flight_p50".into(), *middle as f64);
            add("in_flight_max".into(), *last as f64);
        }
        let mut faults = 0;
        for (at, name) in ["serve", "drive"].into_iter().enumerate() {
            let (now, before) = (Usage::of(self.ends[at]), self.before[at]);
            faults += now.faults.saturating_sub(before.faults);
            let cpu = now.cpu.saturating_sub(before.cpu) as f64 / 1e9;
            let sleeps = now.sleeps.saturating_sub(before.sleeps) as f64;
            add(format!("{name}_sleeps_per_s"), sleeps / seconds);
            add(format!("{name}_cpu_percent"), cpu / seconds * 100.0);
        }
        let bytes: f64 = self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64 * seconds;
        add(
            "faults_per_mib".into(),
            faults as f64 / (bytes / f64::from(1 << 20)).max(1.0),
        );
        let rates = self.rates.iter().map(|rate| json!(rate.round()));
        results.insert("rates".into(), rates.collect());
        results
    }
}

impl Usage {
    fn of(process: u32) -> Self {
        let mut usage = Self::default();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name of the program, in parentheses, may have spaces. `minflt` is the eighth field behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        usage.faults = number(fields.split_whitespace().nth(7));
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            usage.cpu += number(read("schedstat").split_whitespace().next());
            let status = read("status");
            let sleeps = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.sleeps += number(sleeps);
        }
        usage
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Bytes that the loopback interface of this thread's namespace has received, headers included.
fn loopback_bytes() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    number(line.and_then(|line| line.split_whitespace().next()))
}
