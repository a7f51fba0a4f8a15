//! The trace of a run: lines for a person who examines a failure, and a digest that compares two runs.
//!
//! Lines are written on request only: a failing seed is run again with them. The digest is always computed, and does not
//! depend on the lines.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::rng::mix;

/// Lines that are kept: the newest ones.
const LINES_MAX: usize = 400;

/// The lines of a run. They outlive a run that panics.
#[derive(Clone, Debug, Default)]
pub struct TraceLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    dropped: usize,
    print: bool,
}

#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<TraceLines>,
    /// Two runs with the same digest did the same.
    pub digest: u64,
}

impl TraceLines {
    /// Prints each line at once, and keeps it.
    pub fn printed() -> Self {
        Self(Arc::new(Mutex::new(Lines {
            print: true,
            ..Lines::default()
        })))
    }

    fn add(&self, line: String) {
        let mut it = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if it.print {
            println!("{line}");
        }
        if it.lines.len() == LINES_MAX {
            it.lines.pop_front();
            it.dropped += 1;
        }
        it.lines.push_back(line);
    }

    pub fn text(&self) -> String {
        let it = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if it.dropped > 0 {
            text = format!("({} lines before)\n", it.dropped);
        }
        for line in &it.lines {
            text += line;
            text += "\n";
        }
        text
    }
}

impl Trace {
    pub fn new(lines: Option<TraceLines>) -> Self {
        Self { lines, digest: 0 }
    }

    /// Writes no more lines: the run is over, and its sockets are only being closed.
    pub fn end(&mut self) {
        self.lines = None;
    }

    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds this to the digest.
    pub fn mix(&mut self, what: impl Hash) {
        let mut digest = Digest(self.digest);
        what.hash(&mut digest);
        self.digest = digest.0;
    }

    pub fn line(&self, now: Duration, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let millis = now.as_secs_f64() * 1e3;
            lines.add(format!("{millis:>12.3} ms  {who:<9} {}", what()));
        }
    }
}

/// A hasher that is cheaper than those of the standard library. Its input is trusted.
struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0.rotate_left(7) ^ n);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
