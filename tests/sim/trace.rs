//! What happened last, in words, for whoever has to understand a failure.
//!
//! Words are written only when asked for: a failing seed is run again with them. The digest is always kept, and does not
//! depend on them.

use std::{collections::VecDeque, time::Duration};

use crate::chance::mix;

const LINES_MAX: usize = 120;

#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    print: bool,
    lines: VecDeque<String>,
    /// A digest of the history, to compare two runs by.
    pub digest: u64,
}

impl Trace {
    pub fn new(on: bool, print: bool) -> Self {
        Self {
            on,
            print,
            ..Self::default()
        }
    }

    /// Makes this number part of the digest.
    pub fn mix(&mut self, what: u64) {
        self.digest = mix(self.digest.rotate_left(7) ^ what);
    }

    pub fn line(&mut self, now: Duration, who: &str, what: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        let line = format!("{:>12.3} ms  {who:<9} {}", now.as_secs_f64() * 1e3, what());
        if self.print {
            println!("{line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub fn text(&self) -> String {
        self.lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
