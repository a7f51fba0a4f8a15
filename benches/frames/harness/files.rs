//! Checks before measuring that the output files can be written, and writes them afterwards. `json` and `plots` make their contents.

use std::{fs, io, path::Path, process};

use super::{figures::Row, json, machine::Record, plots, rounds::Results};
use crate::{
    cli::Run,
    failure::{While, failure},
};

/// An error if one of the files cannot be written. Existing files are not changed.
pub(crate) fn check(run: &Run) -> io::Result<()> {
    if let Some(path) = &run.json {
        check_file(path).context(format_args!("--json {}", path.display()))?;
    }
    if let Some(directory) = &run.plot {
        let doing = format!("--plot {}", directory.display());
        fs::create_dir_all(directory).context(&doing)?;
        let probe = directory.join(format!(".frames-{}", process::id()));
        check_file(&probe).context(&doing)?;
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

/// Writes all files, also after one that failed. Returns a line to print for each, and the errors.
pub(crate) fn write(
    run: &Run,
    record: &Record,
    results: &Results,
    rows: &[Row],
    more: &[Row],
) -> (Vec<String>, io::Result<()>) {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    if let Some(directory) = &run.plot {
        match plots::draw(directory, results, rows) {
            Ok(files) => lines.extend(files.iter().map(|file| format!("plot: {file}"))),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Some(path) = &run.json {
        match json::write(path, record, rows.iter().chain(more)) {
            Ok(()) => lines.push(format!("figures: {}", path.display())),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let written = if errors.is_empty() {
        Ok(())
    } else {
        Err(failure(errors.join("\n")))
    };
    (lines, written)
}
