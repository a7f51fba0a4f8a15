//! The command line of the harness, and of the two ends that it starts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{ends::Task, workloads::Workload};

/// Measures the library, bare sockets and other programs in turn, in the same run.
#[derive(Debug, Parser)]
#[command(name = "frames", bin_name = "cargo bench --bench frames --", after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) end: Option<End>,

    #[command(flatten)]
    pub(crate) run: Run,

    /// Given by `cargo bench NAME` to all benchmarks
    #[arg(hide = true)]
    pub(crate) name: Option<String>,

    /// Given by `cargo bench`; without it this is a test that everything runs
    #[arg(long, hide = true, global = true)]
    pub(crate) bench: bool,
}

const EXAMPLES: &str = "\
Examples:
  Everything, within 15 minutes; files for a report:
    cargo bench --bench frames -- --json frames.json --plot plots
  One thing, quickly:
    cargo bench --bench frames -- --workload latency --size 64 --variant handler --rounds 3
  Two machines, the first of which is 10.0.0.1 (both processes stop by themselves; ages need
  synchronized clocks):
    cargo bench --bench frames -- serve --workload latency --variant handler/block \\
      --listen 10.0.0.1:7000 --seconds 10
    cargo bench --bench frames -- drive --workload latency --variant handler/block \\
      --to 10.0.0.1:7000 --seconds 10
  The same over bare sockets, for comparison: --variant raw/block";

/// One end of a measurement. The harness starts it, or a user.
#[derive(Debug, Subcommand)]
pub(crate) enum End {
    /// The end that listens, receives and answers
    Serve(Task),
    /// The end that connects and sends
    Drive(Task),
}

/// What the harness runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// Only these workloads; may be repeated
    #[arg(long = "workload", value_name = "NAME")]
    pub(crate) workloads: Vec<Workload>,

    /// Only frames with payloads of so many bytes, instead of the usual sizes; may be repeated
    #[arg(long = "size", value_name = "BYTES", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(16..=524_288))]
    pub(crate) sizes: Vec<u32>,

    /// Only these numbers of peers, idle links, managers, frames per call or entries in flight; may be repeated
    #[arg(long = "count", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=16_000))]
    pub(crate) counts: Vec<u32>,

    /// Only variants and other programs whose name contains this, and the bare sockets; may be repeated
    #[arg(long = "variant", value_name = "TEXT")]
    pub(crate) variants: Vec<String>,

    /// Rounds in which everything is measured once; the median counts [default: 5, 1 if quick]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: Option<u32>,

    /// Duration of each measurement [default: 300, 100 if quick]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) time_ms: Option<u32>,

    /// One short round of a part of the measurements, within 60 s
    #[arg(long)]
    pub(crate) quick: bool,

    /// Time after which no further measurement begins [default: 14 minutes, 50 s if quick]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) within: Option<u32>,

    /// The processors on which the ends run [default: split for latency, many and slow-peer, else free]
    #[arg(long, value_name = "WAY")]
    pub(crate) placement: Option<Placement>,

    /// The congestion control: `reno` in a network namespace of its own, or `keep` that of the machine
    #[arg(long, value_name = "WAY", default_value = "reno")]
    pub(crate) congestion: Congestion,

    /// How long a spinning loop spins before it blocks
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) spin_us: u32,

    /// Bytes that the kernel may hold unsent in front of the newest frame; 0 leaves it to the kernel, which is the default for
    /// queues [default: 16384]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) unsent_limit: Option<u32>,

    /// Bytes of the receive buffer of the library's links (SO_RCVBUF) [default: the kernel chooses it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_073_741_824))]
    pub(crate) receive_buffer: Option<u32>,

    /// The program that runs the other programs [default: benches/compare/target/release/compare]
    #[arg(long, value_name = "PATH")]
    pub(crate) compare: Option<PathBuf>,

    /// Without other programs
    #[arg(long)]
    pub(crate) no_compare: bool,

    /// Without counts of system calls
    #[arg(long)]
    pub(crate) no_strace: bool,

    /// Both ends in this process, without other programs and counts of system calls
    #[arg(long)]
    pub(crate) one_process: bool,

    /// Writes all figures as a JSON list of rows
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draws plots (SVG) into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) plot: Option<PathBuf>,

    /// Only tests that everything runs
    #[arg(long, hide = true)]
    pub(crate) test: bool,
}

impl Run {
    /// The given workloads, or all.
    pub(crate) fn chosen(&self) -> Vec<Workload> {
        if self.workloads.is_empty() {
            Workload::value_variants().to_vec()
        } else {
            self.workloads.clone()
        }
    }

    /// An error, in words, if options contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let chosen = self.chosen();
        let names = || Vec::from_iter(chosen.iter().map(|workload| workload.name())).join(", ");
        if !self.counts.is_empty() && chosen.iter().all(|one| one.count_range().is_none()) {
            return Err(format!("--count: {} has no such number", names()));
        }
        if !self.sizes.is_empty() && !chosen.iter().any(|workload| workload.has_sizes()) {
            return Err(format!("--size: {} sends no frames", names()));
        }
        for count in &self.counts {
            for workload in &chosen {
                let range = workload.count_range();
                let means = workload
                    .count_means()
                    .unwrap_or_default()
                    .replace('\n', " ");
                if let Some(range) = range.filter(|range| !range.contains(count)) {
                    return Err(format!(
                        "--count {count}: `{}` can have {} to {} {means}; --workload chooses others",
                        workload.name(),
                        range.start(),
                        range.end()
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The processors on which the ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Placement {
    /// `drive` on processor 0, `serve` on processor 1
    Split,
    /// Wherever the kernel puts them
    Free,
    /// Both on processor 0
    Same,
}

/// The congestion control of all measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Congestion {
    /// Reno, in a network namespace of its own
    Reno,
    /// That of the machine
    Keep,
}
