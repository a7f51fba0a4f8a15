//! The harness: plans the measurements, starts the two ends of each, and reports the results.
//!
//! Nothing here sends a frame; the ends do.

mod calls;
mod chart;
mod child;
mod contenders;
mod distance;
mod end;
mod figures;
mod files;
mod json;
mod machine;
mod measurement;
mod namespace;
#[cfg_attr(not(target_os = "linux"), path = "no_path.rs")]
mod path;
mod plan;
mod plots;
mod progress;
#[cfg_attr(not(target_os = "linux"), path = "no_queues.rs")]
mod queues;
mod report;
mod rounds;
mod smoke;
mod table;
mod watch;

use std::io;

use self::child::check_interrupt;
use crate::{
    cli::{Congestion, Run},
    output::print_line,
};

/// An error, in words, if these options cannot work. To be called before measuring.
pub(crate) fn check(run: &Run) -> Result<(), String> {
    run.check()?;
    files::check(run).map_err(|error| error.to_string())
}

/// Measures and reports, or only tests that everything runs.
pub(crate) fn run(run: &Run) -> io::Result<()> {
    child::watch_signals()?;
    if run.test {
        return smoke::run(run);
    }
    if run.json.is_none() && run.plot.is_none() {
        child::watch_reader();
    }
    match measure(run) {
        // A closed standard output is no failure.
        Err(error) if error.kind() == io::ErrorKind::Interrupted && child::is_abandoned() => Ok(()),
        done => done,
    }
}

fn measure(run: &Run) -> io::Result<()> {
    let congestion = match run.congestion {
        Congestion::Reno => namespace::enter(),
        Congestion::Keep => namespace::Network::Kept,
    };
    let contenders = if run.no_compare || run.one_process {
        Vec::new()
    } else {
        contenders::find(run.compare.as_deref())?
    };
    let plan = plan::Plan::new(run, &contenders)?;
    let record = machine::Record::new(&plan, congestion, &contenders);
    if !run.test {
        print_line(&record)?;
    }
    check_interrupt()?;
    let progress = progress::Progress::new(plan.measurements());
    // First, since it belongs to no round, and is wanted even if the time is short.
    let calls = if plan.traces {
        calls::count(&plan, &progress)?
    } else {
        Vec::new()
    };
    let results = rounds::measure_all(&plan, &progress)?;
    progress.finish();
    report::report(run, &record, &results, &calls)
}
