//! Every frame, in order, through the queue: one a call or many a call.
//!
//! The sender is a thread of the application; the receiver is a handler, or an application at an inbox.

use std::{io, sync::Arc, time::Duration};

use quorum_cnx::{Config, Handle, SendError, limits};
use serde_json::{Map, Value};

use super::{
    flow,
    setup::{DRIVER, SERVER, driver_builder, finish, serving_builder, wait_linked},
};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{HEAD_BYTES, Head},
        received::Received,
        workers::Workers,
    },
    failure::While,
};

/// What may wait for the application at the receiving end, about: as much as no frame is lost for which it is only late.
const INBOX_BYTES: usize = 256 << 20;

/// The most that a configuration allows.
const INBOX_FRAMES_MAX: usize = 1 << 20;

/// How long the sender waits for room before it looks whether it is over.
const ROOM: Duration = Duration::from_millis(100);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = serving_builder(task, [DRIVER])?;
    let frames = (INBOX_BYTES / task.bytes()).clamp(limits::INBOX_FRAMES, INBOX_FRAMES_MAX);
    let config = finish(builder.inbox_frames(frames))?;
    let received = Arc::new(Received::default());
    let mut workers = Workers::default();
    let _halt = flow::receive(task, config, control, &mut workers, &received)?;
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = driver_builder(task, DRIVER, [SERVER])?;
    let bytes = limits::QUEUE_BYTES;
    let config: Config = finish(builder.outbox(quorum_cnx::Outbox::Queue { bytes }))?;
    let mut workers = Workers::default();
    let halt = flow::start_sender(task, config, &mut workers)?;
    wait_linked(control, &mut workers, &halt.0, [SERVER])?;
    let (owned, handle) = (task.clone(), halt.0.clone());
    workers.spawn("sender", move || {
        let sent = if owned.frames_per_call == 1 {
            send_one_by_one(&owned, &handle)
        } else {
            send_many(&owned, &handle)
        };
        match sent {
            Err(SendError::Halted) => Ok(()),
            other => other.context("sending"),
        }
    })?;
    flows::measure_sent(control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}

/// A call for each frame, until the loop halts.
fn send_one_by_one(task: &Task, handle: &Handle) -> Result<(), SendError> {
    let mut payload = vec![b'x'; task.bytes()];
    for number in 1.. {
        number_it(&mut payload, number);
        loop {
            match handle.to_send_slice(SERVER, &payload) {
                Ok(_) => break,
                Err(SendError::Full) => {
                    handle.wait_for_room(SERVER, ROOM)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A call for so many frames, until the loop halts.
fn send_many(task: &Task, handle: &Handle) -> Result<(), SendError> {
    let mut payloads = vec![vec![b'x'; task.bytes()]; task.frames_per_call as usize];
    let mut number = 0;
    loop {
        for payload in &mut payloads {
            number += 1;
            number_it(payload, number);
        }
        let frames: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let mut left = &frames[..];
        while !left.is_empty() {
            match handle.to_send_all(SERVER, left) {
                Ok(taken) => left = &left[taken..],
                Err(SendError::Full) => {
                    handle.wait_for_room(SERVER, ROOM)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Nobody asks for the age of a frame of a stream.
fn number_it(payload: &mut [u8], number: u64) {
    let head = Head { stamp: 0, number };
    payload[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
}
