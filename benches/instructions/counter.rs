//! Counts instructions and system calls: runs this program under valgrind, with one case and a number of frames.
//!
//! The setup of a case, and the start and end of the program, are the same for n and for 2 n frames. The difference of the two
//! counts is that of n frames.

use std::{
    env,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::cases::{Case, Failure};

/// The tool of valgrind that counts both. It does not count the instructions of the kernel: a system call of a hundred nanoseconds
/// counts as twenty instructions. So system calls are counted separately.
const TOOL: [&str; 3] = [
    "--tool=callgrind",
    "--collect-systime=msec",
    "--callgrind-out-file=/dev/null",
];

/// Counts per frame.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Count {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
}

/// The version of valgrind; `None` if it is not installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| version.trim().to_owned())
}

/// Counts per frame of a case.
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

/// All instructions and system calls of a process that runs this case only.
fn total(case: &Case, frames: u64) -> Result<[f64; 2], Failure> {
    let output = Command::new("valgrind")
        .args(TOOL)
        .arg(env::current_exe()?)
        .args(["--case", case.name, "--frames", &frames.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} under valgrind: {stderr}", case.name).into());
    }
    // "==1== Collected : 1234567 21 3", in the order of "==1== Events    : Ir sysCount sysTime".
    let counts = stderr
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, counts)| {
            let mut counts = counts.split_whitespace().map(str::parse);
            Some([counts.next()?.ok()?, counts.next()?.ok()?])
        });
    counts.ok_or_else(|| format!("valgrind prints no count: {stderr}").into())
}
