//! What the members say about frames, compared with what they were told to send.
//!
//! Nothing here talks to a member.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

/// Bytes of the number and the length with which a frame begins, in hexadecimal digits; a shorter frame has none.
const STAMP: usize = 24;

/// Numbered frames, from whom to whom.
#[derive(Debug, Default)]
pub(crate) struct Judge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<(i64, i64), u64>,
    came: BTreeMap<(i64, i64), u64>,
    frames: u64,
    wrong: Vec<String>,
}

impl Judge {
    /// The text of the next frame, of this length.
    pub(crate) fn next(&self, from: i64, to: i64, bytes: usize) -> String {
        if bytes < STAMP {
            return "x".repeat(bytes);
        }
        let mut state = self.state();
        let number = state.sent.entry((from, to)).or_default();
        *number += 1;
        let mut text = format!("{number:016x}{bytes:08x}");
        text.push_str(&"x".repeat(bytes - STAMP));
        text
    }

    /// A member has printed that this came.
    pub(crate) fn on_frame(&self, to: i64, line: &Value) {
        let mut state = self.state();
        state.frames += 1;
        if let Err(why) = state.check(to, line) {
            state.wrong.push(why);
        }
    }

    pub(crate) fn on_wrong(&self, what: String) {
        self.state().wrong.push(what);
    }

    /// The pairs whose newest numbered frame has not come.
    pub(crate) fn missing(&self) -> String {
        let state = self.state();
        let is_missing = |(pair, sent): &(&(i64, i64), &u64)| state.came.get(*pair) != Some(*sent);
        let missing = state.sent.iter().filter(is_missing);
        let tell = |((from, to), sent): (&(i64, i64), &u64)| {
            format!(
                "{from} to {to}: {sent}, came {:?}; ",
                state.came.get(&(*from, *to))
            )
        };
        missing.map(tell).collect()
    }

    /// Frames that have come so far, whoever sent them.
    pub(crate) fn frames(&self) -> u64 {
        self.state().frames
    }

    /// Nothing was wrong so far.
    #[track_caller]
    pub(crate) fn acquit(&self) {
        let state = self.state();
        assert!(state.wrong.is_empty(), "{:#?}", state.wrong);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&mut self, to: i64, line: &Value) -> Result<(), String> {
        let parts = (
            line["sid"].as_i64(),
            line["len"].as_u64(),
            line["hex"].as_str(),
        );
        let (Some(from), Some(len), Some(hex)) = parts else {
            return Err(format!("{to} printed {line}"));
        };
        if hex.len() as u64 != 2 * len {
            return Err(format!("{to} got {len} bytes and printed {}", hex.len()));
        }
        if is_forged(hex) {
            return Ok(());
        }
        // All that follows the stamp, or the whole of a short frame.
        let (stamp, rest) = hex.split_at_checked(2 * STAMP).unwrap_or(("", hex));
        if rest.as_bytes().chunks(2).any(|byte| byte != b"78") {
            return Err(format!("{to} got a torn frame of {len} bytes from {from}"));
        }
        if stamp.is_empty() {
            return Ok(());
        }
        let stamped = |at: usize, digits: usize| {
            let digit = |at: usize| u8::from_str_radix(stamp.get(2 * at..2 * at + 2)?, 16).ok();
            let text: Option<Vec<u8>> = (at..at + digits).map(digit).collect();
            u64::from_str_radix(std::str::from_utf8(&text?).ok()?, 16).ok()
        };
        let (Some(number), true) = (stamped(0, 16), stamped(16, 8) == Some(len)) else {
            return Err(format!(
                "{to} got {len} bytes from {from} that begin with {stamp}"
            ));
        };
        let sent = self.sent.get(&(from, to)).copied().unwrap_or_default();
        let last = self.came.entry((from, to)).or_default();
        if number < *last || number > sent {
            return Err(format!(
                "{to} got {number} from {from} after {last}; {sent} were sent"
            ));
        }
        *last = number;
        Ok(())
    }
}

/// What strangers say in the name of a member that is away begins so.
pub(crate) const FORGED: &[u8] = b"forged";

fn is_forged(hex: &str) -> bool {
    let forged: String = FORGED.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.starts_with(&forged)
}
