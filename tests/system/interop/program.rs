//! Runs the examples `peer` and `election` as processes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Command},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use support::example::example_path;

use crate::{
    cnx_peer::{from_hex, to_hex},
    deadlines::DEADLINE,
    process::Process,
};

pub(crate) struct Program {
    pub(crate) process: Process,
    commands: ChildStdin,
    events: Receiver<Value>,
}

impl Program {
    /// Starts the example `peer`.
    #[track_caller]
    pub(crate) fn start(arguments: &[String]) -> Self {
        Self::start_example("peer", arguments)
    }

    #[track_caller]
    pub(crate) fn start_example(example: &str, arguments: &[String]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{example}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(example_path(example));
        let mut process = Process::start(&name, command.args(arguments), true);
        let commands = process.child.stdin.take().expect("the stream is piped");
        let output = process.child.stdout.take().expect("the stream is piped");
        let (sender, events) = channel();
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                let event = serde_json::from_str(&line).expect("each line is a JSON object");
                // Fails when the test has ended.
                let _ = sender.send(event);
            }
        });
        Self {
            process,
            commands,
            events,
        }
    }

    /// Writes a command to its standard input.
    pub(crate) fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the program reads commands");
    }

    pub(crate) fn send(&mut self, to: i64, payload: &[u8]) {
        self.command(&format!("hex {to} {}", to_hex(payload)));
    }

    /// The next event, if it arrives within this time.
    pub(crate) fn event_within(&self, time: Duration) -> Option<Value> {
        self.events.recv_timeout(time).ok()
    }

    /// Waits for the first event of this kind with this sid, and skips those before it.
    #[track_caller]
    pub(crate) fn await_event(&self, kind: &str, sid: Option<i64>) -> Value {
        loop {
            let event = self.event_within(DEADLINE);
            let event = event.unwrap_or_else(|| panic!("no event {kind} of {sid:?}"));
            if event["event"] == kind && event["sid"].as_i64() == sid {
                return event;
            }
        }
    }

    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.command("quit");
        self.await_event("halted", None);
        assert!(self.process.wait().success());
    }
}

/// The sender and the payload of a frame, if the event is one.
pub(crate) fn frame(event: &Value) -> Option<(i64, Vec<u8>)> {
    let hex = event["hex"].as_str()?;
    Some((event["sid"].as_i64()?, from_hex(hex)))
}
