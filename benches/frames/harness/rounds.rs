//! The rounds: in each, everybody who takes part in a cell is measured once, one after the other.
//!
//! A shared machine is not the same from one minute to the next; what is compared is measured within seconds. When the
//! time is over, every cell has had as many rounds as every other, or one more.

use std::io;

use serde_json::{Map, Value};

use super::{
    child::check_interrupt,
    measurement::measure,
    plan::{Cell, Participant, Plan},
    progress::Progress,
};
use crate::failure::failure;

/// What one of those who take part has yielded, round by round; `None` where it failed.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) who: Participant,
    pub(crate) rounds: Vec<Option<Map<String, Value>>>,
}

/// A cell and what was measured in it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) series: Vec<Series>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cells: Vec<Measured>,
    /// What failed of our own, in words.
    pub(crate) failures: Vec<String>,
    /// Measurements for which there was no time.
    pub(crate) left_out: u64,
}

/// Measures everything that is planned and for which there is time.
pub(crate) fn measure_all(plan: &Plan, progress: &Progress) -> io::Result<Results> {
    let series = |who: &Participant| Series {
        who: who.clone(),
        rounds: Vec::new(),
    };
    let cells = plan.cells.iter().map(|(cell, participants)| Measured {
        cell: *cell,
        series: participants.iter().map(series).collect(),
    });
    let mut results = Results {
        cells: cells.collect(),
        ..Results::default()
    };
    for _ in 0..plan.rounds {
        for measured in &mut results.cells {
            for series in &mut measured.series {
                if plan.is_over() || check_interrupt().is_err() {
                    results.left_out += 1;
                    continue;
                }
                progress.begin(measured.cell, &series.who);
                let round = once(plan, measured.cell, &series.who, progress);
                match round {
                    Ok(round) => series.rounds.push(Some(round)),
                    // Who is interrupted wants to see what there is.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        series.rounds.push(None);
                        let what = format!("{}: {error}", measured.cell);
                        if series.who.variant().is_some() {
                            results.failures.push(what);
                        } else {
                            progress.say(&format!("note: another program failed: {what}"));
                        }
                    }
                }
                progress.end();
            }
        }
    }
    Ok(results)
}

/// One measurement. One of our own that fails is tried again with more time, since a busy machine can keep anybody from
/// getting anything done in little.
fn once(
    plan: &Plan,
    cell: Cell,
    who: &Participant,
    progress: &Progress,
) -> io::Result<Map<String, Value>> {
    let attempt = |time| {
        let results = measure(plan, cell, who, time, None).and_then(|results| {
            check(cell, who, &results)?;
            Ok(results)
        });
        // An interrupt ends the other processes as well, which may be seen first.
        check_interrupt()?;
        results
    };
    let first = attempt(plan.time);
    match (&first, who) {
        (Err(error), Participant::Own(_)) if error.kind() != io::ErrorKind::Interrupted => {
            progress.say(&format!("note: tried again: {cell}: {error}"));
            attempt(plan.longer())
        }
        _ => first,
    }
}

/// Our own ends yield what their workload promises.
fn check(cell: Cell, who: &Participant, results: &Map<String, Value>) -> io::Result<()> {
    let Some(variant) = who.variant() else {
        return Ok(());
    };
    for metric in cell.workload.metrics_of(variant) {
        let is_there = results.get(metric.key).is_some_and(Value::is_number);
        if metric.is_promised_by(variant) && !is_there {
            let key = metric.key;
            return Err(failure(format_args!("{variant} yields no `{key}`")));
        }
    }
    Ok(())
}
