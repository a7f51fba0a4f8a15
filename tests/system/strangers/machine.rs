//! Reads the memory and the descriptors of a process, and sets its limit of descriptors and its scheduling policy.

use std::{fs, process::Command};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    /// The maximum since its start.
    pub(crate) peak: u64,
}

pub(crate) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("the field has the format of proc(5)")
            << 10
    };
    Memory {
        now: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}

/// The number of its open descriptors.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs, and is ours")
        .count()
}

/// Sets the limit of descriptors of a running process.
pub(crate) fn limit_descriptors(pid: u32, count: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={count}:")])
        .status()
        .expect("`prlimit` is needed (Debian: util-linux)");
    assert!(status.success(), "prlimit: {status}");
}

/// Gives all threads of a process real-time priority, or the default policy again. Returns false without the permission.
pub(crate) fn set_real_time(pid: u32, yes: bool) -> bool {
    let policy = if yes {
        ["--fifo", "1"]
    } else {
        ["--other", "0"]
    };
    Command::new("chrt")
        .args(["--all-tasks", "--pid", policy[0], policy[1]])
        .arg(pid.to_string())
        .output()
        .expect("`chrt` is needed (Debian: util-linux)")
        .status
        .success()
}
