//! The tables that people read, at most 100 columns wide.
//!
//! Nothing here is computed beyond rounding.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::figures::Row;
use crate::workloads::{Metric, Workload};

/// The table of a workload; nothing if it was not measured.
pub(crate) fn table(workload: Workload, rows: &[Row]) -> Option<String> {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.workload == workload.name())
        .collect();
    let columns = columns(workload, &rows);
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header(workload, &columns));
    let mut last = None;
    for row in &rows {
        let key = (row.size, row.count, &row.variant);
        if last.replace(key) == Some(key) {
            continue;
        }
        let of_this = |other: &&&Row| (other.size, other.count, &other.variant) == key;
        let figures: Vec<&Row> = rows.iter().filter(of_this).copied().collect();
        table.add_row(line(workload, row, &columns, &figures));
    }
    if table.row_count() == 0 {
        return None;
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        let is_name = at == 1 + usize::from(workload.count_means().is_some());
        if !is_name {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Some(format!("{}\n{table}\n", workload.title()))
}

/// The metrics that somebody has a figure of.
fn columns(workload: Workload, rows: &[&Row]) -> Vec<Metric> {
    let mut columns: Vec<Metric> = Vec::new();
    let own = workload.variants();
    for metric in own.iter().flat_map(|variant| workload.metrics_of(*variant)) {
        let is_new = !columns.iter().any(|column| column.key == metric.key);
        let is_there = rows.iter().any(|row| row.metric == metric.key);
        if metric.column.is_some() && is_new && is_there {
            columns.push(*metric);
        }
    }
    columns
}

fn header(workload: Workload, columns: &[Metric]) -> Vec<String> {
    let mut header = vec!["size".to_owned()];
    header.extend(workload.count_means().map(str::to_owned));
    header.push("variant".into());
    for (at, metric) in columns.iter().enumerate() {
        header.extend(metric.column.map(str::to_owned));
        if at == 0 {
            header.extend(["min - max".into(), "x raw".into()]);
        }
    }
    header
}

fn line(workload: Workload, first: &Row, columns: &[Metric], figures: &[&Row]) -> Vec<String> {
    let mut line = vec![size(first.size)];
    line.extend(workload.count_means().map(|_| first.count.to_string()));
    line.push(first.variant.clone());
    for (at, metric) in columns.iter().enumerate() {
        let figure = figures.iter().find(|row| row.metric == metric.key);
        let text = |value: Option<f64>| value.map_or_else(String::new, short);
        line.push(text(figure.map(|row| row.value / metric.unit)));
        if at == 0 {
            let range = |row: &&&Row| {
                let [min, max] = [row.min, row.max].map(|value| short(value / metric.unit));
                format!("{min} - {max}")
            };
            line.push(figure.as_ref().map_or_else(String::new, range));
            line.push(text(figure.and_then(|row| row.ratio)));
        }
    }
    line
}

/// `64 B`, `16 KiB`.
pub(crate) fn size(bytes: u32) -> String {
    if bytes >= 1 << 10 && bytes % (1 << 10) == 0 {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{bytes} B")
    }
}

/// About three digits.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        x if x < 10.0 => 2,
        x if x < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}
