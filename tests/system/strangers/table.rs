//! Formats the results as a table.

use support::figures::ResultTable;

use crate::attack_test::{RoundTrips, Row};

pub(crate) fn new() -> ResultTable {
    ResultTable::new(
        "strangers",
        &[
            "attack",
            "count",
            "at the same time",
            "p50, p99 us of round trips without attack",
            "under attack",
            "p99 x",
            "bare socket under attack",
            "p99 x",
            "under attack, real-time",
            "p99 x",
            "lost",
            "memory, of maximum",
        ],
    )
}

pub(crate) fn cells(row: &Row) -> [String; 12] {
    [
        row.name.to_owned(),
        row.done.to_string(),
        row.held.to_string(),
        percentiles(&row.idle),
        percentiles(&row.attacked),
        ratio(&row.idle, &row.attacked),
        percentiles(&row.bare_attacked),
        ratio(&row.idle, &row.bare_attacked),
        percentiles(&row.real_time),
        ratio(&row.idle, &row.real_time),
        row.lost().to_string(),
        format!("{} of {} MiB", row.grown >> 20, row.ceiling >> 20),
    ]
}

fn percentiles(laps: &RoundTrips) -> String {
    format!("{}, {}", micros(laps, 50), micros(laps, 99))
}

fn micros(laps: &RoundTrips, percent: usize) -> String {
    percentile(laps, percent).map_or_else(|| "-".into(), |micros| micros.to_string())
}

fn ratio(idle: &RoundTrips, attacked: &RoundTrips) -> String {
    match (percentile(idle, 99), percentile(attacked, 99)) {
        (Some(idle), Some(attacked)) => format!("{:.1}", attacked as f64 / idle.max(1) as f64),
        _ => "-".into(),
    }
}

fn percentile(laps: &RoundTrips, percent: usize) -> Option<u64> {
    let mut micros = laps.micros.clone();
    micros.sort_unstable();
    micros.get(micros.len() * percent / 100).copied()
}
