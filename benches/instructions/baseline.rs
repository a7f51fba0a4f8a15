//! The counts that are kept in the repository, and what they were counted with.
//!
//! Nothing here counts.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::cases::Failure;

/// What a count may grow by, in percent.
const GROWTH_MAX: f64 = 5.0;

/// The same, after another compiler or on another machine.
const GROWTH_ELSEWHERE_MAX: f64 = 25.0;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Baseline {
    #[serde(flatten)]
    pub(crate) made_with: MadeWith,
    /// Instructions for each frame, by case.
    pub(crate) cases: BTreeMap<String, f64>,
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

    /// By how many percent a count has grown.
    pub(crate) fn growth(&self, case: &str, count: f64) -> Option<f64> {
        let before = self.cases.get(case)?;
        Some((count - before) / before * 100.0)
    }
}

fn path() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/instructions/baseline.json"
    ))
}
