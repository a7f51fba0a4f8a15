//! The two ends of a measurement. `serve` listens and receives, `drive` connects and sends. Each reports that it is ready, and
//! measures between `mark` and `stop`.
//!
//! Other programs can be ends, too, since all use the same protocol: `{"ready":"IP:PORT"}` on stdout, then `mark` and `stop` on
//! stdin, then one line of results on stdout, a JSON object.

#[cfg(feature = "tls")]
mod certificates;
mod control;
mod fan_out_counts;
mod fans;
mod flows;
mod frame_parser;
mod meshes;
mod ours;
mod payload;
mod raw;
mod received;
mod slows;
mod task;
mod ticker;
mod times;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod trips;
mod window;
mod workers;

use std::io;

use serde_json::{Map, Value};

pub(crate) use control::{Control, Order};
pub(crate) use task::{Role, Task};
#[cfg(target_os = "linux")]
pub(crate) use times::Times;

use crate::{failure::failure, variants::Api};

/// Runs one end until it must stop, and returns its results.
pub(crate) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.variant.api {
        Api::Raw => raw::run(task, control),
        _ => ours::run(task, control),
    }
}

/// Tests what needs no second end.
pub(crate) fn check() -> io::Result<()> {
    frame_parser::check()
}

/// The error of `serve` in a workload with one end.
fn no_other_end() -> io::Result<Map<String, Value>> {
    Err(failure(
        "all servers of a mesh are in the process of `drive`: start only that, without --to",
    ))
}

/// The error of bare sockets in a workload that they do not have.
fn no_bare_sockets() -> io::Result<Map<String, Value>> {
    Err(failure("this workload has no variant with bare sockets"))
}
