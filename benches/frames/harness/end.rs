//! One end of a measurement as the harness sees it: a process, or a thread of this one.
//!
//! Nothing here knows what is measured.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use serde_json::{Map, Value};

use super::child::Process;
use crate::{
    ends::{self, Control, Order, Task},
    failure::{While, failure},
};

/// How long an end may take to exit once it has told its results.
const EXIT: Duration = Duration::from_secs(10);

/// An end that is running.
pub(crate) enum End {
    /// Spoken to over stdin and stdout.
    Process(Process),
    /// In this process.
    Thread {
        name: String,
        orders: Sender<Order>,
        said: Receiver<io::Result<Value>>,
    },
}

impl End {
    /// Starts an end on a thread of this process.
    pub(crate) fn thread(name: String, task: Task) -> Self {
        let (answers, said) = channel();
        let say = answers.clone();
        let at_most = Duration::from_secs(task.at_most().into());
        // Nobody hears an end whose measurement has failed already.
        let (orders, control) = Control::of_thread(at_most, move |value| {
            let _ = say.send(Ok(value));
        });
        thread::spawn(move || {
            let _ = answers.send(ends::run(&task, &control).map(Value::from));
        });
        Self::Thread { name, orders, said }
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: Order) -> io::Result<()> {
        match self {
            Self::Process(process) => process.say(match order {
                Order::Mark => "mark",
                Order::Stop => "stop",
            }),
            // One that has failed says so itself.
            Self::Thread { orders, .. } => {
                let _ = orders.send(order);
                Ok(())
            }
        }
    }

    /// Hears a line: an object.
    pub(crate) fn hear(&self, what: &str, within: Duration) -> io::Result<Map<String, Value>> {
        let value = match self {
            Self::Process(process) => {
                let line = process.hear(what, within)?;
                serde_json::from_str(&line).context(format_args!("`{line}` in place of {what}"))?
            }
            Self::Thread { name, said, .. } => match said.recv_timeout(within) {
                Ok(said) => said.context(name)?,
                Err(RecvTimeoutError::Timeout) => {
                    let within = within.as_secs();
                    return Err(failure(format_args!(
                        "{name} gave no {what} within {within} s"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failure(format_args!("{name} has panicked")));
                }
            },
        };
        match value {
            Value::Object(object) => Ok(object),
            other => Err(failure(format_args!("`{other}` in place of {what}"))),
        }
    }

    /// Waits until it has ended.
    pub(crate) fn end(self) -> io::Result<()> {
        match self {
            Self::Process(process) => process.end(EXIT),
            Self::Thread { .. } => Ok(()),
        }
    }
}
