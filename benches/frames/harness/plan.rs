//! Plans the measurements: cells, their participants, rounds and times.

use std::{
    collections::BTreeSet,
    fmt, io,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{contenders::Contender, path};
use crate::{
    cli::{Placement, Run},
    failure::failure,
    output::print_error,
    variants::{Api, Variant},
    workloads::Workload,
};

/// A workload with a payload size and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) size: u32,
    /// Peers, idle links, managers, frames per call, entries in flight; see [`Workload::count_means`].
    pub(crate) count: u32,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.workload.name())?;
        if self.workload.has_sizes() {
            write!(f, " {} B", self.size)?;
        }
        if let Some(means) = self.workload.count_means() {
            write!(f, ", {} {}", self.count, means.replace('\n', " "))?;
        }
        Ok(())
    }
}

/// A participant of a measurement.
#[derive(Clone, Debug)]
pub(crate) enum Participant {
    /// Bare sockets or the library.
    Own(Variant),
    /// Another program.
    Contender(Contender),
}

impl Participant {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Own(variant) => variant.to_string(),
            Self::Contender(contender) => contender.name.clone(),
        }
    }

    pub(crate) fn variant(&self) -> Option<Variant> {
        match self {
            Self::Own(variant) => Some(*variant),
            Self::Contender(_) => None,
        }
    }

    /// Whether it is a variant of the library.
    pub(crate) fn is_ours(&self) -> bool {
        self.variant()
            .is_some_and(|variant| variant.api != Api::Raw)
    }
}

/// All measurements of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cells: Vec<(Cell, Vec<Participant>)>,
    pub(crate) rounds: u32,
    pub(crate) time: Duration,
    /// After this time no further measurement begins.
    deadline: Instant,
    /// Whether only a part is measured.
    pub(crate) is_brief: bool,
    pub(crate) spin_us: u32,
    pub(crate) unsent_limit: Option<u32>,
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) one_process: bool,
    pub(crate) is_test: bool,
    /// Whether system calls are counted.
    pub(crate) traces: bool,
    placement: Option<Placement>,
    /// Whether there are two processors, and `taskset` to choose them.
    can_split: bool,
}

impl Plan {
    /// # Errors
    ///
    /// If no participant has a name that contains a given text, or if there can be no path with a delay, and it was asked for by name.
    pub(crate) fn new(run: &Run, contenders: &[Contender]) -> io::Result<Self> {
        let (rounds, time_ms, within) = match (run.test, run.quick) {
            (true, _) => (1, 50, 300),
            (false, true) => (1, 100, 50),
            (false, false) => (5, 300, 14 * 60),
        };
        let mut cells = Vec::new();
        for workload in run.chosen() {
            let missing = match workload {
                Workload::Delayed => path::check().err(),
                _ => None,
            };
            if let Some(why) = missing {
                // Only what was asked for by name must be there.
                if !run.workloads.is_empty() {
                    return Err(failure(format_args!("--workload delayed: {why}")));
                }
                print_error(format_args!("note: without `delayed`: {why}"));
                continue;
            }
            for cell in cells_of(run, workload) {
                cells.push((cell, participants(cell, contenders)));
            }
        }
        for text in &run.variants {
            check_name(text, &cells)?;
        }
        for (_, participants) in &mut cells {
            participants.retain(|participant| is_wanted(run, participant));
        }
        Ok(Self {
            cells,
            rounds: run.rounds.unwrap_or(rounds),
            time: Duration::from_millis(run.time_ms.unwrap_or(time_ms).into()),
            deadline: Instant::now() + Duration::from_secs(run.within.unwrap_or(within).into()),
            is_brief: run.quick || run.test,
            spin_us: run.spin_us,
            unsent_limit: run.unsent_limit,
            receive_buffer: run.receive_buffer,
            one_process: run.one_process,
            is_test: run.test,
            traces: !run.no_strace && !run.one_process,
            placement: run.placement,
            can_split: !run.one_process && can_split(),
        })
    }

    /// The time of a measurement that is repeated after a failure.
    pub(crate) fn longer(&self) -> Duration {
        self.time * 5
    }

    /// Time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The processors on which this workload runs.
    pub(crate) fn placement(&self, workload: Workload) -> Placement {
        if let Some(placement) = self.placement {
            return placement;
        }
        if workload.is_about_latency() && self.can_split {
            Placement::Split
        } else {
            Placement::Free
        }
    }

    /// The number of measurements.
    pub(crate) fn measurements(&self) -> u64 {
        let participants: usize = self
            .cells
            .iter()
            .map(|(_, participant)| participant.len())
            .sum();
        participants as u64 * u64::from(self.rounds)
    }
}

fn can_split() -> bool {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", "0,1", "true"]);
    for side in [Command::stdin, Command::stdout, Command::stderr] {
        side(&mut taskset, Stdio::null());
    }
    // `taskset` succeeds even if only one of the two processors exists.
    let has_two = thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    has_two && taskset.status().is_ok_and(|status| status.success())
}

fn cells_of(run: &Run, workload: Workload) -> Vec<Cell> {
    let (sizes, counts) = workload.cells(run.quick || run.test);
    let chosen = |given: &[u32], usual: &[u32]| {
        let few = if run.test { &usual[..1] } else { usual };
        if given.is_empty() { few } else { given }.to_vec()
    };
    let mut cells = Vec::new();
    // A workload without a count is measured even if `--count` is given for another one.
    let counts = if workload.count_means().is_some() {
        chosen(&run.counts, counts)
    } else {
        vec![0]
    };
    for size in chosen(&run.sizes, sizes) {
        for count in &counts {
            cells.push(Cell {
                workload,
                size,
                count: *count,
            });
        }
    }
    cells
}

fn participants(cell: Cell, contenders: &[Contender]) -> Vec<Participant> {
    let own = cell.workload.variants().into_iter().map(Participant::Own);
    let others = contenders
        .iter()
        .filter(|contender| contender.takes_part(cell))
        .cloned()
        .map(Participant::Contender);
    own.chain(others).collect()
}

fn is_wanted(run: &Run, participant: &Participant) -> bool {
    let name = participant.name();
    run.variants.is_empty()
        || name.starts_with("raw/")
        || run.variants.iter().any(|text| name.contains(text))
}

/// An error if no participant has this in its name. Otherwise only bare sockets would be measured.
fn check_name(text: &str, cells: &[(Cell, Vec<Participant>)]) -> io::Result<()> {
    let participants = cells.iter().flat_map(|(_, participants)| participants);
    let names: BTreeSet<_> = participants.map(Participant::name).collect();
    if names.iter().any(|name| name.contains(text)) {
        return Ok(());
    }
    let names = Vec::from_iter(names).join(", ");
    Err(failure(format!(
        "--variant {text}: no participant has such a name; there are {names}"
    )))
}
