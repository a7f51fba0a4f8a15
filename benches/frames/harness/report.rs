//! What was measured, told: tables, files, and what went wrong.
//!
//! Nothing here is measured.

use std::io;

use clap::ValueEnum as _;

use super::{
    figures::{self, Row},
    json,
    machine::Record,
    rounds::Results,
    table,
};
use crate::{cli::Run, failure::failure, workloads::Workload};

/// An error if something failed; the rest is told all the same.
pub(crate) fn report(run: &Run, record: &Record, results: &Results) -> io::Result<()> {
    let rows: Vec<Row> = results.cells.iter().flat_map(figures::rows).collect();
    if !run.test {
        for workload in Workload::value_variants() {
            if let Some(table) = table::table(*workload, &rows) {
                println!("{table}");
            }
        }
    }
    if let Some(path) = &run.json {
        json::write(path, record, &rows)?;
        println!("figures: {}", path.display());
    }
    if results.left_out > 0 {
        println!(
            "note: {} measurements were left out, the time was over; --within gives more",
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
    if run.test {
        println!("everything runs; `cargo bench --bench frames` measures");
    }
    Ok(())
}
