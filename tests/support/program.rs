//! Runs the program `peer` as a process: the commands that are written to it, and the lines that it prints.
//!
//! Nothing here uses the library.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{LONG, eventually, example::example_path};

pub fn program_path() -> PathBuf {
    example_path("peer")
}

pub fn program() -> Command {
    let mut command = Command::new(program_path());
    command.env_remove("RUST_LOG");
    command
}

/// A running peer.
pub struct Peer {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub lines: Receiver<Value>,
}

impl Peer {
    pub fn start(sid: i64, servers: &[(i64, &str)], options: &[&str]) -> Self {
        Self::start_by(program(), sid, servers, options)
    }

    /// Starts the program by this command, to which its arguments are added.
    pub fn start_by(command: Command, sid: i64, servers: &[(i64, &str)], options: &[&str]) -> Self {
        let mut peer = Self::spawn(command, sid, servers, options);
        peer.read();
        peer
    }

    /// Starts it without a thread that reads what it prints.
    pub fn start_unread(sid: i64, servers: &[(i64, &str)], options: &[&str]) -> Self {
        Self::spawn(program(), sid, servers, options)
    }

    fn spawn(mut command: Command, sid: i64, servers: &[(i64, &str)], options: &[&str]) -> Self {
        command.args(["--sid", &sid.to_string()]).args(options);
        for (sid, address) in servers {
            command.args(["--server", &format!("{sid}={address}")]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            child,
            lines: channel().1,
        }
    }

    pub fn read(&mut self) {
        let stdout = BufReader::new(self.child.stdout.take().unwrap());
        let (sender, lines) = channel();
        self.lines = lines;
        thread::spawn(move || {
            for line in stdout.lines() {
                // A line that is not JSON becomes a string, which no test expects.
                let line = line.unwrap();
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
    }

    pub fn tell(&mut self, commands: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(commands.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    /// The next line with this event; those before it are skipped.
    #[track_caller]
    pub fn next(&self, event: &str) -> Value {
        let deadline = Instant::now() + LONG;
        let mut skipped = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line["event"] == event => return line,
                Ok(line) => skipped.push(line),
                Err(error) => panic!("no {event:?}, {error}, after {skipped:#?}"),
            }
        }
    }

    /// Writes the command `stats`, and returns the answer.
    #[track_caller]
    pub fn stats(&mut self) -> Value {
        self.tell("stats");
        self.next("stats")
    }

    /// Waits until it ends: its exit code, the rest of its lines, and its standard error.
    #[track_caller]
    pub fn end(mut self) -> (Option<i32>, Vec<Value>, String) {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        (status.unwrap().code(), self.lines.iter().collect(), errors)
    }

    /// Halts it by `quit`. It must print no error, and exit with 0.
    #[track_caller]
    pub fn quit(mut self) {
        self.tell("quit");
        let (code, rest, errors) = self.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert_eq!(rest.last(), Some(&json!({ "event": "halted" })));
    }
}

impl Drop for Peer {
    /// No process may outlive a failed test.
    fn drop(&mut self) {
        // Fails when the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
