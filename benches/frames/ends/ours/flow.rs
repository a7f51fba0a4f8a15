//! One-way traffic through a one-slot outbox: without a pause, or whenever the slot is free.
//!
//! The sender is a thread of the application. The receiver is a handler, or a thread that takes messages from an inbox.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{
    Batch, CnxManager, Config, Event, Frame, Handle, Handler, SendError, SendOutcome, Sid,
};
use serde_json::{Map, Value};

use super::setup::{DRIVER, HaltOnDrop, Ignore, SERVER, driving, serving, start, wait_linked};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{Head, wall_nanos},
        received::{Burst, Received},
        workers::Workers,
    },
    failure::While,
    variants::Api,
    workloads::Workload,
};

/// Timeout of the sender's wait for the slot, after which it checks for a halt.
const ROOM: Duration = Duration::from_millis(100);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = serving(task, [DRIVER])?;
    let received = Arc::new(Received::default());
    let mut workers = Workers::default();
    let _halt = receive(task, config, control, &mut workers, &received)?;
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

/// Starts the receiver, which counts frames.
pub(super) fn receive(
    task: &Task,
    config: Config,
    control: &Control,
    workers: &mut Workers,
    received: &Arc<Received>,
) -> io::Result<HaltOnDrop> {
    let with_ages = !task.workload.is_stream();
    let mut burst = Burst::new(received, with_ages);
    let connected = control.connected();
    if task.variant.api != Api::Inbox {
        return start(config, Count { burst, connected }, workers);
    }
    let manager = CnxManager::start(config).context("starting the manager")?;
    let handle = manager.handle();
    workers.spawn("application", move || {
        let mut batch = Batch::default();
        while manager.recv_all(&mut batch).is_ok() {
            connected.store(true, Ordering::Release);
            for (_, payload) in &batch {
                count(&mut burst, payload);
            }
            burst.end();
        }
        Ok(())
    })?;
    Ok(HaltOnDrop(handle))
}

fn count(burst: &mut Burst, payload: &[u8]) {
    if let Some(head) = Head::of(payload) {
        burst.frame(head, payload.len());
    }
}

/// Counts each frame when it is decoded.
struct Count {
    burst: Burst,
    connected: Arc<AtomicBool>,
}

impl Handler for Count {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        count(&mut self.burst, &frame);
    }

    fn on_read_complete(&mut self, _: &Handle) {
        self.burst.end();
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if matches!(event, Event::Up { .. }) {
            self.connected.store(true, Ordering::Release);
        }
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = driving(task, DRIVER, [SERVER])?;
    let mut workers = Workers::default();
    let halt = start_sender(task, config, &mut workers)?;
    wait_linked(control, &mut workers, &halt.0, [SERVER])?;
    let (owned, handle) = (task.clone(), halt.0.clone());
    workers.spawn("sender", move || match send_all(&owned, &handle) {
        Err(SendError::Halted) => Ok(()),
        other => other.context("sending"),
    })?;
    flows::measure_sent(task, control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}

/// Starts the loop of the sender, which receives nothing.
pub(super) fn start_sender(
    task: &Task,
    config: Config,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    if task.variant.api != Api::Inbox {
        return start(config, Ignore, workers);
    }
    let manager = CnxManager::start(config).context("starting the manager")?;
    let handle = manager.handle();
    workers.spawn("application", move || {
        // Blocks until the manager halts.
        let _ = manager.recv();
        Ok(())
    })?;
    Ok(HaltOnDrop(handle))
}

/// Sends until the loop halts.
fn send_all(task: &Task, handle: &Handle) -> Result<(), SendError> {
    for number in 1.. {
        let head = Head {
            stamp: wall_nanos(),
            number,
        };
        let sent = handle.to_send(SERVER, head.payload(task.bytes()))?;
        if task.workload == Workload::Lossless && sent != SendOutcome::Written {
            wait_until_free(task, handle)?;
        }
    }
    Ok(())
}

/// Waits until the slot is free, by blocking or by polling.
fn wait_until_free(task: &Task, handle: &Handle) -> Result<(), SendError> {
    if task.spins() {
        while !handle.have_delivered() && !handle.is_halted() {
            thread::yield_now();
        }
        return Ok(());
    }
    while !handle.wait_for_room(SERVER, ROOM)? {}
    Ok(())
}
