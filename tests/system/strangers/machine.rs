//! Reads the memory and the descriptors of a process, and sets its limit of descriptors and its scheduling policy.

use std::{fs, process::Command};

use support::process::ProcessResources;

/// The resources of a process now.
pub(crate) fn resources(pid: u32) -> ProcessResources {
    ProcessResources::of(pid).expect("the process runs, and is ours")
}

/// The maximum of its memory since its start, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = peak.and_then(|kib| kib.trim().parse().ok());
    kib.expect("the field has the format of proc(5)") << 10
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
