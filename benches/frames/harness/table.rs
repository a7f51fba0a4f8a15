//! Formats the figures as tables, at most 100 columns wide.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::figures::Row;
use crate::{
    metrics::{CALLS, Metric, PATH, WATCHED},
    workloads::Workload,
};

/// The table of a workload; `None` if it was not measured.
pub(crate) fn of_workload(workload: Workload, rows: &[Row]) -> Option<String> {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.workload == workload.name())
        .collect();
    let mut names = Vec::new();
    if workload.has_sizes() {
        names.push(Name::Size);
    }
    names.extend(workload.count_means().map(Name::Count));
    names.push(Name::Variant);
    let table = table(&names, &columns(workload, &rows), &rows)?;
    Some(format!("{}\n{table}\n", workload.title()))
}

/// The table of system calls; `None` if none were counted.
pub(crate) fn of_calls(rows: &[Row]) -> Option<String> {
    let rows: Vec<&Row> = rows.iter().collect();
    let names = [
        Name::Workload,
        Name::Size,
        Name::Count("count"),
        Name::Variant,
    ];
    let table = table(&names, &CALLS, &rows)?;
    Some(format!(
        "system calls and wake-ups of both ends together, from one traced round\n{table}\n"
    ))
}

/// The table of what is seen of streams from outside; `None` if nothing was.
pub(crate) fn of_watched(rows: &[Row]) -> Option<String> {
    let rows: Vec<&Row> = rows.iter().collect();
    let count = Workload::Stream.count_means().unwrap_or_default();
    let names = [Name::Size, Name::Count(count), Name::Variant];
    let table = table(&names, &WATCHED, &rows)?;
    Some(format!(
        "stream, seen from outside: bytes between the two ends, how often each end sleeps, page faults of both\n{table}\n"
    ))
}

/// The table of what is seen of delayed paths; `None` if nothing was.
pub(crate) fn of_paths(rows: &[Row]) -> Option<String> {
    let rows: Vec<&Row> = rows.iter().collect();
    let count = Workload::Delayed.count_means().unwrap_or_default();
    let names = [Name::Size, Name::Count(count), Name::Variant];
    let table = table(&names, &PATH, &rows)?;
    Some(format!(
        "delayed, the path: by how much it delivers packets too late, and whether processors are the limit instead\n{table}\n"
    ))
}

/// The columns that identify a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Workload,
    Size,
    Count(&'static str),
    Variant,
}

impl Name {
    fn title(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Size => "size",
            Self::Count(means) => means,
            Self::Variant => "variant",
        }
    }

    fn of(self, row: &Row) -> String {
        match self {
            Self::Workload => row.workload.into(),
            Self::Size => size(row.size),
            Self::Count(_) => row.count.to_string(),
            Self::Variant => row.variant.clone(),
        }
    }
}

fn table(names: &[Name], columns: &[Metric], rows: &[&Row]) -> Option<Table> {
    // With one round there is no range.
    let has_range = rows.iter().any(|row| row.min < row.max);
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header(names, columns, has_range));
    let mut last = None;
    for row in rows {
        let key = (row.workload, row.size, row.count, &row.variant);
        if last.replace(key) == Some(key) {
            continue;
        }
        let is_of_this =
            |other: &&&Row| (other.workload, other.size, other.count, &other.variant) == key;
        let figures: Vec<&Row> = rows.iter().filter(is_of_this).copied().collect();
        let mut line: Vec<String> = names.iter().map(|name| name.of(row)).collect();
        line.extend(cells(columns, &figures, has_range));
        table.add_row(line);
    }
    if table.row_count() == 0 {
        return None;
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if !matches!(names.get(at), Some(Name::Variant | Name::Workload)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Some(table)
}

/// The metrics of which there is a figure.
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

fn header(names: &[Name], columns: &[Metric], has_range: bool) -> Vec<String> {
    let mut header: Vec<String> = names.iter().map(|name| name.title().into()).collect();
    for (at, metric) in columns.iter().enumerate() {
        header.extend(metric.column.map(str::to_owned));
        if at == 0 {
            header.extend(has_range.then(|| "min-max".into()));
            header.push("x raw".into());
        }
    }
    header
}

fn cells(columns: &[Metric], figures: &[&Row], has_range: bool) -> Vec<String> {
    let mut cells = Vec::new();
    for (at, metric) in columns.iter().enumerate() {
        let figure = figures.iter().find(|row| row.metric == metric.key);
        let text = |value: Option<f64>| value.map_or_else(String::new, short);
        cells.push(text(figure.map(|row| row.value / metric.unit)));
        if at == 0 {
            let range = |row: &&Row| {
                let [min, max] = [row.min, row.max].map(|value| short(value / metric.unit));
                format!("{min}-{max}")
            };
            cells.extend(has_range.then(|| figure.map_or_else(String::new, range)));
            cells.push(text(figure.and_then(|row| row.ratio)));
        }
    }
    cells
}

/// `64 B`, `16 KiB`.
pub(crate) fn size(bytes: u32) -> String {
    if bytes >= 1 << 10 && bytes % (1 << 10) == 0 {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{bytes} B")
    }
}

/// A number with about three digits.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        x if x < 0.01 => 5,
        x if x < 0.1 => 3,
        x if x < 10.0 => 2,
        x if x < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}
