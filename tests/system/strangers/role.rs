//! Starts this program again in other roles, and sends orders to these processes.
//!
//! An order is a JSON object on a line of standard input. It has one answer on standard output. At the end of its input a process
//! ends, so that none outlives its parent.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{self, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

/// The environment variable with the role of a process. The parent has none.
const ROLE: &str = "STRANGERS_ROLE";

/// Deadline of an answer. Only a failure reaches it: a full attack may take minutes on a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// The role of this process.
pub(crate) fn own() -> Option<String> {
    env::var(ROLE).ok()
}

/// The orders to this process.
pub(crate) fn orders() -> impl Iterator<Item = Value> {
    let lines = io::stdin().lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).expect("an order is JSON"))
}

pub(crate) fn answer(value: &Value) {
    // Fails when the parent has ended. Then the input ends, too.
    let _ = writeln!(io::stdout().lock(), "{value}");
}

/// A process with a role.
pub(crate) struct Actor {
    child: process::Child,
    orders: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Actor {
    /// `descriptors` is its limit of descriptors. `"hard"` means the hard limit.
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
        let lines = BufReader::new(child.stdout.take().expect("the stream is piped")).lines();
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

    pub(crate) fn send_order(&mut self, order: &Value) {
        let orders = self.orders.as_mut().expect("taken only on drop");
        writeln!(orders, "{order}").expect("the process reads orders");
    }

    #[track_caller]
    pub(crate) fn recv_answer(&self) -> Value {
        self.answers
            .recv_timeout(LONG)
            .expect("the process answers in time; a panic of it is printed above")
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, order: &Value) -> Value {
        self.send_order(order);
        self.recv_answer()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // The process may hang. Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
