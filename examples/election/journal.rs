//! What happens, as JSON lines on standard output, and as what the timeline is drawn of.
//!
//! Nobody who tells something waits for who reads it: when too many lines wait, those that follow are counted instead.

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

pub(crate) struct Journal {
    start: Instant,
    lines: SyncSender<Value>,
    dropped: AtomicU64,
    /// True exactly when nobody reads what is printed.
    unread: AtomicBool,
    drawing: Option<Drawing>,
}

struct Drawing {
    timeline: Mutex<Timeline>,
    path: PathBuf,
}

impl Journal {
    /// The journal, and the lines that are to be [printed](Self::print).
    pub(crate) fn new(timeline: Option<(PathBuf, Timeline)>) -> (Self, Receiver<Value>) {
        let (lines, printed) = sync_channel(LINES_MAX);
        let drawing = timeline.map(|(path, timeline)| Drawing {
            timeline: Mutex::new(timeline),
            path,
        });
        let journal = Self {
            start: Instant::now(),
            lines,
            dropped: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            drawing,
        };
        (journal, printed)
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether nobody reads what is printed.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Prints what comes until [`close`](Self::close).
    pub(crate) fn print(&self, lines: &Receiver<Value>) {
        while let Ok(line) = lines.recv() {
            if line.is_null() {
                return;
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            let dropped = (dropped > 0).then(|| json!({ "event": "dropped", "lines": dropped }));
            for line in [Some(line), dropped].into_iter().flatten() {
                let mut out = io::stdout().lock();
                // One write a line, so that a reader never sees half of one for long.
                let written = out.write_all(format!("{line}\n").as_bytes());
                if written.and_then(|()| out.flush()).is_err() {
                    self.unread.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// The last line was told. Waits until there is room to say so.
    pub(crate) fn close(&self) {
        // Fails when nobody prints any more.
        let _ = self.lines.send(Value::Null);
    }

    fn say(&self, event: &str, own: Sid, rest: Value) {
        self.say_at(self.now(), event, own, rest);
    }

    fn say_at(&self, at: Duration, event: &str, own: Sid, rest: Value) {
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
            Err(TrySendError::Disconnected(_)) => self.unread.store(true, Ordering::Relaxed),
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

    /// The end: draws a part of an election, if no whole one was drawn.
    pub(crate) fn draw_rest(&self, own: Sid) {
        if let Some(drawing) = &self.drawing {
            let timeline = drawing.lock();
            if !timeline.was_over() {
                let picture = timeline.draw();
                drawing.write(self, own, &picture);
            }
        }
    }

    /// Anything that is neither a message nor a vote.
    pub(crate) fn tell(&self, event: &str, own: Sid, rest: Value) {
        self.say(event, own, rest);
    }

    pub(crate) fn error(&self, own: Sid, message: &str) {
        self.say("error", own, json!({ "message": message }));
    }

    pub(crate) fn looking(&self, own: Sid, round: i64, why: &str) {
        let at = self.now();
        self.draw(at, own, Fact::Looking { round });
        self.say_at(at, "looking", own, json!({ "round": round, "why": why }));
    }

    pub(crate) fn vote(&self, own: Sid, vote: Vote) {
        let at = self.now();
        self.draw(at, own, Fact::Vote(vote));
        self.say_at(at, "vote", own, of_vote(vote));
    }

    /// What became of what was sent at this time.
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
        self.say_at(at, "sent", own, line);
    }

    pub(crate) fn received(&self, own: Sid, from: Sid, notification: Notification) {
        let at = self.now();
        self.draw(at, own, Fact::Received(from, notification));
        let mut line = message("from", from, &notification);
        line["version"] = notification.version.into();
        self.say_at(at, "received", own, line);
    }

    pub(crate) fn elected(&self, own: Sid, outcome: Outcome, took: Duration) {
        let Outcome {
            state,
            vote,
            was_told,
        } = outcome;
        let how = if was_told { "told" } else { "votes" };
        let at = self.now();
        self.say_at(
            at,
            "elected",
            own,
            json!({
                "leader": vote.leader.0, "round": vote.round, "state": state.name(),
                "ms": took.as_millis() as u64, "by": how, "zxid": format!("{:#x}", vote.zxid),
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

    fn write(&self, journal: &Journal, own: Sid, picture: &str) {
        match std::fs::write(&self.path, picture) {
            Ok(()) => {
                let path = self.path.display().to_string();
                journal.say("timeline", own, json!({ "file": path }));
            }
            Err(error) => {
                let path = self.path.display();
                journal.error(own, &format!("cannot write the timeline {path}: {error}"));
            }
        }
    }
}

fn millis(time: Duration) -> Value {
    // To the microsecond, which a float holds exactly enough.
    (time.as_micros() as f64 / 1000.0).into()
}

fn of_vote(vote: Vote) -> Value {
    json!({
        "leader": vote.leader.0, "round": vote.round, "zxid": format!("{:#x}", vote.zxid),
        "epoch": vote.epoch,
    })
}

fn message(way: &str, other: Sid, notification: &Notification) -> Value {
    let mut line = Map::new();
    line.insert(way.into(), other.0.into());
    if notification.is_question() {
        // It holds no vote.
        line.insert("question".into(), true.into());
        return Value::Object(line);
    }
    line.insert("state".into(), notification.state.name().into());
    if let Value::Object(vote) = of_vote(notification.vote) {
        line.extend(vote);
    }
    Value::Object(line)
}
