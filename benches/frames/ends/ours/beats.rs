//! Heartbeats beside a stream, over the two lanes of one link: the age of the heartbeats that arrive.
//!
//! The receiver is a handler. The stream and the heartbeats are sent by a thread each.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use quorum_cnx::{Frame, Handle, Handler, Outbox, SendError, Sid};
use serde_json::{Map, Value, json};

use super::setup::{
    DRIVER, HaltOnDrop, Ignore, SERVER, driver_builder, finish, serving_builder, start, wait_linked,
};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{Head, wall_nanos},
        received::{Burst, Received},
        times::Times,
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
    variants::Mode,
};

/// Payload bytes of a heartbeat.
const BEAT_BYTES: usize = 64;

/// Time between two heartbeats.
const BEAT_INTERVAL: Duration = Duration::from_millis(1);

/// The number of each heartbeat. Frames of the stream are numbered from 1.
const BEAT: u64 = 0;

/// Timeout of the stream's wait for room, after which it checks for a halt.
const ROOM: Duration = Duration::from_millis(100);

fn outbox(task: &Task) -> Outbox {
    match task.variant.mode {
        Mode::Queue => Outbox::QUEUE,
        _ => Outbox::LANES,
    }
}

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = serving_builder(task, [DRIVER])?;
    let config = finish(builder.outbox(outbox(task)))?;
    let (beats, stream) = (Arc::new(Times::default()), Arc::new(Received::default()));
    let receiver = Receiver {
        beats: Arc::clone(&beats),
        stream: Burst::new(&stream, false),
        connected: control.connected(),
    };
    let mut workers = Workers::default();
    let _halt = start(config, receiver, &mut workers)?;
    control.ready(at);
    let mut window = Window::open(stream.counts());
    let wanted = control.measure(&mut workers, || {
        beats.reset();
        window = Window::open(stream.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        if beats.count() == 0 {
            return Err(failure("no heartbeat arrived since `mark`"));
        }
        let growth = window.close(stream.counts());
        results.insert("stream_per_s".into(), json!(growth.per_second(0)));
        results.insert("stream_bytes_per_s".into(), json!(growth.per_second(1)));
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
        beats.report("age", &quantiles, &mut results);
    }
    Ok(results)
}

/// Records the ages of heartbeats, and counts the frames of the stream.
struct Receiver {
    beats: Arc<Times>,
    stream: Burst,
    connected: Arc<std::sync::atomic::AtomicBool>,
}

impl Handler for Receiver {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        match Head::of(&frame) {
            Some(head) if head.number == BEAT => {
                self.connected.store(true, Ordering::Release);
                let age = wall_nanos().saturating_sub(head.stamp);
                self.beats.record_nanos([age]);
            }
            Some(head) => self.stream.frame(head, frame.len()),
            None => {}
        }
    }

    fn on_read_complete(&mut self, _: &Handle) {
        self.stream.end();
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = driver_builder(task, DRIVER, [SERVER])?;
    let config = finish(builder.outbox(outbox(task)))?;
    let mut workers = Workers::default();
    let halt: HaltOnDrop = start(config, Ignore, &mut workers)?;
    wait_linked(control, &mut workers, &halt.0, [SERVER])?;
    if task.streams > 0 {
        let (handle, bytes) = (halt.0.clone(), task.bytes());
        workers.spawn("stream", move || stop_at_halt(stream(&handle, bytes)))?;
    }
    let (handle, mode) = (halt.0.clone(), task.variant.mode);
    workers.spawn("heartbeats", move || stop_at_halt(beat(&handle, mode)))?;
    flows::warm(task, control, &mut workers, at)?;
    control.measure(&mut workers, || {})?;
    Ok(Map::new())
}

/// A halt of the loop is no failure.
fn stop_at_halt(sent: Result<(), SendError>) -> io::Result<()> {
    match sent {
        Err(SendError::Halted) => Ok(()),
        other => other.context("sending"),
    }
}

/// Sends frames until the loop halts. The queue is never empty.
fn stream(handle: &Handle, bytes: usize) -> Result<(), SendError> {
    let mut sender = handle.sender(SERVER)?;
    for number in 1.. {
        let frame = Head { stamp: 0, number }.payload(bytes);
        while let Err(error) = sender.feed(&frame) {
            if error != SendError::Full {
                return Err(error);
            }
            handle.wait_for_room(SERVER, ROOM)?;
        }
    }
    Ok(())
}

fn beat(handle: &Handle, mode: Mode) -> Result<(), SendError> {
    loop {
        thread::sleep(BEAT_INTERVAL);
        let stamp = wall_nanos();
        let frame = Head {
            stamp,
            number: BEAT,
        }
        .payload(BEAT_BYTES);
        let sent = match mode {
            Mode::Queue => handle.to_send(SERVER, frame),
            _ => handle.to_send_latest(SERVER, frame),
        };
        match sent {
            // Only a heartbeat in a queue can find it full: it is lost.
            Ok(_) | Err(SendError::Full) => {}
            Err(error) => return Err(error),
        }
    }
}
