//! Eight threads that send at the same time: to one peer, or each to its own.
//!
//! The receivers are bare sockets (`raw::crowd`).

use std::io;

use quorum_cnx::{SendError, Sid};
use serde_json::{Map, Value};

use super::setup::{Ignore, driving, start, wait_linked};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{Head, wall_nanos},
        workers::Workers,
    },
    failure::While,
};

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let count = i64::from(task.peers);
    let peers: Vec<Sid> = (1..=count).map(Sid).collect();
    let (config, at) = driving(task, Sid(count + 1), peers.iter().copied())?;
    let mut workers = Workers::default();
    let halt = start(config, Ignore, &mut workers)?;
    wait_linked(control, &mut workers, &halt.0, peers.iter().copied())?;
    for thread in 0..flows::SENDERS {
        let (handle, peer, bytes) = (halt.0.clone(), peers[thread % peers.len()], task.bytes());
        workers.spawn("sender", move || {
            for number in 1.. {
                let head = Head {
                    stamp: wall_nanos(),
                    number,
                };
                match handle.to_send(peer, head.payload(bytes)) {
                    Err(SendError::Halted) => break,
                    other => other.context("sending")?,
                };
            }
            Ok(())
        })?;
    }
    flows::measure_sent(control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}
