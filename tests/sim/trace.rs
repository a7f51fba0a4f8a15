//! What happened, in words, for whoever has to understand a failure.
//!
//! Words are written only when asked for: a failing seed is run again with them. The digest is always kept, and does not
//! depend on them.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::chance::mix;

/// Of a longer history the beginning is forgotten.
const LINES_MAX: usize = 400;

/// The lines of a history, kept when its world is gone in a panic.
#[derive(Clone, Debug, Default)]
pub struct Words(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    forgotten: usize,
    print: bool,
}

#[derive(Debug, Default)]
pub struct Trace {
    words: Option<Words>,
    /// A digest of the history, to compare two runs by.
    pub digest: u64,
}

impl Words {
    /// Lines that are printed as they come, and kept as well.
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
            it.forgotten += 1;
        }
        it.lines.push_back(line);
    }

    pub fn text(&self) -> String {
        let it = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if it.forgotten > 0 {
            text = format!("({} lines before)\n", it.forgotten);
        }
        for line in &it.lines {
            text += line;
            text += "\n";
        }
        text
    }
}

impl Trace {
    pub fn new(words: Option<Words>) -> Self {
        Self { words, digest: 0 }
    }

    /// What comes now is only the end of the world.
    pub fn end(&mut self) {
        self.words = None;
    }

    pub fn is_on(&self) -> bool {
        self.words.is_some()
    }

    /// Makes this part of the digest.
    pub fn mix(&mut self, what: impl Hash) {
        let mut digest = Digest(self.digest);
        what.hash(&mut digest);
        self.digest = digest.0;
    }

    pub fn line(&self, now: Duration, who: &str, what: impl FnOnce() -> String) {
        if let Some(words) = &self.words {
            let millis = now.as_secs_f64() * 1e3;
            words.add(format!("{millis:>12.3} ms  {who:<9} {}", what()));
        }
    }
}

/// Much cheaper than the hashers of the standard library, and nobody attacks it.
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
