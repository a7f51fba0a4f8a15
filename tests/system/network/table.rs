//! A table of the measurements: printed, and written to a file under target/tmp.

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
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "fault",
        "members",
        "rounds",
        "dead noticed after, s",
        "all linked again after, s",
        "frames in every direction after, s",
    ]);
    let mut rows = ROWS.lock().unwrap();
    for ((members, fault), figures) in rows.iter_mut() {
        table.add_row([
            fault.clone(),
            members.to_string(),
            figures.linked.len().to_string(),
            median_and_max(&mut figures.noticed),
            median_and_max(&mut figures.linked),
            median_and_max(&mut figures.through),
        ]);
    }
    let notes = NOTES.lock().unwrap();
    if rows.is_empty() && notes.is_empty() {
        return;
    }
    let mut text = format!(
        "{table}\n\nMedian / maximum of all rounds; a round counts its slowest pair. In every round: 0 frames lost that must not be \
         lost, 0 torn, 0 older after newer, 0 links doubled or missing. A round that breaks one of these has failed, and has no row. \
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
