//! Controls one end of a measurement: a process, or a thread of this process.

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

/// Time for an end to exit after its results.
const EXIT: Duration = Duration::from_secs(10);

/// An end that is running.
pub(crate) enum End {
    /// A child process, controlled over stdin and stdout.
    Process(Process),
    /// A thread of this process.
    Thread {
        name: String,
        orders: Sender<Order>,
        answers: Receiver<io::Result<Value>>,
    },
}

impl End {
    /// Starts an end on a thread of this process.
    pub(crate) fn thread(name: String, task: Task) -> Self {
        let (sender, answers) = channel();
        let answer = sender.clone();
        let at_most = Duration::from_secs(task.at_most().into());
        // Sending fails if the measurement has failed already.
        let (orders, control) = Control::of_thread(at_most, move |value| {
            let _ = answer.send(Ok(value));
        });
        thread::spawn(move || {
            let _ = sender.send(ends::run(&task, &control).map(Value::from));
        });
        Self::Thread {
            name,
            orders,
            answers,
        }
    }

    /// The process, if it is one of its own.
    pub(crate) fn process(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(process.id()),
            Self::Thread { .. } => None,
        }
    }

    /// Sends an order.
    pub(crate) fn order(&mut self, order: Order) -> io::Result<()> {
        match self {
            Self::Process(process) => process.write_line(match order {
                Order::Mark => "mark",
                Order::Stop => "stop",
            }),
            // Fails if the end has failed, which `read_answer` reports.
            Self::Thread { orders, .. } => {
                let _ = orders.send(order);
                Ok(())
            }
        }
    }

    /// Reads an answer: a JSON object.
    pub(crate) fn read_answer(
        &self,
        what: &str,
        within: Duration,
    ) -> io::Result<Map<String, Value>> {
        let value = match self {
            Self::Process(process) => {
                let line = process.read_line(what, within)?;
                serde_json::from_str(&line).context(format_args!("`{line}` instead of {what}"))?
            }
            Self::Thread { name, answers, .. } => match answers.recv_timeout(within) {
                Ok(answer) => answer.context(name)?,
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
            other => Err(failure(format_args!("`{other}` instead of {what}"))),
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
