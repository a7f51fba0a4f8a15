//! Ping-pong through the library, in each of the ways in which it is used.
//!
//! Never more than one frame is underway.

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
use quorum_cnx::{CnxManager, Config, Event, EventLoop, Frame, Handle, Handler, Sid};
use serde_json::{Map, Value};

use super::setup::{DRIVER, Halt, SERVER, driving, serving, start, wait_linked};
use crate::{
    ends::{Control, Task, times::Times, trips, workers::Workers},
    failure::While,
    variants::Way,
};

/// How long a turn may wait at most, so that the application sees whether it is over.
const TURN: Duration = Duration::from_millis(100);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = serving(task, [DRIVER])?;
    let mut workers = Workers::default();
    let _halt = mirror(task, config, control, &mut workers)?;
    control.ready(at);
    control.measure(&mut workers, || {})?;
    Ok(Map::new())
}

/// Starts who sends everything back.
pub(super) fn mirror(
    task: &Task,
    config: Config,
    control: &Control,
    workers: &mut Workers,
) -> io::Result<Halt> {
    let connected = control.connected();
    match task.variant.way {
        Way::Loop => {
            let keep = Keep {
                connected,
                frames: Vec::new(),
            };
            let mut event_loop = EventLoop::new(config, keep).context("starting the loop")?;
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
            Ok(Halt(handle))
        }
        Way::Inbox => {
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
            Ok(Halt(handle))
        }
        _ => start(config, Echo { connected }, workers),
    }
}

/// Answers where a frame is decoded.
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

/// Keeps what comes for the application that turns the loop.
struct Keep {
    connected: Arc<AtomicBool>,
    frames: Vec<Bytes>,
}

impl Handler for Keep {
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
    let (config, at) = driving(task, DRIVER, [SERVER])?;
    ping(task, config, at, control)
}

/// Sends the next frame whenever the last has come back, and measures that.
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
    let _halt = match task.variant.way {
        Way::Loop => {
            let mut event_loop =
                EventLoop::new(config, Came(false)).context("starting the loop")?;
            let handle = event_loop.handle().clone();
            workers.spawn("application", move || {
                ping_by_turns(&mut event_loop, &frame, &recording)
            })?;
            Halt(handle)
        }
        Way::Inbox => {
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
            Halt(handle)
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

/// Until the loop is halted.
fn ping_by_turns(event_loop: &mut EventLoop<Came>, frame: &Bytes, times: &Times) -> io::Result<()> {
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

/// Sends again where the answer is decoded.
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
        // Fails when the loop is being halted.
        let _ = handle.to_send(from, self.frame.clone());
    }
}

/// Whether the answer has come.
struct Came(bool);

impl Handler for Came {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        self.0 = true;
    }
}
