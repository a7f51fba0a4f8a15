//! A bounded queue of lines that wait to be printed.
//!
//! The loop pushes into it, and never waits for the thread that prints.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use quorum_cnx::{EVENTS_MAX, QueueStats, Sid, Stats};
use serde_json::{Value, json};

use crate::json::hex;

/// A line to be printed.
pub(crate) enum Line {
    Frame(Sid, Bytes),
    Event(Value),
}

impl Line {
    pub(crate) fn into_json(self) -> Value {
        match self {
            Self::Frame(sid, bytes) => json!({
                "event": "frame", "sid": sid.0, "len": bytes.len(), "hex": hex(&bytes),
            }),
            Self::Event(value) => value,
        }
    }
}

pub(crate) enum Popped {
    Line(Line),
    Timeout,
    End,
}

/// Lines that wait to be printed, in order. Frames and events have a bound each; when it is reached the oldest one is dropped.
pub(crate) struct Lines {
    state: Mutex<State>,
    /// Notified when a line was pushed, and at the end.
    not_empty: Condvar,
    /// Notified when a line was popped, and at the end.
    room: Condvar,
    frames_max: usize,
}

#[derive(Default)]
pub(crate) struct State {
    queue: VecDeque<Line>,
    /// True exactly when no line can follow.
    closed: bool,
    pub(crate) frames: Counts,
    pub(crate) events: Counts,
}

#[derive(Default)]
pub(crate) struct Counts {
    pushed: u64,
    dropped: u64,
    waiting: usize,
}

impl Counts {
    pub(crate) fn json(&self) -> Value {
        json!({
            "pushed": self.pushed, "taken": self.taken(), "dropped": self.dropped, "waiting": self.waiting,
        })
    }

    fn taken(&self) -> u64 {
        self.pushed - self.dropped - self.waiting as u64
    }

    fn count(&self, stats: &mut QueueStats) {
        stats.pushed = self.pushed;
        stats.taken = self.taken();
        stats.dropped = self.dropped;
        stats.waiting = self.waiting as u64;
    }
}

impl State {
    fn counts(&mut self, is_frame: bool) -> &mut Counts {
        if is_frame {
            &mut self.frames
        } else {
            &mut self.events
        }
    }

    fn push(&mut self, line: Line, frames_max: usize) {
        let is_frame = matches!(line, Line::Frame(..));
        let max = if is_frame { frames_max } else { EVENTS_MAX };
        if self.counts(is_frame).waiting >= max {
            let oldest = |line: &Line| matches!(line, Line::Frame(..)) == is_frame;
            if let Some(at) = self.queue.iter().position(oldest) {
                self.queue.remove(at);
                self.counts(is_frame).dropped += 1;
                self.counts(is_frame).waiting -= 1;
            }
        }
        self.counts(is_frame).pushed += 1;
        self.counts(is_frame).waiting += 1;
        self.queue.push_back(line);
    }
}

impl Lines {
    pub(crate) fn new(frames_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            not_empty: Condvar::new(),
            room: Condvar::new(),
            frames_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push_all(&self, lines: impl IntoIterator<Item = Line>) {
        let mut state = self.lock();
        for line in lines {
            state.push(line, self.frames_max);
        }
        self.not_empty.notify_one();
    }

    /// Runs `work` under the lock, and pushes its result, so that no line that follows from `work` is printed before it. Blocks
    /// while half of the room for events is taken, so that no answer to a command is dropped; the other half is left to the loop.
    pub(crate) fn answer(&self, work: impl FnOnce(&State) -> Value) {
        let mut state = self
            .room
            .wait_while(self.lock(), |state| {
                state.events.waiting >= EVENTS_MAX / 2 && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        let value = work(&state);
        state.push(Line::Event(value), self.frames_max);
        self.not_empty.notify_one();
    }

    /// Puts the counts of the lines in place of those of the library: here, frames and events wait to be printed.
    pub(crate) fn count(&self, mut stats: Stats) -> Stats {
        let state = self.lock();
        state.frames.count(&mut stats.inbox);
        state.events.count(&mut stats.events);
        drop(state);
        stats
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.not_empty.notify_one();
        self.room.notify_one();
    }

    pub(crate) fn pop(&self, end: Option<Instant>) -> Popped {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.queue.pop_front() {
                let is_frame = matches!(line, Line::Frame(..));
                state.counts(is_frame).waiting -= 1;
                self.room.notify_one();
                return Popped::Line(line);
            }
            if state.closed {
                return Popped::End;
            }
            let Some(end) = end else {
                state = self
                    .not_empty
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Popped::Timeout;
            }
            state = self
                .not_empty
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
