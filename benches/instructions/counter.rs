//! Counts instructions: this program once more, under valgrind, with one case and a number of frames.
//!
//! What a case sets up, the start of the program and its end are the same for n and for 2 n frames; the difference of the
//! two is n frames.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::cases::{Case, Failure};

/// The cheapest tool of valgrind that counts.
const TOOL: [&str; 3] = [
    "--tool=cachegrind",
    "--cache-sim=no",
    "--cachegrind-out-file=/dev/null",
];

/// Whether there is a valgrind, and which.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| said.trim().to_owned())
}

/// Instructions for each frame.
pub(crate) fn per_frame(case: &Case) -> Result<f64, Failure> {
    let once = total(case, case.frames)?;
    let twice = total(case, 2 * case.frames)?;
    Ok((twice as f64 - once as f64) / case.frames as f64)
}

/// All instructions of a process that does nothing else.
fn total(case: &Case, frames: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .args(TOOL)
        .arg(env::current_exe()?)
        .args(["--case", case.name, "--frames", &frames.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} under valgrind: {said}", case.name).into());
    }
    // "==1== I   refs:      1,234,567", or "I refs:" in newer ones.
    let count = said
        .lines()
        .filter(|line| line.contains("refs:") && line.contains("I "))
        .find_map(|line| line.rsplit(':').next())
        .map(|number| number.replace([',', ' '], ""));
    let count = count.and_then(|count| count.parse().ok());
    count.ok_or_else(|| format!("valgrind gives no count: {said}").into())
}
