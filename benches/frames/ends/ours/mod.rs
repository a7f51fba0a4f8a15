//! The library: as a handler on the loop, as a loop that the application turns, as a manager with an inbox.
//!
//! Nothing here knows what the figures are compared to.

mod flow;
mod latency;
mod setup;

use std::io;

use serde_json::{Map, Value};

use super::{Control, Role, Task};
use crate::workloads::Workload;

pub(super) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match (task.workload, task.role) {
        (Workload::Latency, Role::Serve) => latency::serve(task, control),
        (Workload::Latency, Role::Drive) => latency::drive(task, control),
        (Workload::Latest | Workload::Lossless, Role::Serve) => flow::serve(task, control),
        (Workload::Latest | Workload::Lossless, Role::Drive) => flow::drive(task, control),
        _ => Err(crate::failure::failure("not yet")),
    }
}
