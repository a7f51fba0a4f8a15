//! Executes the commands on standard input.
//!
//! A command that fails prints an `error` event, and the next command is read.

use std::{io, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use quorum_cnx::{Changes, Handle, Leave, ReconfigureError, Sid};
use serde_json::{Value, json};

use crate::{
    input::next_line,
    json::{failure, members, outcome, stats},
    lines::Lines,
};

/// The commands, each with its description.
pub(crate) const COMMANDS: [(&str, &str); 10] = [
    (
        "send SID TEXT",
        "sends TEXT, the rest of the line, to the server SID",
    ),
    ("hex SID HEX", "the same with bytes in hexadecimal"),
    ("connect SID", "dials SID now, if it has no link"),
    ("connect-all", "dials every server without a link now"),
    (
        "server SID HOST:PORT[|HOST:PORT]",
        "adds SID, or changes its addresses",
    ),
    (
        "remove SID [MS]",
        "removes the server SID; what waits may be written for MS ms",
    ),
    ("stats", "prints all counters"),
    (
        "flush",
        "delays the next command until no frame waits for any peer",
    ),
    ("help", "prints these commands"),
    (
        "quit [MS]",
        "halts; with MS, when the peers have read all, or after MS ms",
    ),
];

/// Reads the commands, and passes them to the loop.
pub(crate) struct Commands {
    pub(crate) lines: Arc<Lines>,
    pub(crate) handle: Handle,
}

impl Commands {
    pub(crate) fn run(&self) {
        let mut input = io::stdin().lock();
        loop {
            let done = match next_line(&mut input) {
                Ok(None) => return,
                Ok(Some(line)) => line.and_then(|line| self.dispatch(&line)),
                Err(error) => {
                    return self.print(failure(&format!("cannot read commands: {error}")));
                }
            };
            if let Err(why) = done {
                self.print(failure(&why));
            }
        }
    }

    fn print(&self, value: Value) {
        self.lines.answer(|_| value);
    }

    fn dispatch(&self, line: &str) -> Result<(), String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "send" => {
                let (sid, text) = sid_and(rest)?;
                self.send(sid, Bytes::copy_from_slice(text.as_bytes()));
            }
            "hex" => {
                let (sid, text) = sid_and(rest)?;
                self.send(sid, unhex(text)?.into());
            }
            "connect" => {
                let (sid, _) = sid_and(rest)?;
                self.handle
                    .connect_one(sid)
                    .map_err(|error| error.to_string())?;
            }
            "connect-all" => self.handle.connect_all(),
            "server" => {
                let (sid, addresses) = sid_and(rest)?;
                self.report(self.handle.set_server(sid, addresses));
            }
            "remove" => {
                let (sid, rest) = sid_and(rest)?;
                let leave = time(rest)?.map_or(Leave::Now, Leave::After);
                self.report(self.handle.remove_server(sid, leave));
            }
            "stats" => self
                .lines
                .answer(|state| stats(&self.handle.stats(), state)),
            "flush" => self.flush(),
            "help" => self.print(help()),
            "quit" => match time(rest)? {
                None => self.handle.request_halt(),
                Some(within) => self.handle.request_shutdown(within),
            },
            "" => {}
            other => {
                return Err(format!(
                    "there is no command `{other}`; `help` shows the commands"
                ));
            }
        }
        Ok(())
    }

    fn report(&self, changes: Result<Changes, ReconfigureError>) {
        self.print(match changes {
            Ok(changes) => members(&changes),
            Err(error) => failure(&error.to_string()),
        });
    }

    fn send(&self, sid: Sid, frame: Bytes) {
        // Sent under the lock, so that no answer of the peer is printed before the outcome.
        self.lines
            .answer(|_| match self.handle.to_send(sid, frame) {
                Ok(sent) => json!({ "event": "sent", "sid": sid.0, "outcome": outcome(sent) }),
                Err(error) => failure(&error.to_string()),
            });
    }

    fn flush(&self) {
        while !self.handle.have_delivered() && !self.handle.is_halted() {
            // The library has no call that blocks until nothing waits for any peer.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn help() -> Value {
    let lines = COMMANDS.map(|(command, description)| format!("{command}: {description}"));
    json!({ "event": "help", "commands": lines })
}

/// A server id, and the rest of the line after it.
fn sid_and(rest: &str) -> Result<(Sid, &str), String> {
    let (sid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if sid.is_empty() {
        return Err("the id of a server is missing; `help` shows the commands".into());
    }
    let sid = sid
        .parse()
        .map_err(|_| format!("`{sid}` is no server id"))?;
    Ok((Sid(sid), rest))
}

/// A number of milliseconds, if there is one.
fn time(text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = text.parse().map(Duration::from_millis);
    time.map(Some)
        .map_err(|_| format!("`{text}` is no number of milliseconds"))
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .map(|digit| digit as u8)
            .ok_or("this is not hexadecimal")
    };
    if text.len() % 2 != 0 {
        return Err("a hexadecimal digit is missing".into());
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}
