//! What waits to be printed, in the order in which it happened.
//!
//! Nothing here prints; who pushes never waits for who does.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use quorum_cnx::{Sid, limits};
use serde_json::{Value, json};

use crate::json::hex;

/// What is to be printed.
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

/// What waits to be printed, in the order in which it happened. Frames and events are bounded apart; the oldest goes.
pub(crate) struct Lines {
    state: Mutex<State>,
    /// Rung when there is something to print.
    stirred: Condvar,
    /// Rung when something was printed.
    room: Condvar,
    frames_max: usize,
}

#[derive(Default)]
pub(crate) struct State {
    queue: VecDeque<Line>,
    /// True exactly when nothing can follow.
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
        let taken = self.pushed - self.dropped - self.waiting as u64;
        json!({
            "pushed": self.pushed, "taken": taken, "dropped": self.dropped, "waiting": self.waiting,
        })
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
        let max = if is_frame {
            frames_max
        } else {
            limits::EVENTS_MAX
        };
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
            stirred: Condvar::new(),
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
        self.stirred.notify_one();
    }

    /// Pushes what `work` says, before anything that follows from it. Waits for a reader when many lines wait already,
    /// so that no answer to a command is lost; the other half of the room is the loop's.
    pub(crate) fn answer(&self, work: impl FnOnce(&State) -> Value) {
        let mut state = self
            .room
            .wait_while(self.lock(), |state| {
                state.events.waiting >= limits::EVENTS_MAX / 2 && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        let value = work(&state);
        state.push(Line::Event(value), self.frames_max);
        self.stirred.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.stirred.notify_one();
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
                    .stirred
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Popped::Timeout;
            }
            state = self
                .stirred
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
