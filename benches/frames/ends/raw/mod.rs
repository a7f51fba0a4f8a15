//! Ends that use bare sockets with the same options: the limit to which the library is compared.

mod contended;
mod crowd;
mod fan_out;
mod flow;
mod latency;
mod link;
mod many;
mod mesh;
mod slow_peer;

use std::io;

use serde_json::{Map, Value};

pub(crate) use link::listen;
pub(crate) use many::{BUSY, idle_links};

use super::{Control, Role, Task};
use crate::workloads::Workload;

/// The end that listens.
pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.workload {
        Workload::Latency => latency::serve(task, control),
        Workload::Latest | Workload::Lossless | Workload::Stream | Workload::Delayed => {
            flow::serve(task, control)
        }
        Workload::FanOut | Workload::Contended => crowd::serve(task, control),
        Workload::Many => many::serve(task, control),
        Workload::SlowPeer => slow_peer::serve(task, control),
        Workload::Mesh => super::no_other_end(),
        Workload::Mix | Workload::Beats => super::no_bare_sockets(),
    }
}

/// The end that connects.
pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.workload {
        Workload::Latency => latency::drive(task, control),
        Workload::Latest | Workload::Lossless | Workload::Stream | Workload::Delayed => {
            flow::drive(task, control)
        }
        Workload::FanOut => fan_out::drive(task, control),
        Workload::Contended => contended::drive(task, control),
        Workload::Many => many::drive(task, control),
        Workload::SlowPeer => slow_peer::drive(task, control),
        Workload::Mesh => mesh::drive(task, control),
        Workload::Mix | Workload::Beats => super::no_bare_sockets(),
    }
}

pub(super) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.role {
        Role::Serve => serve(task, control),
        Role::Drive => drive(task, control),
    }
}
