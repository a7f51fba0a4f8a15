//! Obeys what comes on standard input.
//!
//! A command that cannot be obeyed is an `error` event and ends nothing.

use std::{
    io::{self, BufRead as _},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{Handle, Sid};
use serde_json::{Value, json};

use crate::{
    json::{failure, outcome, stats},
    lines::Lines,
};

/// Each command, and what it does.
pub(crate) const COMMANDS: [(&str, &str); 8] = [
    (
        "send SID TEXT",
        "holds out TEXT, the rest of the line, to the server SID",
    ),
    ("hex SID HEX", "the same with bytes in hexadecimal"),
    ("connect SID", "asks for a link to SID"),
    ("connect-all", "asks for a link to everybody"),
    ("stats", "prints all counters"),
    (
        "flush",
        "the next command waits until nothing waits for any peer",
    ),
    ("help", "prints these commands"),
    ("quit", "halts"),
];

/// The reader of commands, and the way to the loop.
pub(crate) struct Commands {
    pub(crate) lines: Arc<Lines>,
    pub(crate) handle: Handle,
}

impl Commands {
    pub(crate) fn run(&self) {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => self.obey(&line),
                Err(error) => return self.say(failure(&format!("cannot read commands: {error}"))),
            }
        }
    }

    fn say(&self, value: Value) {
        self.lines.answer(|_| value);
    }

    fn obey(&self, line: &[u8]) {
        let line = match std::str::from_utf8(line) {
            Ok(line) => line.trim_end_matches(['\n', '\r']),
            Err(_) => return self.say(failure("a command is not UTF-8")),
        };
        if let Err(why) = self.dispatch(line) {
            self.say(failure(&why));
        }
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
            "stats" => self
                .lines
                .answer(|state| stats(&self.handle.stats(), state)),
            "flush" => self.flush(),
            "help" => self.say(help()),
            "quit" => self.handle.request_halt(),
            "" => {}
            other => return Err(format!("there is no command `{other}`")),
        }
        Ok(())
    }

    fn send(&self, sid: Sid, frame: Bytes) {
        // Under the lock, so that no answer is printed before it.
        self.lines
            .answer(|_| match self.handle.to_send(sid, frame) {
                Ok(sent) => json!({ "event": "sent", "sid": sid.0, "outcome": outcome(sent) }),
                Err(error) => failure(&error.to_string()),
            });
    }

    fn flush(&self) {
        while !self.handle.have_delivered() && !self.handle.is_halted() {
            // The library has no call that waits for this, and this program is in no hurry.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn help() -> Value {
    let lines = COMMANDS.map(|(command, does)| format!("{command}: {does}"));
    json!({ "event": "help", "commands": lines })
}

/// A server id, and what follows it.
fn sid_and(rest: &str) -> Result<(Sid, &str), String> {
    let (sid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let sid = sid
        .parse()
        .map_err(|_| format!("`{sid}` is no server id"))?;
    Ok((Sid(sid), rest))
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
