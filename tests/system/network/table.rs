//! What was measured, as a table: printed, and a file under target/tmp.
//!
//! Nothing here judges a figure.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Mutex, time::Duration};

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use crate::quorum::{CONGESTION_CONTROL, Recovery};

static ROWS: Mutex<BTreeMap<(usize, String), Figures>> = Mutex::new(BTreeMap::new());
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Figures {
    noticed: Vec<Duration>,
    linked: Vec<Duration>,
    through: Vec<Duration>,
}

/// A fault among so many members, one round of it.
pub(crate) fn record(fault: &str, members: usize, noticed: Option<Duration>, recovery: Recovery) {
    let mut rows = ROWS.lock().unwrap();
    let figures = rows.entry((members, fault.to_owned())).or_default();
    figures.noticed.extend(noticed);
    figures.linked.push(recovery.linked);
    figures.through.push(recovery.through);
}

/// A line below the table.
pub(crate) fn note(text: String) {
    NOTES.lock().unwrap().push(text);
}

fn median_and_most(times: &mut [Duration]) -> String {
    times.sort_unstable();
    match times {
        [] => "-".into(),
        [one] => format!("{:.2}", one.as_secs_f64()),
        _ => {
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            format!("{:.2} / {:.2}", median.as_secs_f64(), most.as_secs_f64())
        }
    }
}

/// Prints the table and writes it. Whoever failed has no row.
pub(crate) fn finish() {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "fault",
        "members",
        "rounds",
        "dead noticed after, s",
        "all linked again after, s",
        "frames on every way after, s",
    ]);
    let mut rows = ROWS.lock().unwrap();
    for ((members, fault), figures) in rows.iter_mut() {
        table.add_row([
            fault.clone(),
            members.to_string(),
            figures.linked.len().to_string(),
            median_and_most(&mut figures.noticed),
            median_and_most(&mut figures.linked),
            median_and_most(&mut figures.through),
        ]);
    }
    let notes = NOTES.lock().unwrap();
    if rows.is_empty() && notes.is_empty() {
        return;
    }
    let mut text = format!(
        "{table}\n\nMedian / most of all rounds, each of which counts its slowest pair. In every round: 0 frames lost that may not \
         be lost, 0 torn, 0 older after newer, 0 links doubled or missing; who breaks one of these has failed and has no row. \
         Congestion control: {CONGESTION_CONTROL}.\n"
    );
    for note in notes.iter() {
        text.push_str(note);
        text.push('\n');
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("network.md");
    println!("\n{text}");
    match fs::write(&path, &text) {
        Ok(()) => println!("network: this table is in {}", path.display()),
        Err(error) => println!(
            "network: the table cannot be written to {}: {error}",
            path.display()
        ),
    }
}
