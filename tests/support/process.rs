//! Resident memory and descriptors of a process, from `/proc`, and the limit of descriptors.
//!
//! Nothing here changes another process.

use std::{fmt, fs};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::eventually;

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessResources {
    pub resident: u64,
    pub descriptors: usize,
}

impl ProcessResources {
    /// Those of this process.
    pub fn own() -> Self {
        Self::of(std::process::id()).expect("/proc has this process")
    }

    /// Those of another process; `None` when it has ended.
    pub fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(Self {
            resident: kilobytes << 10,
            descriptors: fs::read_dir(format!("/proc/{process}/fd")).ok()?.count(),
        })
    }

    /// Resident memory that has been added since `before`.
    pub fn growth_since(self, before: Self) -> u64 {
        self.resident.saturating_sub(before.resident)
    }
}

impl fmt::Display for ProcessResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MiB, {} descriptors",
            mebibytes(self.resident),
            self.descriptors
        )
    }
}

pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Waits until this process has no more descriptors than before.
#[track_caller]
pub fn wait_descriptors(before: ProcessResources) {
    let mut now = before;
    eventually("all descriptors are closed", || {
        now = ProcessResources::own();
        now.descriptors <= before.descriptors
    });
}

/// Raises the limit of descriptors of this process to `count`. Root may raise the hard limit as well.
#[track_caller]
pub fn need_descriptors(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)).unwrap_or_else(|error| {
            panic!(
                "this test needs {count} descriptors, and at most {hard} are allowed ({error}): as root, run \
                 `prlimit --nofile={count}:{count} --pid PID` with the PID of this shell"
            )
        });
    }
}
