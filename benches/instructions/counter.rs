//! Counts instructions and system calls: this program once more, under valgrind, with one case and a number of frames.
//!
//! What a case sets up, the start of the program and its end are the same for n and for 2 n frames; the difference of the
//! two is n frames.

use std::{
    env,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::cases::{Case, Failure};

/// The tool of valgrind that counts both. The instructions of the kernel are not among them: a call that costs a hundred
/// nanoseconds is twenty instructions here, and so is counted apart.
const TOOL: [&str; 3] = [
    "--tool=callgrind",
    "--collect-systime=msec",
    "--callgrind-out-file=/dev/null",
];

/// What a frame takes, or what is kept of it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Count {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
}

/// Whether there is a valgrind, and which.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| said.trim().to_owned())
}

/// What each frame takes.
pub(crate) fn per_frame(case: &Case) -> Result<Count, Failure> {
    let once = total(case, case.frames)?;
    let twice = total(case, 2 * case.frames)?;
    let [instructions, system_calls] =
        [0, 1].map(|event| (twice[event] - once[event]) / case.frames as f64);
    Ok(Count {
        instructions,
        system_calls,
    })
}

/// All instructions and all system calls of a process that does nothing else.
fn total(case: &Case, frames: u64) -> Result<[f64; 2], Failure> {
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
    // "==1== Collected : 1234567 21 3", in the order of "==1== Events    : Ir sysCount sysTime".
    let counts = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, counts)| {
            let mut counts = counts.split_whitespace().map(str::parse);
            Some([counts.next()?.ok()?, counts.next()?.ok()?])
        });
    counts.ok_or_else(|| format!("valgrind gives no count: {said}").into())
}
