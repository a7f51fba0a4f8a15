//! The counts that are kept in the repository, and what they were counted with.
//!
//! Nothing here counts.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::{cases::Failure, counter::Count};

/// What a count may grow by, in percent.
const GROWTH_MAX: f64 = 5.0;

/// The same, after another compiler or on another machine.
const GROWTH_ELSEWHERE_MAX: f64 = 25.0;

/// How many more system calls a frame may take: some cases ask the loop for something when it happens to have slept.
const CALLS_MORE_MAX: f64 = 0.05;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Baseline {
    #[serde(flatten)]
    pub(crate) made_with: MadeWith,
    /// What a frame takes, by case.
    pub(crate) cases: BTreeMap<String, Count>,
}

/// Counts can be compared exactly only if this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct MadeWith {
    pub(crate) rustc: String,
    pub(crate) target: String,
}

impl MadeWith {
    /// The compiler that is called here.
    pub(crate) fn here() -> Result<Self, Failure> {
        let output = Command::new("rustc").arg("-vV").output()?;
        let said = String::from_utf8(output.stdout)?;
        let field = |name| said.lines().find_map(|line| line.strip_prefix(name));
        match (field("release: "), field("host: ")) {
            (Some(rustc), Some(target)) => Ok(Self {
                rustc: rustc.to_owned(),
                target: target.to_owned(),
            }),
            _ => Err("rustc does not say its version".into()),
        }
    }

    /// What a count may have grown by here, in percent.
    pub(crate) fn growth_max(&self, here: &Self) -> f64 {
        if self == here {
            GROWTH_MAX
        } else {
            GROWTH_ELSEWHERE_MAX
        }
    }
}

impl Baseline {
    /// What is kept, if anything is.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        match fs::read(path()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(_) => Ok(None),
        }
    }

    /// An error if it could not be saved now.
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

/// How a count stands beside the one that was kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) before: Count,
    /// Of instructions, in percent.
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

    /// `slack`: the percent that a case depends on how threads happen to run.
    pub(crate) fn is_too_much(&self, growth_max: f64, slack: f64) -> bool {
        self.growth > growth_max + slack || self.more_calls > CALLS_MORE_MAX + slack / 100.0
    }
}
