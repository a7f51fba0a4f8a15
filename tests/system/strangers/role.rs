//! The processes of the siege: this very program once more, each with a role of its own, told what to do line by line.
//!
//! An order is a JSON object on standard input and has one answer on standard output; the end of the input is the end of
//! the process, so that none outlives who started it.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{self, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Which role this process has; none for who starts the others.
const ROLE: &str = "STRANGERS_ROLE";

/// Only a failure takes this long: an attack in full may take minutes on a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// The role that this process was given.
pub(crate) fn own() -> Option<String> {
    env::var(ROLE).ok()
}

/// The orders to this process.
pub(crate) fn orders() -> impl Iterator<Item = Value> {
    let lines = io::stdin().lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).expect("an order is JSON"))
}

pub(crate) fn answer(value: &Value) {
    // Fails when nobody listens any more; the input ends then, too.
    let _ = writeln!(io::stdout().lock(), "{value}");
}

/// A process with a role.
pub(crate) struct Actor {
    child: process::Child,
    orders: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Actor {
    /// `descriptors`: how many it may have, `"hard"` for as many as it can get.
    pub(crate) fn start(role: &str, descriptors: &str) -> Self {
        let limit = match descriptors {
            "hard" => "ulimit -Sn \"$(ulimit -Hn)\"".to_owned(),
            count => format!("ulimit -Sn {count}"),
        };
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}; exec \"$0\"")])
            .arg(env::current_exe().expect("this program has a path"))
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process can be started");
        let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self {
            orders: child.stdin.take(),
            child,
            answers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, order: &Value) {
        let orders = self.orders.as_mut().expect("taken by the end only");
        writeln!(orders, "{order}").expect("it listens");
    }

    #[track_caller]
    pub(crate) fn hear(&self) -> Value {
        self.answers
            .recv_timeout(LONG)
            .expect("it answers in time; what it died of stands above")
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, order: &Value) -> Value {
        self.tell(order);
        self.hear()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It may hang; both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
