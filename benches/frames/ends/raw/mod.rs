//! The limit: the same frames over bare sockets with the same options.
//!
//! Nothing here uses the library.

mod flow;
mod latency;
mod link;

use std::io;

use serde_json::{Map, Value};

pub(crate) use link::listen;

use super::{Control, Role, Task};
use crate::workloads::Workload;

pub(super) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match (task.workload, task.role) {
        (Workload::Latency, Role::Serve) => latency::serve(task, control),
        (Workload::Latency, Role::Drive) => latency::drive(task, control),
        (Workload::Latest | Workload::Lossless | Workload::Stream, Role::Serve) => {
            flow::serve(task, control)
        }
        (Workload::Latest | Workload::Lossless | Workload::Stream, Role::Drive) => {
            flow::drive(task, control)
        }
        _ => Err(crate::failure::failure("not yet")),
    }
}
