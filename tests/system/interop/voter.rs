//! Runs the program `election` as one server of an ensemble: the commands that are written to it, and the lines that it prints.

use std::{
    io::Write as _,
    process::{ChildStdin, Command},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::example::example_path;

use crate::{
    deadlines::{DEADLINE, wait_until},
    process::Process,
    server::Ensemble,
};

pub(crate) struct Voter {
    pub(crate) process: Process,
    pub(crate) sid: i64,
    commands: ChildStdin,
    lines: Receiver<Value>,
}

impl Voter {
    /// Starts it with the configuration file of the real servers and these options.
    #[track_caller]
    pub(crate) fn start(ensemble: &Ensemble, sid: i64, options: &[&str]) -> Self {
        let file = ensemble.write_configuration(sid).display().to_string();
        Self::start_with(&file, sid, options)
    }

    /// The same with another file.
    #[track_caller]
    pub(crate) fn start_with(file: &str, sid: i64, options: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("election-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(example_path("election"));
        command.args(["--zoo-cfg", file, "--myid", &sid.to_string()]);
        let (sender, lines) = channel();
        let (process, commands) = Process::start_piped(&name, command.args(options), move |line| {
            let line = serde_json::from_str(&line).expect("each line is a JSON object");
            // Fails when the test has ended.
            let _ = sender.send(line);
        });
        Self {
            process,
            sid,
            commands,
            lines,
        }
    }

    /// The next line, if it is printed within this time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<Value> {
        self.lines.recv_timeout(time).ok()
    }

    /// Waits for the first line for which the condition holds, and skips those before it.
    #[track_caller]
    pub(crate) fn await_line(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.line_within(left);
            let line = line.unwrap_or_else(|| panic!("server {}: no {what}", self.sid));
            if matches(&line) {
                return line;
            }
        }
    }

    /// Waits for the next event of this kind.
    #[track_caller]
    pub(crate) fn await_event(&self, kind: &str) -> Value {
        self.await_line(kind, |line| line["event"] == kind)
    }

    /// Waits until it follows this leader, or leads if that is its own sid.
    #[track_caller]
    pub(crate) fn await_elected(&self, leader: i64) -> Value {
        let state = match leader == self.sid {
            true => "leading",
            false => "following",
        };
        self.await_line("the leader", |line| {
            line["event"] == "elected" && line["leader"] == leader && line["state"] == state
        })
    }

    #[track_caller]
    pub(crate) fn stats(&mut self) -> Value {
        self.command("stats");
        self.await_event("stats")
    }

    /// Waits until it is linked to these servers and to no other one.
    #[track_caller]
    pub(crate) fn await_links(&mut self, sids: &[i64]) {
        let linked = json!(sids);
        wait_until("it is linked to the members", || {
            self.stats()["linked"] == linked
        });
    }

    /// Halts it by a command.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.command("quit");
        self.await_event("halted");
        assert!(self.process.wait().success());
    }

    fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the program reads commands");
    }
}

/// Who joined, left and moved, as `reconfigured` says.
pub(crate) fn lists(line: &Value) -> [&Value; 3] {
    [&line["joined"], &line["left"], &line["moved"]]
}
