//! Shows a progress bar, if standard error is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    child::is_abandoned,
    plan::{Cell, Participant},
};
use crate::output::print_error;

pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(measurements: u64) -> Self {
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} (still {eta}) {msg}");
        let bar = ProgressBar::new(measurements)
            .with_style(style.expect("the template has no unknown fields"));
        bar.enable_steady_tick(Duration::from_secs(1));
        Self(bar)
    }

    pub(crate) fn begin(&self, cell: Cell, participant: &Participant) {
        self.0
            .set_message(format!("{cell}, {}", participant.name()));
    }

    /// Prints a line above the bar.
    pub(crate) fn print(&self, line: &str) {
        if !is_abandoned() {
            self.0.suspend(|| print_error(line));
        }
    }

    pub(crate) fn end(&self) {
        self.0.inc(1);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
