//! Eight threads that send at the same time: to one peer, or each to its own. Through slots, or through queues, to which one thread
//! alone is compared.
//!
//! The receivers are bare sockets (`raw::crowd`).

use std::{io, time::Duration};

use quorum_cnx::{Handle, Outbox, SendError, Sid};
use serde_json::{Map, Value};

use super::setup::{Ignore, driver_builder, finish, start, wait_linked};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{HEAD_BYTES, Head, wall_nanos},
        workers::Workers,
    },
    failure::While,
    variants::Mode,
};

/// Timeout of a wait for room, after which a sender checks for a halt.
const ROOM: Duration = Duration::from_millis(100);

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (outbox, threads) = match task.variant.mode {
        Mode::Queue => (Outbox::QUEUE, flows::SENDERS),
        Mode::QueueAlone => (Outbox::QUEUE, 1),
        _ => (Outbox::Latest, flows::SENDERS),
    };
    let count = i64::from(task.peers);
    let peers: Vec<Sid> = (1..=count).map(Sid).collect();
    let (builder, at) = driver_builder(task, Sid(count + 1), peers.iter().copied())?;
    let config = finish(builder.outbox(outbox))?;
    let mut workers = Workers::default();
    let halt = start(config, Ignore, &mut workers)?;
    wait_linked(control, &mut workers, &halt.0, peers.iter().copied())?;
    for thread in 0..threads {
        // If there are more threads than peers, several send to one peer.
        let all = (thread..peers.len().max(threads)).step_by(threads);
        let own: Vec<Sid> = all.map(|nth| peers[nth % peers.len()]).collect();
        let (handle, bytes) = (halt.0.clone(), task.bytes());
        workers.spawn("sender", move || {
            let sent = if outbox == Outbox::Latest {
                send_newest(&handle, &own, bytes)
            } else {
                send_all(&handle, &own, bytes)
            };
            match sent {
                Err(SendError::Halted) => Ok(()),
                other => other.context("sending"),
            }
        })?;
    }
    flows::measure_sent(task, control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}

/// Sends to these peers in turn, until the loop halts.
fn send_newest(handle: &Handle, peers: &[Sid], bytes: usize) -> Result<(), SendError> {
    for number in 1.. {
        for peer in peers {
            let head = Head {
                stamp: wall_nanos(),
                number,
            };
            handle.to_send(*peer, head.payload(bytes))?;
        }
    }
    Ok(())
}

/// The same through queues: waits while one is full.
fn send_all(handle: &Handle, peers: &[Sid], bytes: usize) -> Result<(), SendError> {
    let mut payload = vec![b'x'; bytes];
    for number in 1.. {
        // As in a stream, no time is sent: to read the clock would take as long as to send.
        let head = Head { stamp: 0, number };
        payload[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
        for peer in peers {
            while let Err(error) = handle.to_send_slice(*peer, &payload) {
                if error != SendError::Full {
                    return Err(error);
                }
                handle.wait_for_room(*peer, ROOM)?;
            }
        }
    }
    Ok(())
}
