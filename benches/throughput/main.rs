//! How many frames a second, and how long there and back, through two real managers on loopback.
//!
//! The same frames over bare blocking and bare spinning sockets are the baseline, in the same run and in turn with the
//! others, since a shared machine is not the same from one minute to the next. Nothing is asserted about time.

mod ours;
mod raw;

use std::{
    env,
    error::Error,
    fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use quorum_cnx::{Idle, limits};

/// A small frame, one that fills a page or so, one that is read into a buffer of its own, the largest.
const SIZES: [usize; 4] = [64, 1 << 10, 16 << 10, 512 << 10];

/// Frames per second one way and round-trip times, beside bare sockets.
#[derive(Debug, Parser)]
#[command(name = "throughput", bin_name = "cargo bench --bench throughput --")]
struct Cli {
    /// How long all measurements take together
    #[arg(long, value_name = "N", default_value_t = 45, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,

    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    repetitions: u32,

    /// How long who spins does so before it blocks
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    spin_us: u32,

    /// Offers a frame only when the one before has left, so that none is superseded
    #[arg(long)]
    paced: bool,

    /// Bytes that the kernel may hold unsent in front of the newest frame; 0 leaves it to the kernel
    #[arg(long, value_name = "N", default_value_t = limits::UNSENT_LIMIT)]
    unsent_limit: u32,

    /// Given by `cargo bench`; without it this is a test, which only shows that everything runs
    #[arg(long, hide = true)]
    bench: bool,

    /// Given by those who want a test
    #[arg(long, hide = true)]
    test: bool,

    /// Given by `cargo bench NAME` to all benchmarks
    #[arg(hide = true)]
    name: Option<String>,
}

/// Who carries the frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Raw,
    Manager,
    EventLoop,
}

/// One row of the tables.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    way: Way,
    spins: bool,
}

const ROWS: [Row; 6] = [
    row("raw sockets, block", Way::Raw, false),
    row("CnxManager, block", Way::Manager, false),
    row("EventLoop, block", Way::EventLoop, false),
    row("raw sockets, spin", Way::Raw, true),
    row("CnxManager, spin", Way::Manager, true),
    row("EventLoop, spin", Way::EventLoop, true),
];

const fn row(name: &'static str, way: Way, spins: bool) -> Row {
    Row { name, way, spins }
}

/// What every measurement is told.
#[derive(Clone, Copy)]
struct Task {
    idle: Idle,
    bytes: usize,
    time: Duration,
    paced: bool,
    unsent_limit: Option<u32>,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// A second, at the far application.
    delivered: f64,
    /// Of those offered.
    superseded: f64,
    /// Of those that came, because the far application was slower than its inbox.
    dropped: f64,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default)]
struct Trip {
    p50_us: f64,
    p99_us: f64,
}

impl Trip {
    fn of(nanos: &Histogram<u64>) -> Self {
        let micros = |quantile| nanos.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50_us: micros(0.5),
            p99_us: micros(0.99),
        }
    }
}

/// In nanoseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// What a receiver counts, and what ends a sender.
#[derive(Clone, Default)]
struct Gauge {
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Gauge {
    fn count(&self, frames: u64) {
        self.delivered.fetch_add(frames, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Frames a second over this time, from the first one on; ends the sender.
    fn rate(&self, time: Duration) -> f64 {
        let read = || (Instant::now(), self.delivered.load(Ordering::Relaxed));
        let started = Instant::now();
        // A sender that cannot send would have us wait for ever.
        while read().1 == 0 && started.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_micros(100));
        }
        let (start, before) = read();
        thread::sleep(time);
        let (end, after) = read();
        self.stop.store(true, Ordering::Relaxed);
        (after - before) as f64 / (end - start).as_secs_f64()
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_test = cli.test || !cli.bench;
    let (repetitions, time) = if is_test {
        (1, Duration::from_millis(1))
    } else {
        let measurements = cli.repetitions * (SIZES.len() * ROWS.len() * 2) as u32;
        let time = Duration::from_secs(cli.seconds.into()) / measurements;
        // To link two managers and to halt them takes about this long.
        let overhead = Duration::from_millis(5);
        (
            cli.repetitions,
            time.saturating_sub(overhead).max(Duration::from_millis(1)),
        )
    };
    match measure(&cli, repetitions, time) {
        Ok(_) if is_test => println!("everything runs; `cargo bench` measures"),
        Ok((flows, trips)) => {
            println!("{}", machine());
            println!(
                "{repetitions} x {} ms each, medians; unsent limit {}; in brackets the ratio to raw sockets that idle alike\n",
                time.as_millis(),
                cli.unsent_limit
            );
            print_flows(&flows, cli.paced);
            print_trips(&trips);
        }
        Err(error) => {
            eprintln!("throughput: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// For each row and size, all repetitions.
type Results<T> = Vec<[Vec<T>; SIZES.len()]>;

fn measure(
    cli: &Cli,
    repetitions: u32,
    time: Duration,
) -> Result<(Results<Flow>, Results<Trip>), Box<dyn Error>> {
    let mut flows: Results<Flow> = vec![Default::default(); ROWS.len()];
    let mut trips: Results<Trip> = vec![Default::default(); ROWS.len()];
    for _ in 0..repetitions {
        for (size, bytes) in SIZES.into_iter().enumerate() {
            for (at, row) in ROWS.iter().enumerate() {
                let for_at_most = Duration::from_micros(cli.spin_us.into());
                let task = Task {
                    idle: if row.spins {
                        Idle::Spin { for_at_most }
                    } else {
                        Idle::Block
                    },
                    bytes,
                    time,
                    paced: cli.paced,
                    unsent_limit: (cli.unsent_limit > 0).then_some(cli.unsent_limit),
                };
                let (flow, trip) = match row.way {
                    Way::Raw => (raw::one_way(&task)?, raw::round_trip(&task)?),
                    Way::Manager => (ours::manager_one_way(&task)?, ours::manager_trip(&task)?),
                    Way::EventLoop => (ours::loop_one_way(&task)?, ours::loop_trip(&task)?),
                };
                flows[at][size].push(flow);
                trips[at][size].push(trip);
            }
        }
    }
    Ok((flows, trips))
}

/// What the figures depend on besides the program.
fn machine() -> String {
    let read =
        |path| fs::read_to_string(path).map_or_else(|_| "?".into(), |text| text.trim().to_owned());
    format!(
        "{} processors, {} {}, congestion control {}, quorum-cnx {}",
        thread::available_parallelism().map_or(0, usize::from),
        env::consts::OS,
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        env!("CARGO_PKG_VERSION"),
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn print_head(title: &str) {
    println!("{title}");
    print!("{:20}", "");
    for bytes in SIZES {
        let size = if bytes < 1 << 10 {
            format!("{bytes} B")
        } else {
            format!("{} KiB", bytes >> 10)
        };
        print!("{size:>19}");
    }
    println!();
}

/// The raw sockets that idle as this row does.
fn baseline(row: &Row) -> usize {
    let is_it = |other: &Row| other.way == Way::Raw && other.spins == row.spins;
    ROWS.iter().position(is_it).expect("both are in the table")
}

fn print_flows(flows: &Results<Flow>, paced: bool) {
    let pace = if paced {
        "one after the other"
    } else {
        "as fast as the sender can"
    };
    print_head(&format!("one way, {pace}: frames delivered per second"));
    let rate = |row: usize, size: usize| median(flows[row][size].iter().map(|flow| flow.delivered));
    for (at, row) in ROWS.iter().enumerate() {
        print!("{:20}", row.name);
        for size in 0..SIZES.len() {
            let ratio = rate(at, size) / rate(baseline(row), size);
            print!("{:>12.0} ({ratio:4.2})", rate(at, size));
        }
        println!();
    }
    print_head("\nof these, superseded in the slot / dropped from the inbox: percent");
    for (at, row) in ROWS
        .iter()
        .enumerate()
        .filter(|(_, row)| row.way != Way::Raw)
    {
        print!("{:20}", row.name);
        for of_size in &flows[at] {
            let superseded = median(of_size.iter().map(|flow| flow.superseded)) * 100.0;
            let dropped = median(of_size.iter().map(|flow| flow.dropped)) * 100.0;
            print!("{:>19}", format!("{superseded:.1} / {dropped:.1}"));
        }
        println!();
    }
    println!();
}

fn print_trips(trips: &Results<Trip>) {
    print_head("there and back: p50 us, p99 us");
    let p50 = |row: usize, size: usize| median(trips[row][size].iter().map(|trip| trip.p50_us));
    let p99 = |row: usize, size: usize| median(trips[row][size].iter().map(|trip| trip.p99_us));
    for (at, row) in ROWS.iter().enumerate() {
        print!("{:20}", row.name);
        for size in 0..SIZES.len() {
            let ratio = p50(at, size) / p50(baseline(row), size);
            let [p50, p99] = [p50(at, size), p99(at, size)];
            print!("{:>19}", format!("{p50:.1} {p99:.0} ({ratio:4.2})"));
        }
        println!();
    }
}
