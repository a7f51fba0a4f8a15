//! The table of the siege, as people read it.
//!
//! Nothing here is computed beyond percentiles and their ratios.

use comfy_table::{CellAlignment, Table, presets};

use crate::siege::{Laps, Row};

pub(crate) fn of(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "attack",
        "done",
        "at once",
        "p50, p99 quiet",
        "attacked",
        "p99 x",
        "a bare socket is",
        "p99 x",
        "attacked, preferred",
        "p99 x",
        "lost",
        "memory, of promised",
    ]);
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            row.done.to_string(),
            row.held.to_string(),
            both(&row.quiet),
            both(&row.loud),
            ratio(&row.quiet, &row.loud),
            both(&row.spared),
            ratio(&row.quiet, &row.spared),
            both(&row.preferred),
            ratio(&row.quiet, &row.preferred),
            row.lost().to_string(),
            format!("{} of {} MiB", row.grown >> 20, row.ceiling >> 20),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nround trips among the members in microseconds")
}

fn both(laps: &Laps) -> String {
    format!("{}, {}", micros(laps, 50), micros(laps, 99))
}

fn micros(laps: &Laps, percent: usize) -> String {
    percentile(laps, percent).map_or_else(|| "-".into(), |micros| micros.to_string())
}

fn ratio(quiet: &Laps, loud: &Laps) -> String {
    match (percentile(quiet, 99), percentile(loud, 99)) {
        (Some(quiet), Some(loud)) => format!("{:.1}", loud as f64 / quiet.max(1) as f64),
        _ => "-".into(),
    }
}

fn percentile(laps: &Laps, percent: usize) -> Option<u64> {
    let mut micros = laps.micros.clone();
    micros.sort_unstable();
    micros.get(micros.len() * percent / 100).copied()
}
