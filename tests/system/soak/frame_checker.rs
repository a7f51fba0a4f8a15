//! Compares the frames that members print with those that they were told to send.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use support::{
    hex::from_hex,
    numbered::{number_of, numbered},
};

/// A shorter frame has no number.
const NUMBERED_BYTES_MIN: usize = 24;

/// The byte of which a shorter frame consists.
const FILL: u8 = b'x';

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
        if bytes < NUMBERED_BYTES_MIN {
            return char::from(FILL).to_string().repeat(bytes);
        }
        let mut state = self.state();
        let number = state.sent.entry((from, to)).or_default();
        *number += 1;
        numbered(from, to, *number, bytes)
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
            line["hex"].as_str().and_then(from_hex),
        );
        let (Some(from), Some(len), Some(frame)) = parts else {
            return Err(format!("{to} printed {line}"));
        };
        if frame.len() as u64 != len {
            let printed = frame.len();
            return Err(format!("{to} received {len} bytes and printed {printed}"));
        }
        let is_short = frame.len() < NUMBERED_BYTES_MIN && frame.iter().all(|byte| *byte == FILL);
        if is_short || frame.starts_with(FORGED) {
            return Ok(());
        }
        let number = number_of(from, to, &frame)
            .map_err(|why| format!("{to} received a torn frame from {from}: {why}"))?;
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
