//! What was measured, told: tables, files, plots, and what went wrong.
//!
//! Nothing here is measured.

use std::io;

use clap::ValueEnum as _;

use super::{
    child::check_interrupt,
    figures::{self, Row},
    json,
    machine::Record,
    plots,
    rounds::{Measured, Results},
    table,
};
use crate::{cli::Run, failure::failure, metrics::CALLS, workloads::Workload};

/// An error if something failed; the rest is told all the same.
pub(crate) fn report(
    run: &Run,
    record: &Record,
    results: &Results,
    calls: &[Measured],
) -> io::Result<()> {
    let say = |line: &str| {
        // A test that fills the screen is not read.
        if !run.test {
            println!("{line}");
        }
    };
    let mut rows: Vec<Row> = results.cells.iter().flat_map(figures::rows).collect();
    let of_calls = |measured| figures::rows_of(measured, |_| &CALLS);
    let calls: Vec<Row> = calls.iter().flat_map(of_calls).collect();
    let workloads = Workload::value_variants().iter();
    let tables = workloads.filter_map(|workload| table::of_workload(*workload, &rows));
    for table in tables.chain(table::of_calls(&calls)) {
        say(&table);
    }
    if let Some(directory) = &run.plot {
        for file in plots::draw(directory, results, &rows)? {
            say(&format!("plot: {file}"));
        }
    }
    if let Some(path) = &run.json {
        rows.extend(calls);
        json::write(path, record, &rows)?;
        say(&format!("figures: {}", path.display()));
    }
    if results.left_out > 0 {
        println!(
            "note: {} measurements were left out, there was no time for them; --within gives more",
            results.left_out
        );
    }
    if !results.failures.is_empty() {
        let failures = results.failures.join("\n");
        let count = results.failures.len();
        return Err(failure(format_args!(
            "{count} measurements failed:\n{failures}"
        )));
    }
    check_interrupt()
}
