//! Reports the results: tables, files, plots, and failures.

use std::io;

use clap::ValueEnum as _;

use super::{
    child::check_interrupt,
    figures::{self, Row},
    files,
    machine::Record,
    rounds::{Measured, Results},
    table,
};
use crate::{
    cli::Run,
    failure::failure,
    metrics::{CALLS, Metric, PATH, WATCHED},
    output::print_line,
    workloads::Workload,
};

/// Reports everything, and returns an error if a measurement failed. Files are written even if standard output is closed.
pub(crate) fn report(
    run: &Run,
    record: &Record,
    results: &Results,
    calls: &[Measured],
) -> io::Result<()> {
    let rows: Vec<Row> = results.cells.iter().flat_map(figures::rows).collect();
    let seen = |workload: Workload, metrics: &'static [Metric]| -> Vec<Row> {
        let cells = results.cells.iter();
        cells
            .filter(|measured| measured.cell.workload == workload)
            .flat_map(|measured| figures::rows_of(measured, |_| metrics))
            .collect()
    };
    let watched = seen(Workload::Stream, &WATCHED);
    let paths = seen(Workload::Delayed, &PATH);
    let of_calls = |measured| figures::rows_of(measured, |_| &CALLS);
    let calls: Vec<Row> = calls.iter().flat_map(of_calls).collect();
    let (files, written) = files::write(
        run,
        record,
        results,
        &rows,
        &[&watched[..], &paths, &calls].concat(),
    );
    let mut printed = Ok(true);
    // A test prints no tables.
    if !run.test {
        let workloads = Workload::value_variants().iter();
        let tables = workloads.filter_map(|workload| table::of_workload(*workload, &rows));
        let mut lines = tables
            .chain(table::of_watched(&watched))
            .chain(table::of_paths(&paths))
            .chain(table::of_calls(&calls))
            .chain(files);
        printed = lines.try_fold(true, |_, line| print_line(line));
    }
    if results.left_out > 0 {
        let left_out = format!(
            "note: {} measurements were left out for lack of time; --within gives more",
            results.left_out
        );
        printed = printed.and_then(|_| print_line(left_out));
    }
    written?;
    printed?;
    if !results.failures.is_empty() {
        let failures = results.failures.join("\n");
        let count = results.failures.len();
        return Err(failure(format_args!(
            "{count} measurements failed:\n{failures}"
        )));
    }
    check_interrupt()
}
