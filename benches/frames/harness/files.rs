//! The files that are asked for: tried before anything is measured, written afterwards.
//!
//! What is in them is made by `json` and `plots`.

use std::{fs, io, path::Path, process};

use super::{figures::Row, json, machine::Record, plots, rounds::Results};
use crate::{
    cli::Run,
    failure::{While, failure},
};

/// An error if one of them could not be written now. Leaves what is there as it is.
pub(crate) fn check(run: &Run) -> io::Result<()> {
    if let Some(path) = &run.json {
        check_file(path).context(format_args!("--json {}", path.display()))?;
    }
    if let Some(directory) = &run.plot {
        let doing = format!("--plot {}", directory.display());
        fs::create_dir_all(directory).context(&doing)?;
        let trial = directory.join(format!(".frames-{}", process::id()));
        check_file(&trial).context(&doing)?;
    }
    Ok(())
}

fn check_file(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    fs::File::options().append(true).create(true).open(path)?;
    if is_new {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Writes them all; what there is to say about each. Also after one that failed the others are written.
pub(crate) fn write(
    run: &Run,
    record: &Record,
    results: &Results,
    rows: &[Row],
    calls: &[Row],
) -> (Vec<String>, io::Result<()>) {
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    if let Some(directory) = &run.plot {
        match plots::draw(directory, results, rows) {
            Ok(files) => said.extend(files.iter().map(|file| format!("plot: {file}"))),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Some(path) = &run.json {
        match json::write(path, record, rows.iter().chain(calls)) {
            Ok(()) => said.push(format!("figures: {}", path.display())),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let written = if errors.is_empty() {
        Ok(())
    } else {
        Err(failure(errors.join("\n")))
    };
    (said, written)
}
