//! One-way traffic through a queue, in order and without loss: one frame per call, or many.
//!
//! The sender is a thread of the application, which may turn the loop itself. The receiver is a handler, or a thread that takes
//! messages from an inbox.

use std::{io, sync::Arc, time::Duration};

use quorum_cnx::{EventLoop, Handle, Outbox, SendError, Sender};
use serde_json::{Map, Value};

use super::{
    flow,
    setup::{
        DRIVER, HaltOnDrop, Ignore, SERVER, driver_builder, finish, serving_builder, wait_linked,
    },
};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{HEAD_BYTES, Head},
        received::Received,
        workers::Workers,
    },
    failure::While,
    variants::Api,
};

/// Timeout of the sender's wait for room, after which it checks for a halt.
const ROOM: Duration = Duration::from_millis(100);

/// A sender that turns the loop itself does so once in so many calls, even if there is always room: about once a millisecond if
/// the frames are short.
const CALLS_PER_TURN: u32 = 32_768;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = serving_builder(task, [DRIVER])?;
    // Also here, where nothing is sent: with a queue, a full inbox slows the sender and drops nothing.
    let config = finish(builder.outbox(Outbox::QUEUE))?;
    let received = Arc::new(Received::default());
    let mut workers = Workers::default();
    let _halt = flow::receive(task, config, control, &mut workers, &received)?;
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = driver_builder(task, DRIVER, [SERVER])?;
    let config = finish(builder.outbox(Outbox::QUEUE))?;
    let mut workers = Workers::default();
    let owned = task.clone();
    let halt = if task.variant.api != Api::Handler && task.variant.api != Api::Inbox {
        let mut event_loop = EventLoop::new(config, Ignore).context("starting the loop")?;
        let halt = HaltOnDrop(event_loop.handle().clone());
        workers.spawn("application", move || {
            send_by_turns(&owned, &mut event_loop)
        })?;
        wait_linked(control, &mut workers, &halt.0, [SERVER])?;
        halt
    } else {
        let halt = flow::start_sender(task, config, &mut workers)?;
        wait_linked(control, &mut workers, &halt.0, [SERVER])?;
        let handle = halt.0.clone();
        workers.spawn("sender", move || {
            let sent = send(&owned, &handle, |is_full| {
                if is_full {
                    handle.wait_for_room(SERVER, ROOM)?;
                }
                Ok(())
            });
            ignore_halt(sent)
        })?;
        halt
    };
    flows::measure_sent(task, control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}

/// Sends on the thread that turns the loop: when there is no room, and once in [`CALLS_PER_TURN`] calls.
fn send_by_turns(task: &Task, event_loop: &mut EventLoop<Ignore>) -> io::Result<()> {
    let handle = event_loop.handle().clone();
    let mut turn = |timeout| match event_loop.turn(Some(timeout)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(SendError::Halted),
    };
    while !handle.connected_to_peer(SERVER) {
        if turn(ROOM).is_err() {
            return Ok(());
        }
    }
    let mut calls = 0_u32;
    let between = |is_full| {
        if is_full {
            return turn(ROOM);
        }
        calls = calls.wrapping_add(1);
        if calls % CALLS_PER_TURN == 0 {
            turn(Duration::ZERO)?;
        }
        Ok(())
    };
    ignore_halt(match task.variant.api {
        Api::Feed => {
            let mut payload = vec![b'x'; task.bytes()];
            feed(&handle, between, |sender, number| {
                set_number(&mut payload, number);
                sender.feed(&payload)
            })
        }
        Api::FeedWith => {
            let rest = vec![b'x'; task.bytes() - HEAD_BYTES];
            feed(&handle, between, |sender, number| {
                sender.feed_with(task.bytes(), |frame| {
                    set_number(frame, number);
                    frame[HEAD_BYTES..].copy_from_slice(&rest);
                })
            })
        }
        _ => send(task, &handle, between),
    })
}

/// Feeds frames to a sender until the loop halts. After each call, `between` is called with whether the queue was full.
fn feed(
    handle: &Handle,
    mut between: impl FnMut(bool) -> Result<(), SendError>,
    mut feed: impl FnMut(&mut Sender, u64) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let mut sender = handle.sender(SERVER)?;
    for number in 1.. {
        while let Err(error) = feed(&mut sender, number) {
            if error != SendError::Full {
                return Err(error);
            }
            between(true)?;
        }
        between(false)?;
    }
    Ok(())
}

/// A halt of the loop is no failure.
fn ignore_halt(sent: Result<(), SendError>) -> io::Result<()> {
    match sent {
        Err(SendError::Halted) => Ok(()),
        other => other.context("sending"),
    }
}

/// Sends frames until the loop halts. After each call, `between` is called with whether the queue was full.
fn send(
    task: &Task,
    handle: &Handle,
    mut between: impl FnMut(bool) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let mut payloads = vec![vec![b'x'; task.bytes()]; task.frames_per_call as usize];
    let mut number = 0;
    loop {
        for payload in &mut payloads {
            number += 1;
            set_number(payload, number);
        }
        if let [payload] = &payloads[..] {
            while let Err(error) = handle.to_send_slice(SERVER, payload) {
                if error != SendError::Full {
                    return Err(error);
                }
                between(true)?;
            }
            between(false)?;
            continue;
        }
        let frames: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let mut left = &frames[..];
        while !left.is_empty() {
            match handle.to_send_all(SERVER, left) {
                Ok(taken) => left = &left[taken..],
                Err(SendError::Full) => between(true)?,
                Err(error) => return Err(error),
            }
        }
        between(false)?;
    }
}

/// Writes the head without a time: ages are not measured in a stream.
fn set_number(payload: &mut [u8], number: u64) {
    let head = Head { stamp: 0, number };
    payload[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
}
