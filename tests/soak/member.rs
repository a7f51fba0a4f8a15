//! One member: a process of the program `peer` that can be killed, started again, stopped and continued, and whose
//! output can be left unread.
//!
//! Nothing here waits for the process, but for the answer to a question.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    account::Account,
    common::{LONG, Vacant, process::Holdings, program},
    judge::Judge,
};

/// Commands that wait for a process that does not take them; more are not given.
const COMMANDS_MAX: usize = 32;

pub(crate) struct Member {
    pub(crate) sid: i64,
    /// Keeps the port for this member while it is away.
    place: Vacant,
    options: Vec<String>,
    judge: Arc<Judge>,
    process: Option<Process>,
}

/// What there is of a member from its start to its end.
struct Process {
    child: Child,
    commands: SyncSender<String>,
    /// Frames that it was told to send.
    told: Arc<AtomicU64>,
    tap: Arc<Tap>,
    stats: Receiver<Value>,
}

/// Shut, nobody reads what the process prints.
#[derive(Default)]
struct Tap {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Tap {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap_or_else(PoisonError::into_inner) = is_shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.opened.wait_while(is_shut, |is_shut| *is_shut);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Member {
    pub(crate) fn new(sid: i64, judge: &Arc<Judge>) -> Self {
        Self {
            sid,
            place: Vacant::new(),
            options: Vec::new(),
            judge: Arc::clone(judge),
            process: None,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.place.address
    }

    /// How it is started from now on.
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
        let (commands, to_give) = sync_channel(COMMANDS_MAX);
        let (told, tap) = (Arc::new(AtomicU64::new(0)), Arc::new(Tap::default()));
        thread::spawn({
            let told = Arc::clone(&told);
            move || give(stdin, &to_give, &told)
        });
        let (answers, stats) = channel();
        thread::spawn({
            let (judge, tap, sid) = (Arc::clone(&self.judge), Arc::clone(&tap), self.sid);
            move || {
                for line in lines(stdout, &tap) {
                    match line["event"].as_str() {
                        Some("frame") => judge.on_frame(sid, &line),
                        // Fails when nobody waits for it any more.
                        Some("stats") => drop(answers.send(line)),
                        Some("error") | None => judge.on_wrong(format!("{sid} printed {line}")),
                        Some(_) => {}
                    }
                }
            }
        });
        self.process = Some(Process {
            child,
            commands,
            told,
            tap,
            stats,
        });
    }

    pub(crate) fn is_there(&self) -> bool {
        self.process.is_some()
    }

    /// Without a word to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end();
        }
    }

    /// The process does nothing until it is continued.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            kill(process.pid(), signal).unwrap();
        }
    }

    /// From now on what it prints is read, or is not.
    pub(crate) fn listen(&self, yes: bool) {
        if let Some(process) = &self.process {
            process.tap.set(!yes);
        }
    }

    /// Has it send a frame of so many bytes; if it does not take commands now, it is not told.
    pub(crate) fn send(&self, to: i64, bytes: usize) {
        let Some(process) = &self.process else {
            return;
        };
        let text = self.judge.next(self.sid, to, bytes);
        match process.commands.try_send(format!("send {to} {text}\n")) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// The same, and waits until it takes commands.
    #[track_caller]
    pub(crate) fn send_surely(&self, to: i64, bytes: usize) {
        let text = self.judge.next(self.sid, to, bytes);
        let process = self.process.as_ref().expect("nobody is away");
        process
            .commands
            .send(format!("send {to} {text}\n"))
            .expect("it takes commands");
    }

    /// Its counters, and how many frames it was told to send before it counted.
    #[track_caller]
    pub(crate) fn account(&self) -> (Account, u64) {
        let process = self.process.as_ref().expect("nobody is away");
        process
            .commands
            .send("stats\n".into())
            .expect("it takes commands");
        match process.stats.recv_timeout(LONG) {
            Ok(stats) => {
                let account = serde_json::from_value(stats).expect("it prints all its counters");
                (account, process.told.load(Ordering::Acquire))
            }
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing for {LONG:?}", self.sid),
            Err(RecvTimeoutError::Disconnected) => panic!("{} has ended", self.sid),
        }
    }

    pub(crate) fn holdings(&self) -> Holdings {
        let process = self.process.as_ref().expect("nobody is away");
        Holdings::of(process.child.id()).expect("it is alive")
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Has it halt, and it must do so in time.
    #[track_caller]
    pub(crate) fn quit(&mut self) {
        let mut process = self.process.take().expect("nobody is away");
        // Fails when it has ended, which is seen below.
        let _ = process.commands.send("quit\n".into());
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = process.child.try_wait().unwrap() {
                assert!(status.success(), "{}: {status}", self.sid);
                return;
            }
            assert!(Instant::now() < deadline, "{} does not halt", self.sid);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    fn pid(&self) -> Pid {
        let number = self.child.id().try_into();
        Pid::from_raw(number.expect("process numbers are far below 2^31"))
    }

    fn end(&mut self) {
        // Whoever waits at the tap reads the rest, and finds the end.
        self.tap.set(false);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    /// No process may outlive a failed test.
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes the commands, and counts the frames among them that are written to their end.
fn give(mut stdin: ChildStdin, commands: &Receiver<String>, told: &AtomicU64) {
    for command in commands {
        if command.starts_with("send ") {
            // Before it can be counted there.
            told.fetch_add(1, Ordering::AcqRel);
        }
        if stdin.write_all(command.as_bytes()).is_err() {
            return;
        }
    }
}

/// What is printed, as long as the tap is open.
fn lines(stdout: ChildStdout, tap: &Tap) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(move |line| {
        tap.pass();
        match serde_json::from_str(&line) {
            Ok(value) => Some(value),
            // It was killed in the middle of it.
            Err(error) if error.is_eof() => None,
            Err(_) => Some(Value::String(line)),
        }
    })
}
