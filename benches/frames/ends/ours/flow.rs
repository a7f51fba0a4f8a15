//! One way through the one-slot outbox: as fast as the sender can, or as fast as the slot is free.
//!
//! The sender is a thread of the application; the receiver is a handler, or an application at an inbox.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use quorum_cnx::{CnxManager, Event, Frame, Handle, Handler, SendError, Sent, Sid};
use serde_json::{Map, Value};

use super::setup::{DRIVER, Halt, Ignore, SERVER, driving, serving, start, wait_linked};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{Head, wall_nanos},
        received::{Burst, Received},
        workers::Workers,
    },
    failure::While,
    workloads::{Way, Workload},
};

/// Messages that are taken before what has come is made visible.
const BURST_MAX: usize = 100;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = serving(task, [DRIVER])?;
    let received = Arc::new(Received::default());
    let mut burst = Burst::new(&received, true);
    let (mut workers, connected) = (Workers::default(), control.connected());
    let _halt = if task.variant.way == Way::Inbox {
        let manager = CnxManager::start(config).context("starting the manager")?;
        let handle = manager.handle();
        workers.spawn("application", move || {
            take_all(&manager, &mut burst, &connected);
            Ok(())
        })?;
        Halt(handle)
    } else {
        start(config, Count { burst, connected }, &mut workers)?
    };
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

/// Until the manager halts.
fn take_all(manager: &CnxManager, burst: &mut Burst, connected: &AtomicBool) {
    while let Ok(first) = manager.recv() {
        connected.store(true, Ordering::Release);
        count(burst, &first.payload);
        for _ in 1..BURST_MAX {
            let Ok(next) = manager.try_recv() else {
                break;
            };
            count(burst, &next.payload);
        }
        burst.end();
    }
}

fn count(burst: &mut Burst, payload: &[u8]) {
    if let Some(head) = Head::of(payload) {
        burst.frame(head, payload.len());
    }
}

/// Counts where a frame is decoded.
struct Count {
    burst: Burst,
    connected: Arc<AtomicBool>,
}

impl Handler for Count {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        count(&mut self.burst, &frame);
    }

    fn on_burst_end(&mut self, _: &Handle) {
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
    let halt = if task.variant.way == Way::Inbox {
        let manager = CnxManager::start(config).context("starting the manager")?;
        let handle = manager.handle();
        workers.spawn("application", move || {
            // Nothing comes; it waits until the manager halts.
            let _ = manager.recv();
            Ok(())
        })?;
        Halt(handle)
    } else {
        start(config, Ignore, &mut workers)?
    };
    wait_linked(control, &mut workers, &halt.0, [SERVER])?;
    let (owned, handle) = (task.clone(), halt.0.clone());
    workers.spawn("sender", move || match send_all(&owned, &handle) {
        Err(SendError::Halted) => Ok(()),
        other => other.context("sending"),
    })?;
    flows::measure_sent(control, &mut workers, at, || {
        let sent = halt.0.stats().sent;
        [sent.accepted, sent.written, sent.superseded]
    })
}

/// Until the loop halts.
fn send_all(task: &Task, handle: &Handle) -> Result<(), SendError> {
    for number in 1.. {
        let head = Head {
            stamp: wall_nanos(),
            number,
        };
        let sent = handle.to_send(SERVER, head.payload(task.bytes()))?;
        if task.workload == Workload::Lossless && sent != Sent::Written {
            while !handle.have_delivered() && !handle.is_halted() {
                thread::yield_now();
            }
        }
    }
    Ok(())
}
