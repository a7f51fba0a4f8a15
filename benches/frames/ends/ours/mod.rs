//! Ends that use the library: with a handler, with a loop that the application turns, or with a manager and its inbox.

mod beats;
mod contended;
mod fan_out;
mod flow;
mod latency;
mod many;
mod mesh;
mod mix;
mod setup;
mod slow_peer;
mod stream;

use std::io;

use serde_json::{Map, Value};

use super::{Control, Role, Task, raw};
use crate::workloads::Workload;

pub(super) fn run(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.role {
        Role::Serve => serve(task, control),
        Role::Drive => drive(task, control),
    }
}

fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.workload {
        Workload::Latency => latency::serve(task, control),
        Workload::Latest | Workload::Lossless => flow::serve(task, control),
        Workload::Stream | Workload::Delayed => stream::serve(task, control),
        Workload::Many => many::serve(task, control),
        Workload::Mix => mix::serve(task, control),
        Workload::Beats => beats::serve(task, control),
        // Only the sender is measured. The receiver is the same for all participants.
        Workload::FanOut | Workload::SlowPeer | Workload::Mesh | Workload::Contended => {
            raw::serve(task, control)
        }
    }
}

fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    match task.workload {
        Workload::Latency => latency::drive(task, control),
        Workload::Latest | Workload::Lossless => flow::drive(task, control),
        Workload::Stream | Workload::Delayed => stream::drive(task, control),
        Workload::FanOut => fan_out::drive(task, control),
        Workload::Many => many::drive(task, control),
        Workload::SlowPeer => slow_peer::drive(task, control),
        Workload::Mesh => mesh::drive(task, control),
        Workload::Mix => mix::drive(task, control),
        Workload::Beats => beats::drive(task, control),
        Workload::Contended => contended::drive(task, control),
    }
}
