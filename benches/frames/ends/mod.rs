//! The two ends of a measurement: each is started, says that it is ready, and measures between `mark` and `stop`.
//!
//! Nothing here knows of rounds, medians or other programs; that is the harness. Others can be ends as well, since all speak
//! the same lines: `{"ready":"IP:PORT"}` on stdout, then `mark` and `stop` on stdin, then a line of results, an object.

mod control;
mod fans;
mod flows;
mod meshes;
mod ours;
mod pace;
mod payload;
mod raw;
mod received;
mod slows;
mod task;
mod times;
mod trips;
mod walker;
mod waves;
mod window;
mod workers;

use std::io;

use serde_json::{Map, Value};

pub(crate) use control::{Control, Order};
pub(crate) use task::{Role, Task};

use crate::{failure::failure, variants::Way};

/// Runs one end until it is told to stop, and returns what it has measured.
pub(crate) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.variant.way {
        Way::Raw => raw::run(task, control),
        _ => ours::run(task, control),
    }
}

/// What can be shown without another end.
pub(crate) fn check() -> io::Result<()> {
    walker::check()
}

/// For what has only one.
fn no_other_end() -> io::Result<Map<String, Value>> {
    Err(failure(
        "all servers of a mesh are in the process of `drive`: start only that, without --to",
    ))
}
