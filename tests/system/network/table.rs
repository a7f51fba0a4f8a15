//! A table of the measurements: printed, and written to `target/figures`.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use support::figures::ResultTable;

use crate::quorum::{CONGESTION_CONTROL, Recovery};

static ROWS: Mutex<BTreeMap<(usize, String), Figures>> = Mutex::new(BTreeMap::new());
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Figures {
    noticed: Vec<Duration>,
    linked: Vec<Duration>,
    through: Vec<Duration>,
}

/// Adds one round of a fault in a mesh of so many members.
pub(crate) fn record(fault: &str, members: usize, noticed: Option<Duration>, recovery: Recovery) {
    let mut rows = ROWS.lock().unwrap();
    let figures = rows.entry((members, fault.to_owned())).or_default();
    figures.noticed.extend(noticed);
    figures.linked.push(recovery.linked);
    figures.through.push(recovery.through);
}

/// Adds a line below the table.
pub(crate) fn note(text: String) {
    NOTES.lock().unwrap().push(text);
}

fn median_and_max(times: &mut [Duration]) -> String {
    times.sort_unstable();
    match times {
        [] => "-".into(),
        [one] => format!("{:.2}", one.as_secs_f64()),
        _ => {
            let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
            format!("{:.2} / {:.2}", median.as_secs_f64(), max.as_secs_f64())
        }
    }
}

/// Prints the table and writes it. A failed round has no row.
pub(crate) fn finish() {
    let (mut rows, notes) = (ROWS.lock().unwrap(), NOTES.lock().unwrap());
    if rows.is_empty() && notes.is_empty() {
        return;
    }
    let mut table = ResultTable::new(
        "network",
        &[
            "fault",
            "members",
            "rounds",
            "dead noticed after, s",
            "all linked again after, s",
            "frames in every direction after, s",
        ],
    );
    for ((members, fault), figures) in rows.iter_mut() {
        table.row([
            fault.clone(),
            members.to_string(),
            figures.linked.len().to_string(),
            median_and_max(&mut figures.noticed),
            median_and_max(&mut figures.linked),
            median_and_max(&mut figures.through),
        ]);
    }
    table.tell();
    println!(
        "Median / maximum of all rounds; a round counts its slowest pair. In every round: 0 frames lost that must not be lost, 0 \
         torn, 0 older after newer, 0 links doubled or missing. A round that breaks one of these has failed, and has no row. \
         Congestion control: {CONGESTION_CONTROL}."
    );
    for note in notes.iter() {
        println!("{note}");
    }
}
