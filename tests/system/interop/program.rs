//! The command line programs `peer` and `election` of the examples, as an operator runs them.
//!
//! Nothing here reads more of its lines than it is asked for.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{ChildStdin, Command},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cnx_peer::{of_hex, to_hex},
    patience::PATIENCE,
    process::Process,
};

pub(crate) struct Program {
    pub(crate) process: Process,
    commands: ChildStdin,
    events: Receiver<Value>,
}

impl Program {
    /// Starts the peer.
    #[track_caller]
    pub(crate) fn start(arguments: &[String]) -> Self {
        Self::start_example("peer", arguments)
    }

    #[track_caller]
    pub(crate) fn start_example(example: &str, arguments: &[String]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{example}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(place(example));
        let mut process = Process::start(&name, command.args(arguments), true);
        let commands = process.child.stdin.take().expect("it is piped");
        let output = process.child.stdout.take().expect("it is piped");
        let (sender, events) = channel();
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                let event = serde_json::from_str(&line).expect("each line is a JSON object");
                // Fails when the test has ended, which then has no more use for it.
                let _ = sender.send(event);
            }
        });
        Self {
            process,
            commands,
            events,
        }
    }

    /// Gives a command.
    pub(crate) fn order(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it takes commands");
    }

    pub(crate) fn send(&mut self, to: i64, payload: &[u8]) {
        self.order(&format!("hex {to} {}", to_hex(payload)));
    }

    /// The next event, if one comes soon.
    pub(crate) fn event_within(&self, time: Duration) -> Option<Value> {
        self.events.recv_timeout(time).ok()
    }

    /// Waits for the first event of this kind from or about this server, and skips those before it.
    #[track_caller]
    pub(crate) fn await_event(&self, kind: &str, sid: Option<i64>) -> Value {
        loop {
            let event = self.event_within(PATIENCE);
            let event = event.unwrap_or_else(|| panic!("{kind} of {sid:?} does not come"));
            if event["event"] == kind && event["sid"].as_i64() == sid {
                return event;
            }
        }
    }

    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.order("quit");
        self.await_event("halted", None);
        assert!(self.process.wait().success());
    }
}

/// The payload of a frame, if the event is one, and its sender.
pub(crate) fn frame(event: &Value) -> Option<(i64, Vec<u8>)> {
    let hex = event["hex"].as_str()?;
    Some((event["sid"].as_i64()?, of_hex(hex)))
}

/// Cargo puts examples beside the directory of the tests.
fn place(example: &str) -> PathBuf {
    let test = env::current_exe().expect("this test lies somewhere");
    let mut place = test;
    place.pop();
    place.pop();
    place.extend(["examples", example]);
    assert!(
        place.exists(),
        "INTEROP WAS NOT RUN: there is no {}, build it with `cargo build --examples`",
        place.display()
    );
    place
}
