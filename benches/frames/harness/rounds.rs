//! Measures in rounds: in each round every participant of every cell is measured once.
//!
//! The speed of a shared machine changes from minute to minute, so that what is compared is measured within seconds. When the
//! time is over, the numbers of rounds of two cells differ by one at most.

use std::io;

use serde_json::{Map, Value, json};

use super::{
    child::check_interrupt,
    distance::{self, Distance},
    measurement::measure,
    plan::{Cell, Participant, Plan},
    progress::Progress,
};
use crate::{
    failure::failure,
    variants::{Api, Mode, variant},
    workloads::Workload,
};

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
    let mut distance = Distance::new(distance::measure);
    for _ in 0..plan.rounds {
        for measured in &mut results.cells {
            for series in &mut measured.series {
                if plan.is_over() || check_interrupt().is_err() {
                    results.left_out += 1;
                    continue;
                }
                progress.begin(measured.cell, &series.participant);
                let is_over = || plan.is_over();
                let round = while_near(&mut distance, is_over, || {
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
    leave_out_far(&mut results, |time| distance.is_near(time));
    Ok(results)
}

/// Leaves out the rounds in which the processors were far apart, if there are others of the same participant. The first rounds may be
/// such rounds: only later ones show that the processors can be nearer.
fn leave_out_far(results: &mut Results, is_near: impl Fn(Option<f64>) -> bool) {
    let is_near = |round: &Map<String, Value>| is_near(round.get(LINE).and_then(Value::as_f64));
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
    distance: &mut Distance<impl FnMut() -> Option<f64>>,
    is_over: impl Fn() -> bool,
    mut measure: impl FnMut() -> io::Result<Map<String, Value>>,
) -> io::Result<Map<String, Value>> {
    let mut attempt = 1;
    loop {
        distance.wait()?;
        let before = distance.look();
        let mut results = measure()?;
        let after = distance.look();
        let is_near = distance.is_near(before) && distance.is_near(after);
        if is_near || attempt == ATTEMPTS || is_over() {
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

/// Tests when a measurement is repeated, and which rounds are left out.
pub(super) fn check_distances() -> io::Result<()> {
    check_repeats()?;
    check_left_out()
}

/// The times between the processors are given in threes: the one for which a measurement waits, that before it, and that after it.
fn check_repeats() -> io::Result<()> {
    const NEAR: [Option<f64>; 3] = [Some(50.0); 3];
    const MOVES: [Option<f64>; 3] = [Some(50.0), Some(50.0), Some(200.0)];
    const SLOW: [Option<f64>; 3] = [Some(300.0), Some(300.0), Some(300.0)];
    const COMES_NEAR: [Option<f64>; 3] = [Some(300.0), Some(300.0), Some(50.0)];
    // The times, whether the run is over, and what is expected: the number of measurements, and the time that is reported.
    type Case<'a> = (&'a [[Option<f64>; 3]], bool, (u32, Option<f64>));
    let cases: [Case<'_>; 7] = [
        (&[NEAR], false, (1, Some(50.0))),
        (&[MOVES, NEAR], false, (2, Some(50.0))),
        (&[MOVES; 5], false, (ATTEMPTS, Some(200.0))),
        (&[MOVES, NEAR], true, (1, Some(200.0))),
        (&[SLOW], false, (1, Some(300.0))),
        (&[COMES_NEAR, NEAR], false, (2, Some(50.0))),
        (&[[None; 3]], false, (1, None)),
    ];
    for (number, (times, is_over, expected)) in cases.into_iter().enumerate() {
        let mut times = times.iter().flatten();
        let mut distance = Distance::new(|| times.next().copied().flatten());
        let mut measurements = 0;
        let results = while_near(
            &mut distance,
            || is_over,
            || {
                measurements += 1;
                Ok(Map::new())
            },
        )?;
        let found = (measurements, results.get(LINE).and_then(Value::as_f64));
        if found != expected {
            return Err(failure(format_args!(
                "case {number}: measurements and time {found:?} instead of {expected:?}"
            )));
        }
    }
    Ok(())
}

fn check_left_out() -> io::Result<()> {
    /// A round that failed.
    const FAILED: Option<f64> = Some(0.0);
    // The times of the rounds of a participant, and which of the rounds stay.
    type Case<'a> = (&'a [Option<f64>], &'a [bool]);
    let cases: [Case<'_>; 6] = [
        (&[Some(50.0), Some(100.0)], &[true, true]),
        (
            &[Some(300.0), Some(50.0), Some(101.0)],
            &[false, true, false],
        ),
        // Far rounds are better than none.
        (&[Some(300.0), Some(200.0)], &[true, true]),
        (&[Some(300.0), FAILED], &[true, false]),
        (&[None, Some(300.0)], &[true, false]),
        (&[FAILED, FAILED], &[false, false]),
    ];
    let round = |time: &Option<f64>| match *time {
        FAILED => None,
        Some(time) => Some(Map::from_iter([(LINE.to_owned(), json!(time))])),
        None => Some(Map::new()),
    };
    let variant = variant(Api::Raw, Mode::Write);
    let series = cases.iter().map(|(times, _)| Series {
        participant: Participant::Own(variant),
        rounds: times.iter().map(round).collect(),
    });
    let cell = Cell {
        workload: Workload::Stream,
        size: 64,
        count: 1,
    };
    let mut results = Results {
        cells: vec![Measured {
            cell,
            series: series.collect(),
        }],
        ..Results::default()
    };
    leave_out_far(&mut results, |time| time.is_none_or(|time| time <= 100.0));
    for ((times, expected), series) in cases.into_iter().zip(&results.cells[0].series) {
        let stays: Vec<bool> = series.rounds.iter().map(Option::is_some).collect();
        if stays != expected {
            return Err(failure(format_args!(
                "of rounds with the times {times:?} stay {stays:?}"
            )));
        }
    }
    Ok(())
}
