//! Ping-pong through the library: with a handler, a loop that the application turns, or an inbox.
//!
//! There is never more than one frame in flight.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorum_cnx::{
    CnxManager, Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, Outbox, Sid,
};
use serde_json::{Map, Value};

use super::setup::{
    DRIVER, HaltOnDrop, SERVER, driver_builder, finish, serving_builder, start, wait_linked,
};
use crate::{
    ends::{Control, Task, times::Times, trips, workers::Workers},
    failure::While,
    variants::{Api, Mode},
};

/// Timeout of a turn, after which the application checks for a halt.
const TURN: Duration = Duration::from_millis(100);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = serving_builder(task, [DRIVER])?;
    let config = finish(with_outbox(builder, task))?;
    let mut workers = Workers::default();
    let _halt = start_echo(task, config, control, &mut workers)?;
    control.ready(at);
    control.measure(&mut workers, || {})?;
    Ok(Map::new())
}

/// A slot, or a queue if that is measured.
fn with_outbox(builder: ConfigBuilder, task: &Task) -> ConfigBuilder {
    match task.variant.mode {
        Mode::Queue => builder.outbox(Outbox::QUEUE),
        _ => builder,
    }
}

/// Starts a receiver that sends every frame back.
pub(super) fn start_echo(
    task: &Task,
    config: Config,
    control: &Control,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    let connected = control.connected();
    match task.variant.api {
        Api::Loop => {
            let collect = Collect {
                connected,
                frames: Vec::new(),
            };
            let mut event_loop = EventLoop::new(config, collect).context("starting the loop")?;
            let handle = event_loop.handle().clone();
            workers.spawn("application", move || {
                let mut frames = Vec::new();
                while event_loop.turn(Some(TURN))? {
                    mem::swap(&mut frames, &mut event_loop.handler_mut().frames);
                    for frame in frames.drain(..) {
                        // Fails when the other end is gone.
                        let _ = event_loop.handle().to_send(DRIVER, frame);
                    }
                }
                Ok(())
            })?;
            Ok(HaltOnDrop(handle))
        }
        Api::Inbox => {
            let manager = CnxManager::start(config).context("starting the manager")?;
            let handle = manager.handle();
            workers.spawn("application", move || {
                while let Ok(message) = manager.recv() {
                    connected.store(true, Ordering::Release);
                    // Fails when the other end is gone.
                    let _ = manager.to_send(message.from, message.payload);
                }
                Ok(())
            })?;
            Ok(HaltOnDrop(handle))
        }
        _ => start(config, Echo { connected }, workers),
    }
}

/// Answers each frame when it is decoded.
struct Echo {
    connected: Arc<AtomicBool>,
}

impl Handler for Echo {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        // Fails when the other end is gone.
        let _ = handle.to_send(from, frame.into_bytes());
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if matches!(event, Event::Up { .. }) {
            self.connected.store(true, Ordering::Release);
        }
    }
}

/// Collects frames for the application, which turns the loop.
struct Collect {
    connected: Arc<AtomicBool>,
    frames: Vec<Bytes>,
}

impl Handler for Collect {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.frames.push(frame.into_bytes());
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if matches!(event, Event::Up { .. }) {
            self.connected.store(true, Ordering::Release);
        }
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = driver_builder(task, DRIVER, [SERVER])?;
    let config = finish(with_outbox(builder, task))?;
    ping(task, config, at, control)
}

/// Sends the next frame whenever the last one is back, and measures the round trips.
fn ping(
    task: &Task,
    config: Config,
    at: SocketAddr,
    control: &Control,
) -> io::Result<Map<String, Value>> {
    let times = Arc::new(Times::default());
    let frame = Bytes::from(vec![b'x'; task.bytes()]);
    let mut workers = Workers::default();
    let recording = Arc::clone(&times);
    let _halt = match task.variant.api {
        Api::Loop => {
            let mut event_loop =
                EventLoop::new(config, Answered(false)).context("starting the loop")?;
            let handle = event_loop.handle().clone();
            workers.spawn("application", move || {
                ping_by_turns(&mut event_loop, &frame, &recording)
            })?;
            HaltOnDrop(handle)
        }
        Api::Inbox => {
            let manager = CnxManager::start(config).context("starting the manager")?;
            let handle = manager.handle();
            wait_linked(control, &mut workers, &handle, [SERVER])?;
            workers.spawn("application", move || {
                loop {
                    let sent = Instant::now();
                    if manager.to_send(SERVER, frame.clone()).is_err() || manager.recv().is_err() {
                        return Ok(());
                    }
                    recording.record(sent.elapsed());
                }
            })?;
            HaltOnDrop(handle)
        }
        _ => {
            let ping = Ping {
                frame: frame.clone(),
                sent: Instant::now(),
                times: recording,
            };
            let halt = start(config, ping, &mut workers)?;
            wait_linked(control, &mut workers, &halt.0, [SERVER])?;
            halt.0
                .to_send(SERVER, frame)
                .context("sending the first frame")?;
            halt
        }
    };
    trips::measure(control, &mut workers, &times, at)
}

/// Ping-pong on the thread that turns the loop, until the loop halts.
fn ping_by_turns(
    event_loop: &mut EventLoop<Answered>,
    frame: &Bytes,
    times: &Times,
) -> io::Result<()> {
    let handle = event_loop.handle().clone();
    while !handle.connected_to_peer(SERVER) {
        if !event_loop.turn(Some(TURN))? {
            return Ok(());
        }
    }
    loop {
        let sent = Instant::now();
        handle.to_send(SERVER, frame.clone()).context("sending")?;
        while !mem::take(&mut event_loop.handler_mut().0) {
            if !event_loop.turn(Some(TURN))? {
                return Ok(());
            }
        }
        times.record(sent.elapsed());
    }
}

/// Sends the next frame when the answer is decoded.
struct Ping {
    frame: Bytes,
    sent: Instant,
    times: Arc<Times>,
}

impl Handler for Ping {
    fn on_frame(&mut self, from: Sid, _: Frame<'_>, handle: &Handle) {
        let now = Instant::now();
        self.times.record(now - self.sent);
        self.sent = now;
        // Fails while the loop halts.
        let _ = handle.to_send(from, self.frame.clone());
    }
}

/// Whether the answer has arrived.
struct Answered(bool);

impl Handler for Answered {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        self.0 = true;
    }
}
