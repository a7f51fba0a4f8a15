//! Which promises held, in words.
//!
//! Nothing is assumed to hold: what is printed was seen by the servers, or by the process that started them.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use crate::{
    VICTIM,
    member::{Accounts, Pace, Promise, Report},
    server::Server,
};

/// What was seen.
#[derive(Default)]
pub(crate) struct Verdict {
    /// What the servers saw broken, the killed one included.
    pub(crate) faults: BTreeMap<Promise, String>,
    /// What did not happen in time; empty exactly when everything did.
    pub(crate) missing: Vec<String>,
    /// True exactly when everybody had the last values, over one connection for each pair.
    pub(crate) arrived: bool,
    /// True exactly when each link was dialed by the larger id then.
    pub(crate) is_right: bool,
    /// True exactly when the killed server was missed by all and is linked with all again.
    pub(crate) is_back: bool,
}

impl Verdict {
    /// Prints it, and says whether all promises held. The servers have said their last.
    pub(crate) fn print(&self, servers: &[Server]) -> io::Result<bool> {
        let reports: Vec<&Report> = servers
            .iter()
            .filter_map(|one| one.report.as_ref())
            .collect();
        let frames: u64 = reports.iter().map(|report| report.frames).sum();
        let sum =
            |of: fn(&Accounts) -> u64| -> u64 { reports.iter().map(|one| of(&one.accounts)).sum() };
        let accepted = sum(|one| one.accepted);
        let [written, superseded, discarded] = [
            sum(|one| one.written),
            sum(|one| one.superseded),
            sum(|one| one.discarded),
        ];
        let kept = |promise| !self.faults.contains_key(&promise);
        let promises = [
            (
                self.arrived && self.is_right && kept(Promise::Dialer),
                "one connection for each pair, dialed by the larger id".to_owned(),
            ),
            (
                self.arrived,
                "everybody has everybody's last value".to_owned(),
            ),
            (
                kept(Promise::Order),
                format!("no older value after a newer one, in {frames} frames"),
            ),
            (
                kept(Promise::Account) && accepted == written + superseded + discarded,
                format!(
                    "every frame has its account: {accepted} = {written} written + {superseded} superseded + {discarded} discarded"
                ),
            ),
            (
                self.is_back,
                format!("server {VICTIM} was missed by all, and is linked with all again"),
            ),
            (
                reports.len() == servers.len()
                    && reports.iter().all(|one| one.port_is_free == Some(true)),
                "the ports were free when the servers had halted".to_owned(),
            ),
        ];
        let [mut p50, mut p99] = [Vec::new(), Vec::new()];
        for Pace { p50_us, p99_us, .. } in reports.iter().map(|report| report.life) {
            p50.push(p50_us);
            p99.push(p99_us);
        }
        let mut out = io::stdout().lock();
        writeln!(out)?;
        for (held, what) in &promises {
            writeln!(out, "{}  {what}", if *held { "held  " } else { "BROKEN" })?;
        }
        for why in self.missing.iter().chain(self.faults.values()) {
            writeln!(out, "        {why}")?;
        }
        writeln!(
            out,
            "\nlatency from process to process: p50 {} us, p99 {} us",
            span(&p50),
            span(&p99)
        )?;
        Ok(self.missing.is_empty() && promises.iter().all(|(held, _)| *held))
    }
}

/// From the least to the greatest.
fn span(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(0.0, f64::max);
    format!("{least:.0} to {greatest:.0}")
}
