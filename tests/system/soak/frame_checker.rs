//! Compares the frames that members print with those that they were told to send.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

/// Length of a frame's header: its number and its length in hexadecimal digits. A shorter frame has no header.
const HEADER_BYTES: usize = 24;

/// The number of the newest frame, by sender and receiver.
#[derive(Debug, Default)]
pub(crate) struct FrameChecker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<(i64, i64), u64>,
    received: BTreeMap<(i64, i64), u64>,
    frames: u64,
    failures: Vec<String>,
}

impl FrameChecker {
    /// The text of the next frame, of this length.
    pub(crate) fn next(&self, from: i64, to: i64, bytes: usize) -> String {
        if bytes < HEADER_BYTES {
            return "x".repeat(bytes);
        }
        let mut state = self.state();
        let number = state.sent.entry((from, to)).or_default();
        *number += 1;
        let mut text = format!("{number:016x}{bytes:08x}");
        text.push_str(&"x".repeat(bytes - HEADER_BYTES));
        text
    }

    /// A member has printed a frame.
    pub(crate) fn on_frame(&self, to: i64, line: &Value) {
        let mut state = self.state();
        state.frames += 1;
        if let Err(why) = state.check(to, line) {
            state.failures.push(why);
        }
    }

    pub(crate) fn on_failure(&self, what: String) {
        self.state().failures.push(what);
    }

    /// The pairs whose newest numbered frame has not arrived.
    pub(crate) fn missing(&self) -> String {
        let state = self.state();
        let is_missing =
            |(pair, sent): &(&(i64, i64), &u64)| state.received.get(*pair) != Some(*sent);
        let missing = state.sent.iter().filter(is_missing);
        let describe = |((from, to), sent): (&(i64, i64), &u64)| {
            format!(
                "{from} to {to}: {sent} sent, {:?} received; ",
                state.received.get(&(*from, *to))
            )
        };
        missing.map(describe).collect()
    }

    /// Frames received so far, from any sender.
    pub(crate) fn frames(&self) -> u64 {
        self.state().frames
    }

    /// Panics if a check has failed so far.
    #[track_caller]
    pub(crate) fn assert_no_failure(&self) {
        let state = self.state();
        assert!(state.failures.is_empty(), "{:#?}", state.failures);
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
            return Err(format!(
                "{to} received {len} bytes and printed {}",
                hex.len()
            ));
        }
        if is_forged(hex) {
            return Ok(());
        }
        // A frame has a header and a body, a short frame only a body.
        let (header, rest) = hex.split_at_checked(2 * HEADER_BYTES).unwrap_or(("", hex));
        if rest.as_bytes().chunks(2).any(|byte| byte != b"78") {
            return Err(format!(
                "{to} received a torn frame of {len} bytes from {from}"
            ));
        }
        if header.is_empty() {
            return Ok(());
        }
        let number_at = |at: usize, digits: usize| {
            let digit = |at: usize| u8::from_str_radix(header.get(2 * at..2 * at + 2)?, 16).ok();
            let text: Option<Vec<u8>> = (at..at + digits).map(digit).collect();
            u64::from_str_radix(std::str::from_utf8(&text?).ok()?, 16).ok()
        };
        let (Some(number), true) = (number_at(0, 16), number_at(16, 8) == Some(len)) else {
            return Err(format!(
                "{to} received {len} bytes from {from} that begin with {header}"
            ));
        };
        let sent = self.sent.get(&(from, to)).copied().unwrap_or_default();
        let last = self.received.entry((from, to)).or_default();
        if number < *last || number > sent {
            return Err(format!(
                "{to} received {number} from {from} after {last}; {sent} were sent"
            ));
        }
        *last = number;
        Ok(())
    }
}

/// The first bytes of a frame that a stranger sends in the name of an absent member.
pub(crate) const FORGED: &[u8] = b"forged";

fn is_forged(hex: &str) -> bool {
    let forged: String = FORGED.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.starts_with(&forged)
}
