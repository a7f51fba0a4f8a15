//! The rounds: in each, everybody who takes part is measured once, one after the other.
//!
//! A shared machine is not the same from one minute to the next; what is compared is measured within seconds.

use std::io;

use serde_json::{Map, Value};

use super::{
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
    /// What failed, in words.
    pub(crate) failures: Vec<String>,
    /// Measurements for which there was no time.
    pub(crate) left_out: u64,
}

/// Measures everything that is planned and for which there is time.
pub(crate) fn measure_all(plan: &Plan, progress: &Progress) -> io::Result<Results> {
    let mut results = Results::default();
    for (cell, participants) in &plan.cells {
        let series = |who: &Participant| Series {
            who: who.clone(),
            rounds: Vec::new(),
        };
        let mut measured = Measured {
            cell: *cell,
            series: participants.iter().map(series).collect(),
        };
        for _ in 0..plan.rounds {
            for series in &mut measured.series {
                if plan.is_over() {
                    results.left_out += 1;
                    continue;
                }
                progress.begin(*cell, &series.who);
                let round = once(plan, *cell, &series.who, &mut results.failures)?;
                series.rounds.push(round);
                progress.end();
            }
        }
        results.cells.push(measured);
    }
    Ok(results)
}

/// One measurement. One that fails is noted, and tried again unless it belongs to another program, or this is a test.
fn once(
    plan: &Plan,
    cell: Cell,
    who: &Participant,
    failures: &mut Vec<String>,
) -> io::Result<Option<Map<String, Value>>> {
    let tries = if plan.is_test || who.variant().is_none() {
        1
    } else {
        2
    };
    for _ in 0..tries {
        match measure(plan, cell, who, None) {
            Ok(results) => {
                check(cell, who, &results)?;
                return Ok(Some(results));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => failures.push(format!("{} B: {error}", cell.size)),
        }
    }
    Ok(None)
}

/// Our own ends yield what their workload promises.
fn check(cell: Cell, who: &Participant, results: &Map<String, Value>) -> io::Result<()> {
    let Some(variant) = who.variant() else {
        return Ok(());
    };
    for metric in cell.workload.metrics_of(variant) {
        if metric.is_promised_by(variant) && !results.get(metric.key).is_some_and(Value::is_number)
        {
            return Err(failure(format_args!(
                "{} {variant} yields no `{}`",
                cell.workload.name(),
                metric.key
            )));
        }
    }
    Ok(())
}
