//! Writes the JSON file: a list of rows. The first row is the record of the machine and the settings.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use super::{figures::Row, machine::Record};
use crate::failure::While;

pub(crate) fn write<'a>(
    path: &Path,
    record: &Record,
    rows: impl Iterator<Item = &'a Row>,
) -> io::Result<()> {
    let first = json!({
        "workload": "record", "variant": "", "size": 0, "count": 0, "metric": "record",
        "value": null, "min": null, "max": null, "limit": null, "ratio": null, "peers": {},
        "record": record.to_json(),
    });
    let mut text = String::from("[\n");
    text.push_str(&first.to_string());
    for row in rows {
        let row = serde_json::to_value(row).unwrap_or(Value::Null);
        text.push_str(",\n");
        text.push_str(&row.to_string());
    }
    text.push_str("\n]\n");
    fs::write(path, text).context(format_args!("writing {}", path.display()))
}
