//! Which parts of a run are left when the others are switched off, so that a failure can be studied in a smaller run.
//!
//! `shrink` chooses the parts, or the variable `SIM_ONLY`.

use std::{collections::BTreeSet, fmt, ops::Range, str::FromStr, time::Duration};

use crate::plan::Plan;

/// The parts that are left. `None` stands for everything that the seed has planned.
///
/// Its text form is `hosts=2 strangers=0 faults=3+7 calls=10..14 storm=2500ms without=quirks+large`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Number of hosts; the last ones are left out.
    pub hosts: Option<usize>,
    pub strangers: Option<usize>,
    /// The numbers of the faults, in the order of their times.
    pub faults: Option<BTreeSet<usize>>,
    /// The numbers of the calls that applications make during the storm.
    pub calls: Option<Range<usize>>,
    /// How long the storm lasts.
    pub storm: Option<Duration>,
    pub without: BTreeSet<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Quirks,
    Large,
    Answers,
    TrafficAfterStorm,
    Layer,
    Tls,
    Members,
    OwnAddresses,
    Renewals,
}

impl Part {
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Quirks, "quirks"),
        (Self::Large, "large"),
        (Self::Answers, "answers"),
        (Self::TrafficAfterStorm, "talks-on"),
        (Self::Layer, "layer"),
        (Self::Tls, "tls"),
        (Self::Members, "members"),
        (Self::OwnAddresses, "own-addresses"),
        (Self::Renewals, "renewals"),
    ];
}

/// How many parts of each kind a run had.
#[derive(Clone, Debug, Default)]
pub struct Size {
    pub hosts: usize,
    pub strangers: usize,
    pub faults: usize,
    pub calls: usize,
    pub storm: Duration,
}

impl Only {
    /// Removes from the plan what is switched off. Faults and calls are skipped when their time comes.
    pub fn cut(&self, plan: &mut Plan) {
        plan.hosts.truncate(self.hosts.unwrap_or(usize::MAX));
        if let Some(secure) = &mut plan.secure {
            secure.steps.truncate(plan.hosts.len());
        }
        plan.strangers = plan.strangers.min(self.strangers.unwrap_or(usize::MAX));
        if let Some(storm) = self.storm {
            plan.storm[1] = plan.storm[1].min(plan.storm[0] + storm);
        }
        for part in &self.without {
            match part {
                Part::Quirks => plan.quirks = plan.quirks.none(),
                Part::Large => plan.large = 0,
                Part::Answers => plan.answers = 0,
                Part::TrafficAfterStorm => plan.traffic_after_storm = false,
                Part::Layer => plan.layer = None,
                Part::Members => {
                    (plan.changes_members, plan.changes_own) = (false, false);
                }
                Part::OwnAddresses => plan.changes_own = false,
                Part::Renewals => plan.renews = 0,
                Part::Tls => plan.secure = None,
            }
        }
    }

    pub fn has_fault(&self, number: usize) -> bool {
        self.faults
            .as_ref()
            .is_none_or(|faults| faults.contains(&number))
    }

    pub fn has_call(&self, number: usize) -> bool {
        self.calls
            .as_ref()
            .is_none_or(|calls| calls.contains(&number))
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let joined = |all: Vec<String>| all.join("+");
        words.extend(self.hosts.map(|n| format!("hosts={n}")));
        words.extend(self.strangers.map(|n| format!("strangers={n}")));
        words.extend(self.faults.as_ref().map(|all| {
            let all = all.iter().map(ToString::to_string).collect();
            format!("faults={}", joined(all))
        }));
        words.extend(self.calls.as_ref().map(|all| format!("calls={all:?}")));
        words.extend(
            self.storm
                .map(|storm| format!("storm={}ms", storm.as_millis())),
        );
        if !self.without.is_empty() {
            let names = Part::ALL
                .iter()
                .filter(|(part, _)| self.without.contains(part));
            let names = names.map(|(_, name)| (*name).to_owned()).collect();
            words.push(format!("without={}", joined(names)));
        }
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut only = Self::default();
        for word in text.split_whitespace() {
            only.take(word)
                .ok_or_else(|| format!("`{word}` is no part of a run"))?;
        }
        Ok(only)
    }
}

impl Only {
    fn take(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        let all = || value.split('+').filter(|one| !one.is_empty());
        match name {
            "hosts" => self.hosts = Some(value.parse().ok().filter(|n| *n >= 2)?),
            "strangers" => self.strangers = Some(value.parse().ok()?),
            "faults" => self.faults = Some(all().map(|n| n.parse().ok()).collect::<Option<_>>()?),
            "calls" => {
                let (from, to) = value.split_once("..")?;
                self.calls = Some(from.parse().ok()?..to.parse().ok()?);
            }
            "storm" => {
                let millis = value.strip_suffix("ms")?.parse().ok()?;
                self.storm = Some(Duration::from_millis(millis));
            }
            "without" => {
                let part = |name| {
                    let found = Part::ALL.iter().find(|(_, known)| *known == name);
                    found.map(|(part, _)| *part)
                };
                self.without = all().map(part).collect::<Option<_>>()?;
            }
            _ => return None,
        }
        Some(())
    }
}

#[test]
fn sim_only_round_trips_as_text() {
    let text = "hosts=2 strangers=0 faults=3+7 calls=10..14 storm=2500ms without=quirks+large";
    let only: Only = text.parse().expect("it is well formed");
    assert_eq!(only.to_string(), text);
    assert!(only.has_fault(7) && !only.has_fault(4) && only.has_call(13) && !only.has_call(14));
    assert_eq!("faults=".parse::<Only>().unwrap().to_string(), "faults=");
    for bad in ["hosts", "hosts=1", "faults=x", "calls=3", "without=rain"] {
        assert!(bad.parse::<Only>().is_err(), "{bad}");
    }
}
