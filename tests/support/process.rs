//! What a process holds, as Linux tells it: resident memory and descriptors. And how many of the latter it may have.
//!
//! Nothing here is done to any process but this one.

use std::{fmt, fs};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::eventually;

/// What a process has at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub resident: u64,
    pub descriptors: usize,
}

impl Holdings {
    /// Those of this process.
    pub fn own() -> Self {
        Self::of(std::process::id()).expect("Linux tells a process about itself")
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

    /// How much resident memory has been added since.
    pub fn growth_since(self, before: Self) -> u64 {
        self.resident.saturating_sub(before.resident)
    }
}

impl fmt::Display for Holdings {
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

/// Waits until this process has as few descriptors as before.
#[track_caller]
pub fn wait_descriptors(before: Holdings) {
    let mut now = before;
    eventually("no descriptor is left", || {
        now = Holdings::own();
        now.descriptors <= before.descriptors
    });
}

/// Lets this process have so many descriptors.
#[track_caller]
pub fn need_descriptors(count: u64) {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if now < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap_or_else(|error| {
            panic!("NOT RUN: this test needs {count} descriptors (`ulimit -H -n`): {error}")
        });
    }
}
