//! Runs the program `election` as one server of an ensemble, and reads the lines that it prints.

use std::time::Instant;

use serde_json::Value;

use crate::{deadlines::DEADLINE, program::Program, server::Ensemble};

pub(crate) struct Voter {
    pub(crate) program: Program,
    pub(crate) sid: i64,
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
        let mut arguments = vec!["--zoo-cfg".to_owned(), file.to_owned()];
        arguments.extend(["--myid".to_owned(), sid.to_string()]);
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        Self {
            program: Program::start_example("election", &arguments),
            sid,
        }
    }

    /// Waits for the first line for which the condition holds, and skips those before it.
    #[track_caller]
    pub(crate) fn await_line(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.program.event_within(left);
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
        self.program.command("stats");
        self.await_event("stats")
    }

    /// Halts it by a command.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.program.command("quit");
        self.await_event("halted");
        assert!(self.program.process.wait().success());
    }
}
