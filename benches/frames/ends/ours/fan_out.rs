//! One value to many peers, sent by a thread of the application or by the one that turns the loop.
//!
//! The receivers are bare sockets (`raw::crowd`).

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use quorum_cnx::{EventLoop, Handle, SendError, Sid};
use serde_json::{Map, Value};

use super::setup::{HaltOnDrop, Ignore, driving, start, wait_linked};
use crate::{
    ends::{Control, Task, fans, payload::Head, ticker::Tick, times::Times, workers::Workers},
    failure::While,
    variants::Api,
};

/// Timeout of a turn while links come up.
const TURN: Duration = Duration::from_millis(10);

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let count = i64::from(task.peers);
    let peers: Vec<Sid> = (1..=count).map(Sid).collect();
    let (config, at) = driving(task, Sid(count + 1), peers.iter().copied())?;
    let times = Arc::new(Times::default());
    let mut workers = Workers::default();
    let (recording, bytes) = (Arc::clone(&times), task.bytes());
    let _halt = if task.variant.api == Api::Loop {
        let mut event_loop = EventLoop::new(config, Ignore).context("starting the loop")?;
        let handle = event_loop.handle().clone();
        let owned = task.clone();
        workers.spawn("application", move || {
            let handle = event_loop.handle().clone();
            while handle.linked_peers().len() < peers.len() {
                if !event_loop.turn(Some(TURN))? {
                    return Ok(());
                }
            }
            let mut pace = fans::pace(&owned);
            loop {
                let tick = pace.wait();
                let begun = Instant::now();
                send(&handle, &peers, tick, bytes).context("sending")?;
                if !event_loop.turn(Some(Duration::ZERO))? {
                    return Ok(());
                }
                recording.record(begun.elapsed() / peers.len() as u32);
            }
        })?;
        HaltOnDrop(handle)
    } else {
        let halt = start(config, Ignore, &mut workers)?;
        wait_linked(control, &mut workers, &halt.0, peers.iter().copied())?;
        let (handle, mut pace) = (halt.0.clone(), fans::pace(task));
        workers.spawn("application", move || {
            loop {
                let tick = pace.wait();
                let begun = Instant::now();
                match send(&handle, &peers, tick, bytes) {
                    Err(SendError::Halted) => return Ok(()),
                    other => other.context("sending")?,
                }
                recording.record(begun.elapsed() / peers.len() as u32);
            }
        })?;
        halt
    };
    fans::measure(control, &mut workers, &times, at)
}

/// Sends the same payload to all; only its reference count changes.
fn send(handle: &Handle, peers: &[Sid], tick: Tick, bytes: usize) -> Result<(), SendError> {
    let head = Head {
        stamp: tick.wall,
        number: tick.number,
    };
    let payload = head.payload(bytes);
    for peer in peers {
        handle.to_send(*peer, payload.clone())?;
    }
    Ok(())
}
