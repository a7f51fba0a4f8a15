//! Reads and writes the baseline: the counts in the repository, and the compiler that they were made with.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::{cases::Failure, counter::Count};

/// Accepted growth of a count of instructions, in percent.
const GROWTH_MAX: f64 = 5.0;

/// The same, with another compiler or target than the baseline's.
const GROWTH_ELSEWHERE_MAX: f64 = 25.0;

/// Accepted growth of system calls per frame. Some cases wake the loop only if it happens to block.
const CALLS_MORE_MAX: f64 = 0.05;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Baseline {
    #[serde(flatten)]
    pub(crate) made_with: MadeWith,
    /// Counts per frame, by case.
    pub(crate) cases: BTreeMap<String, Count>,
}

/// The compiler and the target. Counts can be compared exactly only if both are the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct MadeWith {
    pub(crate) rustc: String,
    pub(crate) target: String,
}

impl MadeWith {
    /// The present compiler and target.
    pub(crate) fn here() -> Result<Self, Failure> {
        let output = Command::new("rustc").arg("-vV").output()?;
        let text = String::from_utf8(output.stdout)?;
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
        match (field("release: "), field("host: ")) {
            (Some(rustc), Some(target)) => Ok(Self {
                rustc: rustc.to_owned(),
                target: target.to_owned(),
            }),
            _ => Err("rustc does not say its version".into()),
        }
    }

    /// Accepted growth of a count of instructions here, in percent.
    pub(crate) fn growth_max(&self, here: &Self) -> f64 {
        if self == here {
            GROWTH_MAX
        } else {
            GROWTH_ELSEWHERE_MAX
        }
    }
}

impl Baseline {
    /// The baseline; `None` if there is no file.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        match fs::read(path()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(_) => Ok(None),
        }
    }

    /// An error if the file cannot be written.
    pub(crate) fn check_writable() -> Result<(), Failure> {
        let path = path();
        let opened = fs::File::options().append(true).create(true).open(path);
        opened.map_err(|error| format!("--save: {}: {error}", path.display()))?;
        Ok(())
    }

    pub(crate) fn save(&self) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(fs::write(path(), text)?)
    }
}

fn path() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/instructions/baseline.json"
    ))
}

/// The change of a count since the baseline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) before: Count,
    /// Growth of instructions, in percent.
    pub(crate) growth: f64,
    pub(crate) more_calls: f64,
}

impl Change {
    pub(crate) fn of(before: Count, now: Count) -> Self {
        Self {
            before,
            growth: (now.instructions - before.instructions) / before.instructions * 100.0,
            more_calls: now.system_calls - before.system_calls,
        }
    }

    /// `slack`: additional accepted growth of this case, in percent, since it depends on thread scheduling.
    pub(crate) fn is_too_much(&self, growth_max: f64, slack: f64) -> bool {
        self.growth > growth_max + slack || self.more_calls > CALLS_MORE_MAX + slack / 100.0
    }
}
