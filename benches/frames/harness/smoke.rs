//! A test that everything runs: each workload for a short time, in two processes and in one, and all files.

use std::{fs, io, path::Path};

use clap::ValueEnum as _;
use serde_json::Value;

use super::{calls, distance, path, rounds};
use crate::{
    cli::{Congestion, Run},
    ends,
    failure::{While, failure},
    output::print_line,
    workloads::Workload,
};

/// Runs everything once.
pub(crate) fn run(asked: &Run) -> io::Result<()> {
    ends::check().context("parsing frames")?;
    calls::check().context("counting system calls")?;
    distance::check().context("the distance of the processors")?;
    rounds::check_distances().context("rounds while processors are far apart")?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frames");
    fs::create_dir_all(&directory).context(format_args!("creating {}", directory.display()))?;
    let file = directory.join("frames.json");
    let two = Run {
        test: true,
        congestion: Congestion::Keep,
        json: Some(file.clone()),
        plot: Some(directory),
        no_compare: asked.compare.is_none(),
        ..asked.clone()
    };
    super::measure(&two)?;
    check(&file, &two)?;
    let one = Run {
        one_process: true,
        variants: vec!["handler/block".into(), "inbox/block".into()],
        json: None,
        plot: None,
        ..two
    };
    super::measure(&one)?;
    print_line("everything runs; `cargo bench --bench frames` measures")?;
    Ok(())
}

/// Checks that every chosen workload has its rows, and each row a number.
fn check(file: &Path, run: &Run) -> io::Result<()> {
    let text = fs::read_to_string(file).context(format_args!("reading {}", file.display()))?;
    let rows: Vec<Value> = serde_json::from_str(&text).context("the list of rows")?;
    for workload in Workload::value_variants() {
        let is_wanted = if run.workloads.is_empty() {
            // The plan says why it is left out.
            *workload != Workload::Delayed || path::check().is_ok()
        } else {
            run.workloads.contains(workload)
        };
        let is_it = |row: &Value| row["workload"] == workload.name() && row["value"].is_number();
        for metric in workload.metrics() {
            let is_there = |row: &Value| is_it(row) && row["metric"] == metric.key;
            if is_wanted && !rows.iter().any(is_there) {
                let (name, key) = (workload.name(), metric.key);
                return Err(failure(format_args!("no row of {name} has `{key}`")));
            }
        }
    }
    Ok(())
}
