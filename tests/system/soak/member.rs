//! One member: a process of the program `peer` that can be killed, restarted, stopped and continued, and whose output can be
//! left unread.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use support::{
    LONG, ReservedAddress, eventually,
    gate::Gate,
    process::ProcessResources,
    program,
    signal::{Signal, signal},
};

use crate::frame_checker::FrameChecker;

/// Commands that wait for a process that does not read them. Further commands are dropped.
const COMMANDS_MAX: usize = 32;

pub(crate) struct Member {
    pub(crate) sid: i64,
    /// Reserves the port for this member while it is not running.
    port: ReservedAddress,
    options: Vec<String>,
    checker: Arc<FrameChecker>,
    process: Option<Process>,
    /// Those that are no members for its process now.
    removed: BTreeSet<i64>,
}

/// A running process of a member.
struct Process {
    child: Child,
    commands: SyncSender<String>,
    /// Number of `send` commands.
    sent_commands: Arc<AtomicU64>,
    /// While it is closed, the output of the process is not read.
    gate: Arc<Gate>,
    stats: Receiver<Value>,
    /// Reads the output. `None` once it was joined.
    reader: Option<JoinHandle<()>>,
}

impl Member {
    pub(crate) fn new(sid: i64, checker: &Arc<FrameChecker>) -> Self {
        Self {
            sid,
            port: ReservedAddress::new(),
            options: Vec::new(),
            checker: Arc::clone(checker),
            process: None,
            removed: BTreeSet::new(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.port.address
    }

    /// Sets the options of later starts.
    pub(crate) fn set_options(&mut self, options: Vec<String>) {
        self.options = options;
    }

    pub(crate) fn start(&mut self) {
        let mut child = program::program()
            .args(["--sid", &self.sid.to_string()])
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (commands, received) = sync_channel(COMMANDS_MAX);
        let (sent_commands, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Gate::default()));
        thread::spawn({
            let sent_commands = Arc::clone(&sent_commands);
            move || write_commands(stdin, &received, &sent_commands)
        });
        let (answers, stats) = channel();
        let reader = thread::spawn({
            let (checker, gate, sid) = (Arc::clone(&self.checker), Arc::clone(&gate), self.sid);
            move || {
                for line in lines(stdout, &gate) {
                    match line["event"].as_str() {
                        Some("frame") => checker.on_frame(sid, &line),
                        // Fails if the receiver is gone.
                        Some("stats") => drop(answers.send(line)),
                        Some("error") | None => checker.on_failure(format!("{sid} printed {line}")),
                        Some(_) => {}
                    }
                }
            }
        });
        self.process = Some(Process {
            child,
            commands,
            sent_commands,
            gate,
            stats,
            reader: Some(reader),
        });
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the process with `SIGKILL`.
    pub(crate) fn kill(&mut self) {
        self.removed.clear();
        if let Some(mut process) = self.process.take() {
            process.end();
        }
    }

    /// Stops the process until it is resumed.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, which: Signal) {
        if let Some(process) = &self.process {
            signal(process.child.id(), which).unwrap();
        }
    }

    /// Sets whether its output is read.
    pub(crate) fn read_output(&self, is_read: bool) {
        match &self.process {
            Some(process) if is_read => process.gate.open(),
            Some(process) => process.gate.close(),
            None => {}
        }
    }

    /// Tells it to send a frame of this length, unless its command queue is full or the other one is no member.
    pub(crate) fn send(&self, to: i64, bytes: usize) {
        if self.removed.contains(&to) || self.process.is_none() {
            return;
        }
        let text = self.checker.next(self.sid, to, bytes);
        let _ = self.tell(format!("send {to} {text}\n"));
    }

    /// Returns whether the command will be executed: not if the command queue is full.
    fn tell(&self, command: String) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.commands.try_send(command).is_ok())
    }

    pub(crate) fn has_removed(&self, sid: i64) -> bool {
        self.removed.contains(&sid)
    }

    /// Removes another one from its members, with this time for the frames that wait.
    pub(crate) fn remove(&mut self, sid: i64, leave: Option<Duration>) {
        let time = leave.map_or_else(String::new, |time| format!(" {}", time.as_millis()));
        if self.tell(format!("remove {sid}{time}\n")) {
            self.removed.insert(sid);
        }
    }

    /// Takes another one back, or gives it another address.
    pub(crate) fn set_server(&mut self, sid: i64, address: &str) {
        if self.tell(format!("server {sid} {address}\n")) {
            self.removed.remove(&sid);
        }
    }

    /// The same, but waits for room in the command queue.
    #[track_caller]
    pub(crate) fn set_server_blocking(&mut self, sid: i64, address: &str) {
        let process = self.process.as_ref().expect("all members run");
        let command = format!("server {sid} {address}\n");
        let commands = &process.commands;
        commands.send(command).expect("the command thread runs");
        self.removed.remove(&sid);
    }

    /// The same, but waits for room in the command queue.
    #[track_caller]
    pub(crate) fn send_blocking(&self, to: i64, bytes: usize) {
        let text = self.checker.next(self.sid, to, bytes);
        let process = self.process.as_ref().expect("all members run");
        process
            .commands
            .send(format!("send {to} {text}\n"))
            .expect("the command thread runs");
    }

    /// Its counters, and the number of frames that it was told to send before.
    #[track_caller]
    pub(crate) fn stats(&self) -> (Value, u64) {
        let process = self.process.as_ref().expect("all members run");
        process
            .commands
            .send("stats\n".into())
            .expect("the command thread runs");
        match process.stats.recv_timeout(LONG) {
            Ok(stats) => (stats, process.sent_commands.load(Ordering::Acquire)),
            Err(RecvTimeoutError::Timeout) => panic!("{} does not answer for {LONG:?}", self.sid),
            Err(RecvTimeoutError::Disconnected) => panic!("{} has ended", self.sid),
        }
    }

    pub(crate) fn holdings(&self) -> ProcessResources {
        let process = self.process.as_ref().expect("all members run");
        ProcessResources::of(process.child.id()).expect("it is alive")
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Halts it, and checks that it ends in time.
    #[track_caller]
    pub(crate) fn quit(&mut self) {
        let mut process = self.process.take().expect("all members run");
        // Fails if it has ended, which is checked below.
        let _ = process.commands.send("quit\n".into());
        let mut status = None;
        eventually(&format!("{} halts", self.sid), || {
            status = process.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert!(status.success(), "{}: {status}", self.sid);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    fn end(&mut self) {
        // The thread that waits at the gate reads the rest of the output.
        self.gate.open();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // All of it: the next process gets the newest frames once more, and these are older.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the output is read to its end");
        }
    }
}

impl Drop for Process {
    /// Ends the process, also if the test fails.
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes the commands, and counts the `send` commands.
fn write_commands(mut stdin: ChildStdin, commands: &Receiver<String>, sent_commands: &AtomicU64) {
    for command in commands {
        if command.starts_with("send ") {
            // Count it before the process can.
            sent_commands.fetch_add(1, Ordering::AcqRel);
        }
        if stdin.write_all(command.as_bytes()).is_err() {
            return;
        }
    }
}

/// The lines that the process prints, while the gate is open.
fn lines(stdout: ChildStdout, gate: &Gate) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(move |line| {
        gate.pass();
        match serde_json::from_str(&line) {
            Ok(value) => Some(value),
            // The process was killed while it printed this line.
            Err(error) if error.is_eof() => None,
            Err(_) => Some(Value::String(line)),
        }
    })
}
