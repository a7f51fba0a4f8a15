//! Measures in rounds: in each round every participant of every cell is measured once.
//!
//! The speed of a shared machine changes from minute to minute, so that what is compared is measured within seconds. When the
//! time is over, the numbers of rounds of two cells differ by one at most.

use std::io;

use serde_json::{Map, Value, json};

use super::{
    child::check_interrupt,
    distance::Distance,
    measurement::measure,
    plan::{Cell, Participant, Plan},
    progress::Progress,
};
use crate::failure::failure;

/// How often a measurement is made while the processors move apart.
const ATTEMPTS: u32 = 4;

/// The key of the time for a cache line between the processors, in nanoseconds.
pub(crate) const LINE: &str = "cache_line_ns";

/// The results of one participant, round by round; `None` for a round that failed.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) participant: Participant,
    pub(crate) rounds: Vec<Option<Map<String, Value>>>,
}

/// A cell and its results.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) series: Vec<Series>,
}

/// The results of all cells.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cells: Vec<Measured>,
    /// Failures of the library and of bare sockets, in words.
    pub(crate) failures: Vec<String>,
    /// Measurements that were left out for lack of time.
    pub(crate) left_out: u64,
}

/// Measures everything in the plan, until the time is over.
pub(crate) fn measure_all(plan: &Plan, progress: &Progress) -> io::Result<Results> {
    let series = |participant: &Participant| Series {
        participant: participant.clone(),
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
    let mut distance = Distance::default();
    for _ in 0..plan.rounds {
        for measured in &mut results.cells {
            for series in &mut measured.series {
                if plan.is_over() || check_interrupt().is_err() {
                    results.left_out += 1;
                    continue;
                }
                progress.begin(measured.cell, &series.participant);
                let round = while_near(plan, &mut distance, || {
                    once(plan, measured.cell, &series.participant, progress)
                });
                match round {
                    Ok(round) => series.rounds.push(Some(round)),
                    // After an interrupt, the results until now are reported.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        series.rounds.push(None);
                        let what = format!("{}: {error}", measured.cell);
                        if series.participant.variant().is_some() {
                            results.failures.push(what);
                        } else {
                            progress.print(&format!("note: another program failed: {what}"));
                        }
                    }
                }
                progress.end();
            }
        }
    }
    leave_out_far(&mut results, &distance);
    Ok(results)
}

/// Leaves out the rounds in which the processors were far apart, if there are others of the same participant. The first rounds may be
/// such rounds: only later ones show that the processors can be nearer.
fn leave_out_far(results: &mut Results, distance: &Distance) {
    let is_near =
        |round: &Map<String, Value>| distance.is_near(round.get(LINE).and_then(Value::as_f64));
    for series in results.cells.iter_mut().flat_map(|cell| &mut cell.series) {
        if series.rounds.iter().flatten().any(is_near) {
            for round in &mut series.rounds {
                round.take_if(|round| !is_near(round));
            }
        }
    }
}

/// Measures while the processors are near each other. If they move apart meanwhile, it is repeated, a few times at most.
fn while_near(
    plan: &Plan,
    distance: &mut Distance,
    measure: impl Fn() -> io::Result<Map<String, Value>>,
) -> io::Result<Map<String, Value>> {
    let mut attempt = 1;
    loop {
        distance.wait()?;
        let before = distance.look();
        let mut results = measure()?;
        let after = distance.look();
        let is_near = distance.is_near(before) && distance.is_near(after);
        if is_near || attempt == ATTEMPTS || plan.is_over() {
            if let (Some(before), Some(after)) = (before, after) {
                results.insert(LINE.into(), json!(before.max(after)));
            }
            return Ok(results);
        }
        attempt += 1;
    }
}

/// One measurement. One of the library or of bare sockets that fails is repeated with more time: on a busy machine a short one may
/// see no frame.
fn once(
    plan: &Plan,
    cell: Cell,
    participant: &Participant,
    progress: &Progress,
) -> io::Result<Map<String, Value>> {
    let attempt = |time| {
        let results = measure(plan, cell, participant, time, None).and_then(|results| {
            check(cell, participant, &results)?;
            Ok(results)
        });
        // An interrupt also ends the child processes, and their end may be noticed first.
        check_interrupt()?;
        results
    };
    let first = attempt(plan.time);
    match (&first, participant) {
        (Err(error), Participant::Own(_)) if error.kind() != io::ErrorKind::Interrupted => {
            progress.print(&format!("note: repeated: {cell}: {error}"));
            attempt(plan.longer())
        }
        _ => first,
    }
}

/// An error if a result of the workload is missing. Other programs may leave some out.
fn check(cell: Cell, participant: &Participant, results: &Map<String, Value>) -> io::Result<()> {
    let Some(variant) = participant.variant() else {
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
