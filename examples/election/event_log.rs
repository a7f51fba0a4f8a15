//! Records events: as JSON lines on standard output, and as entries of the timeline.
//!
//! Recording never waits for the reader of the output. When too many lines wait, further lines are dropped and counted.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use quorum_cnx::Sid;
use serde_json::{Map, Value, json};

use crate::{
    election::Outcome,
    notification::{Notification, Vote},
    timeline::{Entry, Fact, Timeline},
};

/// Lines that may wait to be printed.
const LINES_MAX: usize = 4096;

pub(crate) struct EventLog {
    start: Instant,
    lines: SyncSender<Value>,
    dropped: AtomicU64,
    /// True exactly when standard output is closed.
    output_closed: AtomicBool,
    drawing: Option<Drawing>,
}

struct Drawing {
    timeline: Mutex<Timeline>,
    path: PathBuf,
}

impl EventLog {
    /// The event log, and the receiver of the lines that [`print`](Self::print) needs.
    pub(crate) fn new(timeline: Option<(PathBuf, Timeline)>) -> (Self, Receiver<Value>) {
        let (lines, printed) = sync_channel(LINES_MAX);
        let drawing = timeline.map(|(path, timeline)| Drawing {
            timeline: Mutex::new(timeline),
            path,
        });
        let event_log = Self {
            start: Instant::now(),
            lines,
            dropped: AtomicU64::new(0),
            output_closed: AtomicBool::new(false),
            drawing,
        };
        (event_log, printed)
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn is_output_closed(&self) -> bool {
        self.output_closed.load(Ordering::Relaxed)
    }

    /// Prints lines until [`close`](Self::close), or until standard output is closed.
    pub(crate) fn print(&self, lines: &Receiver<Value>) {
        while let Ok(line) = lines.recv() {
            if line.is_null() {
                return;
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            let dropped = (dropped > 0).then(|| json!({ "event": "dropped", "lines": dropped }));
            for line in [Some(line), dropped].into_iter().flatten() {
                let mut out = io::stdout().lock();
                // One write for each line, so that a reader seldom sees a part of one.
                let written = out.write_all(format!("{line}\n").as_bytes());
                if written.and_then(|()| out.flush()).is_err() {
                    self.output_closed.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Ends [`print`](Self::print) after the lines until now. Blocks until there is room in the queue.
    pub(crate) fn close(&self) {
        // Fails when `print` has returned.
        let _ = self.lines.send(Value::Null);
    }

    /// Records any event that is neither a message nor a vote.
    pub(crate) fn event(&self, event: &str, own: Sid, rest: Value) {
        self.event_at(self.now(), event, own, rest);
    }

    fn event_at(&self, at: Duration, event: &str, own: Sid, rest: Value) {
        let mut line = Map::new();
        line.insert("event".into(), event.into());
        line.insert("myid".into(), own.0.into());
        if let Value::Object(rest) = rest {
            line.extend(rest);
        }
        line.insert("at_ms".into(), millis(at));
        match self.lines.try_send(Value::Object(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Disconnected(_)) => self.output_closed.store(true, Ordering::Relaxed),
        }
    }

    fn draw(&self, at: Duration, own: Sid, fact: Fact) {
        let Some(drawing) = &self.drawing else {
            return;
        };
        let mut timeline = drawing.lock();
        let is_complete = timeline.push(Entry { at, own, fact });
        if is_complete {
            let picture = timeline.draw();
            drop(timeline);
            drawing.write(self, own, &picture);
        }
    }

    /// Draws an election that is not over, if no complete one was drawn.
    pub(crate) fn draw_rest(&self, own: Sid) {
        if let Some(drawing) = &self.drawing {
            let timeline = drawing.lock();
            if !timeline.was_over() {
                let picture = timeline.draw();
                drawing.write(self, own, &picture);
            }
        }
    }

    pub(crate) fn error(&self, own: Sid, message: &str) {
        self.event("error", own, json!({ "message": message }));
    }

    pub(crate) fn looking(&self, own: Sid, round: i64, why: &str) {
        let at = self.now();
        self.draw(at, own, Fact::Looking { round });
        self.event_at(at, "looking", own, json!({ "round": round, "why": why }));
    }

    pub(crate) fn vote(&self, own: Sid, vote: Vote) {
        let at = self.now();
        self.draw(at, own, Fact::Vote(vote));
        self.event_at(at, "vote", own, vote_json(vote));
    }

    /// Records a message that was sent at this time, and the outcome.
    pub(crate) fn sent(
        &self,
        at: Duration,
        own: Sid,
        to: Sid,
        notification: Notification,
        outcome: &str,
    ) {
        self.draw(at, own, Fact::Sent(to, notification));
        let mut line = message("to", to, &notification);
        line["outcome"] = outcome.into();
        self.event_at(at, "sent", own, line);
    }

    pub(crate) fn received(&self, own: Sid, from: Sid, notification: Notification) {
        let at = self.now();
        self.draw(at, own, Fact::Received(from, notification));
        let mut line = message("from", from, &notification);
        line["version"] = notification.version.into();
        self.event_at(at, "received", own, line);
    }

    pub(crate) fn elected(&self, own: Sid, outcome: Outcome, took: Duration) {
        let Outcome {
            state,
            vote,
            decided_by_others,
        } = outcome;
        let by = if decided_by_others { "told" } else { "votes" };
        let at = self.now();
        self.event_at(
            at,
            "elected",
            own,
            json!({
                "leader": vote.leader.0, "round": vote.round, "state": state.name(),
                "ms": took.as_millis() as u64, "by": by, "zxid": format!("{:#x}", vote.zxid),
                "epoch": vote.epoch,
            }),
        );
        self.draw(at, own, Fact::Elected(outcome));
    }
}

impl Drawing {
    fn lock(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, event_log: &EventLog, own: Sid, picture: &str) {
        match std::fs::write(&self.path, picture) {
            Ok(()) => {
                let path = self.path.display().to_string();
                event_log.event("timeline", own, json!({ "file": path }));
            }
            Err(error) => {
                let path = self.path.display();
                event_log.error(own, &format!("cannot write the timeline {path}: {error}"));
            }
        }
    }
}

fn millis(time: Duration) -> Value {
    // With microseconds: a float is precise enough for that.
    (time.as_micros() as f64 / 1000.0).into()
}

fn vote_json(vote: Vote) -> Value {
    json!({
        "leader": vote.leader.0, "round": vote.round, "zxid": format!("{:#x}", vote.zxid),
        "epoch": vote.epoch,
    })
}

fn message(direction: &str, other: Sid, notification: &Notification) -> Value {
    let mut line = Map::new();
    line.insert(direction.into(), other.0.into());
    if notification.is_question() {
        line.insert("question".into(), true.into());
        return Value::Object(line);
    }
    line.insert("state".into(), notification.state.name().into());
    if let Value::Object(vote) = vote_json(notification.vote) {
        line.extend(vote);
    }
    Value::Object(line)
}
