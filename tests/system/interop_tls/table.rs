//! A table of what was seen: printed, and written to `target/figures`.

use std::{collections::BTreeSet, sync::Mutex};

use support::figures::ResultTable;

use crate::release;

static ROWS: Mutex<BTreeSet<[String; 3]>> = Mutex::new(BTreeSet::new());

/// Adds a row: how the real server is configured, what ours does, and what was seen. It is written only after it was checked.
pub(crate) fn record(real: &str, ours: &str, seen: &str) {
    let row = [real, ours, seen].map(str::to_owned);
    ROWS.lock().unwrap().insert(row);
}

pub(crate) fn finish() {
    let rows = ROWS.lock().unwrap();
    if rows.is_empty() {
        return;
    }
    let name = format!("interop-tls-{}", release::text());
    let real = format!("ZooKeeper {}", release::text());
    let mut table = ResultTable::new(name.leak(), &[&real, "ours", "seen"]);
    for row in &*rows {
        table.row(row.clone());
    }
    table.tell();
}
