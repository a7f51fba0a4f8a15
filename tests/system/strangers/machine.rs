//! What the system says about a process: its memory and its descriptors; and what it grants: how many of these, and when it
//! has a processor.
//!
//! Nothing here judges.

use std::{fs, process::Command};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    /// The most since it was started.
    pub(crate) peak: u64,
}

pub(crate) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("proc(5) tells it so")
            << 10
    };
    Memory {
        now: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}

/// What is open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it lives, and is ours")
        .count()
}

/// Lets a running process have so many descriptors.
pub(crate) fn limit_descriptors(pid: u32, count: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={count}:")])
        .status()
        .expect("`prlimit` is needed (Debian: util-linux)");
    assert!(status.success(), "prlimit: {status}");
}

/// Whether all threads of a process get a processor before those of others from now on, which not everybody may have, or like
/// those of others.
pub(crate) fn prefer(pid: u32, yes: bool) -> bool {
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
