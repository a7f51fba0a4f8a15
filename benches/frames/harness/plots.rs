//! Selects the data of each plot. `chart` draws it.

use std::{collections::BTreeSet, fs, io, path::Path};

use serde_json::Value;

use super::{
    chart::{Axis, Chart, Line, Scale},
    figures::{Row, median},
    rounds::{Measured, Results, Series},
    table::size,
};
use crate::{
    failure::While,
    variants::{Api, Mode, Variant},
    workloads::Workload,
};

/// A participant whose fastest round trip is slower is named in the title, and not drawn.
const TOO_SLOW_US: f64 = 10_000.0;

/// The payload size of the stream whose states are drawn.
const STATES_OF: u32 = 64 << 10;

/// Up to 99.99 %: few participants make enough round trips for more.
const NINES_MAX: f64 = 4.01;

/// Draws all plots for which something was measured; returns their files.
pub(crate) fn draw(directory: &Path, results: &Results, rows: &[Row]) -> io::Result<Vec<String>> {
    fs::create_dir_all(directory).context(format_args!("creating {}", directory.display()))?;
    let mut charts = Vec::new();
    for measured in &results.cells {
        if measured.cell.workload == Workload::Latency {
            let bytes = measured.cell.size;
            charts.push((format!("latency-{bytes}.svg"), latency(measured)));
        }
    }
    for workload in [Workload::Stream, Workload::Lossless, Workload::Latest] {
        let name = workload.name();
        let counts: BTreeSet<u32> = of(rows, workload).map(|row| row.count).collect();
        for count in &counts {
            let file = match workload.count_means() {
                None => format!("{name}.svg"),
                Some(_) => format!("{name}-{count}.svg"),
            };
            charts.push((file, over_sizes(rows, workload, *count)));
        }
    }
    let is_typical = |measured: &&Measured| {
        let cell = measured.cell;
        (cell.workload, cell.size, cell.count) == (Workload::Stream, STATES_OF, 1)
    };
    if let Some(measured) = results.cells.iter().find(is_typical) {
        charts.push(("stream-states.svg".into(), states(measured)));
    }
    for workload in [Workload::FanOut, Workload::Mix] {
        let file = format!("{}.svg", workload.name());
        charts.push((file, over_counts(rows, workload)));
    }
    let mut files = Vec::new();
    for (name, chart) in charts {
        if chart.lines.iter().any(|line| line.points.len() > 1) {
            let path = directory.join(name);
            chart.draw(&path)?;
            files.push(path.display().to_string());
        }
    }
    Ok(files)
}

/// Round trip times by percentile.
fn latency(measured: &Measured) -> Chart {
    // One nine is one unit: 90 %, 99 %, 99.9 %.
    let nines = |percentile: f64| -(1.0 - percentile / 100.0).max(1e-5).log10();
    let mut lines = Vec::new();
    let mut title = format!("Round trip of {}", size(measured.cell.size));
    for series in &measured.series {
        // These lines nearly coincide with those of `handler` and `raw/spin`.
        let is_alike = |one: Variant| one.api == Api::Loop || one.mode == Mode::Watch;
        let is_alike = series.participant.variant().is_some_and(is_alike);
        let Some(points) = typical(series).filter(|_| !is_alike) else {
            continue;
        };
        let fastest = points.first().map_or(0.0, |(_, us)| *us);
        if fastest > TOO_SLOW_US {
            // It would compress the range of all other lines.
            title.push_str(&format!(
                "; not shown: {}, {:.0} ms",
                series.participant.name(),
                fastest / 1000.0
            ));
            continue;
        }
        let points = points
            .into_iter()
            .map(|(percentile, us)| (nines(percentile), us));
        lines.push(Line {
            name: series.participant.name(),
            points: points.filter(|(nines, _)| *nines <= NINES_MAX).collect(),
            has_markers: false,
        });
    }
    let ticks = [
        (0.0, "0"),
        (0.301, "50"),
        (1.0, "90"),
        (2.0, "99"),
        (3.0, "99.9"),
        (4.0, "99.99"),
    ];
    Chart {
        title,
        x: Axis {
            label: "percentile".into(),
            scale: Scale::Linear,
            ticks: ticks.map(|(at, label)| (at, label.to_owned())).into(),
        },
        y: Axis::log("microseconds"),
        lines,
    }
}

/// The percentiles of the round with the median of `rtt_p50_us`.
fn typical(series: &Series) -> Option<Vec<(f64, f64)>> {
    let p50 = |round: &serde_json::Map<String, Value>| round.get("rtt_p50_us")?.as_f64();
    let rounds = || series.rounds.iter().flatten();
    let middle = median(rounds().filter_map(p50).collect())?;
    let distance = |round: &serde_json::Map<String, Value>| {
        p50(round).map_or(f64::INFINITY, |value| (value - middle).abs())
    };
    let round = rounds().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let points = round.get("rtt_percentiles")?.as_array()?;
    let point = |point: &Value| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()?));
    Some(points.iter().filter_map(point).collect())
}

/// The rates of a stream in short intervals, sorted: two states are two levels.
fn states(measured: &Measured) -> Chart {
    let mut lines = Vec::new();
    for series in &measured.series {
        let of_round = |round: &serde_json::Map<String, Value>| {
            let rates = round.get("rates")?.as_array()?;
            Some(rates.iter().filter_map(Value::as_f64).collect::<Vec<_>>())
        };
        let rounds = series.rounds.iter().flatten();
        let mut rates: Vec<f64> = rounds.filter_map(of_round).flatten().collect();
        rates.sort_by(f64::total_cmp);
        let share = 100.0 / rates.len().max(1) as f64;
        let points = rates.iter().enumerate();
        lines.push(Line {
            name: series.participant.name(),
            points: points
                .map(|(at, rate)| ((at + 1) as f64 * share, rate / 1e9))
                .collect(),
            has_markers: false,
        });
    }
    Chart {
        title: format!(
            "Stream of {}: the rates of 50 ms each, sorted",
            size(measured.cell.size)
        ),
        x: Axis {
            label: "percent of the time".into(),
            scale: Scale::Linear,
            ticks: [0, 25, 50, 75, 100]
                .map(|at| (f64::from(at), at.to_string()))
                .into(),
        },
        y: Axis::log("GB a second over the loopback interface"),
        lines,
    }
}

/// The rows of a workload.
fn of(rows: &[Row], workload: Workload) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(move |row| row.workload == workload.name())
}

/// Throughput by the size of a frame, with so many frames per call.
fn over_sizes(rows: &[Row], workload: Workload, count: u32) -> Chart {
    let (metric, unit, label) = match workload {
        Workload::Stream => ("bytes_per_s", 1e9, "GB of payload a second"),
        _ => ("delivered_per_s", 1e3, "thousand frames delivered a second"),
    };
    let chosen = || of(rows, workload).filter(|row| row.metric == metric && row.count == count);
    let lines = lines(chosen(), |row| {
        (row.variant.clone(), (row.size.into(), row.value / unit))
    });
    let sizes: BTreeSet<u32> = chosen().map(|row| row.size).collect();
    Chart {
        title: match workload {
            Workload::Stream if count == 1 => "Stream: every frame, in order, one a call".into(),
            Workload::Stream => format!("Stream: every frame, in order, {count} a call"),
            Workload::Lossless => "One slot, the sender waits until it is free".into(),
            _ => "One slot, the sender never waits".into(),
        },
        x: Axis {
            label: "payload of a frame".into(),
            scale: Scale::Log,
            ticks: sizes
                .into_iter()
                .map(|bytes| (bytes.into(), size(bytes)))
                .collect(),
        },
        y: Axis::log(label),
        lines,
    }
}

/// A line over the counts for each variant: time per peer by the number of peers, or entries by those in flight.
fn over_counts(rows: &[Row], workload: Workload) -> Chart {
    let (metric, unit, title, [x, y]) = match workload {
        Workload::Mix => (
            "acknowledged_per_s",
            1e3,
            "Entries to two followers, which both acknowledge",
            ["entries in flight", "thousand entries a second"],
        ),
        _ => (
            "per_peer_p50_us",
            1.0,
            "One value of 64 B to many peers",
            ["peers", "microseconds for each peer"],
        ),
    };
    let chosen = || of(rows, workload).filter(|row| row.metric == metric);
    let counts: BTreeSet<u32> = chosen().map(|row| row.count).collect();
    Chart {
        title: title.into(),
        x: Axis {
            label: x.into(),
            scale: Scale::Log,
            ticks: counts
                .iter()
                .map(|n| ((*n).into(), n.to_string()))
                .collect(),
        },
        y: Axis::log(y),
        lines: lines(chosen(), |row| {
            (row.variant.clone(), (row.count.into(), row.value / unit))
        }),
    }
}

/// One line for each name, in order of appearance.
fn lines<'a>(
    rows: impl Iterator<Item = &'a Row>,
    point: impl Fn(&Row) -> (String, (f64, f64)),
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let (name, point) = point(row);
        let at = lines.iter().position(|line| line.name == name);
        let at = at.unwrap_or_else(|| {
            lines.push(Line {
                name,
                points: Vec::new(),
                has_markers: true,
            });
            lines.len() - 1
        });
        lines[at].points.push(point);
    }
    lines
}
