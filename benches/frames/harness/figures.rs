//! Computes figures from the rounds: medians, extremes, ratios to the limit of the same round, and the figures of other programs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    plan::Participant,
    rounds::{Measured, Series},
};
use crate::metrics::Metric;

/// One figure, a row of the file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) variant: String,
    pub(crate) size: u32,
    /// Peers, idle links, managers, frames per call, entries in flight; 0 if there is no such number.
    pub(crate) count: u32,
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The value of bare sockets, or of what else the variant is compared to: `Workload::limit`.
    pub(crate) limit: Option<f64>,
    /// Median of the ratios to that in each round.
    pub(crate) ratio: Option<f64>,
    /// The values of other programs, by name; only in rows of the library.
    pub(crate) peers: Map<String, Value>,
}

/// All figures of a cell.
pub(crate) fn rows(measured: &Measured) -> Vec<Row> {
    rows_of(measured, |participant| {
        participant.variant().map_or_else(
            || measured.cell.workload.metrics(),
            |variant| measured.cell.workload.metrics_of(variant),
        )
    })
}

/// These figures of a cell.
pub(crate) fn rows_of(
    measured: &Measured,
    metrics: impl Fn(&Participant) -> &'static [Metric],
) -> Vec<Row> {
    let mut rows = Vec::new();
    for series in &measured.series {
        let metrics = metrics(&series.participant);
        rows.extend(
            metrics
                .iter()
                .filter_map(|metric| row(measured, series, metric)),
        );
    }
    rows
}

fn row(measured: &Measured, series: &Series, metric: &Metric) -> Option<Row> {
    let cell = measured.cell;
    let values: Vec<f64> = values(series, metric.key).flatten().collect();
    let value = median(values.clone())?;
    let limit = cell
        .workload
        .limit(series.participant.variant())
        .filter(|_| metric.has_limit)
        .and_then(|limit| {
            let is_it = |series: &&Series| series.participant.variant() == Some(limit);
            measured.series.iter().find(is_it)
        });
    let ratios = limit.into_iter().flat_map(|limit| {
        let both = self::values(series, metric.key).zip(self::values(limit, metric.key));
        both.filter_map(|(own, limit)| Some(own? / limit.filter(|limit| *limit > 0.0)?))
    });
    let mut peers = Map::new();
    if series.participant.is_ours() {
        for other in &measured.series {
            let Participant::Contender(contender) = &other.participant else {
                continue;
            };
            let values = self::values(other, metric.key).flatten().collect();
            if let Some(value) = median(values) {
                peers.insert(contender.name.clone(), json!(value));
            }
        }
    }
    Some(Row {
        workload: cell.workload.name(),
        variant: series.participant.name(),
        size: cell.size,
        count: cell.count,
        metric: metric.key,
        value,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        limit: limit.and_then(|limit| median(self::values(limit, metric.key).flatten().collect())),
        ratio: median(ratios.collect()),
        peers,
    })
}

/// The values of a metric, round by round.
fn values(series: &Series, key: &'static str) -> impl Iterator<Item = Option<f64>> {
    series
        .rounds
        .iter()
        .map(move |round| round.as_ref()?.get(key)?.as_f64())
}

/// The median: the value in the middle, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[middle - 1], upper))
}
