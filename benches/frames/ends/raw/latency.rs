//! Ping-pong over a bare connection, blocking or spinning.
//!
//! There is never more than one frame in flight.

use std::{
    io::{self, Read, Write},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use serde_json::{Map, Value};

use super::link::{ShutdownOnDrop, Spinner, Watched, accept, dial, listen};
use crate::{
    ends::{Control, Task, payload::frame, times::Times, trips, workers::Workers},
    variants::Mode,
};

/// The number of the end that dials.
const DRIVER: u64 = 2;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let (owned, connected) = (task.clone(), control.connected());
    workers.spawn("echo", move || {
        let (stream, _) = accept(&owned, &listener)?;
        connected.store(true, Ordering::Release);
        let bytes = owned.bytes();
        match owned.variant.mode {
            Mode::Watch => echo(Watched::new(stream)?, bytes),
            mode => echo(Spinner::new(stream, mode == Mode::Spin)?, bytes),
        }
    })?;
    control.ready(at);
    control.measure(&mut workers, || {})?;
    Ok(Map::new())
}

/// Sends back each frame, until the other end is gone.
pub(super) fn echo(mut stream: impl Read + Write, bytes: usize) -> io::Result<()> {
    let mut frame = frame(bytes);
    while read_frame(&mut stream, &mut frame)? {
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads a whole frame. Returns `false` if the other end is gone.
fn read_frame(stream: &mut impl Read, frame: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < frame.len() {
        match stream.read(&mut frame[filled..]) {
            Ok(0) => return Ok(false),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let stream = dial(task, DRIVER)?;
    let at = stream.local_addr()?;
    let _hangup = ShutdownOnDrop(stream.try_clone()?);
    let times = Arc::new(Times::default());
    let mut workers = Workers::default();
    let (recording, bytes, mode) = (Arc::clone(&times), task.bytes(), task.variant.mode);
    workers.spawn("ping", move || match mode {
        Mode::Watch => ping(Watched::new(stream)?, bytes, &recording),
        mode => ping(Spinner::new(stream, mode == Mode::Spin)?, bytes, &recording),
    })?;
    trips::measure(control, &mut workers, &times, at)
}

fn ping(mut stream: impl Read + Write, bytes: usize, times: &Times) -> io::Result<()> {
    let frame = frame(bytes);
    let mut answer = frame.clone();
    loop {
        let sent = Instant::now();
        if stream.write_all(&frame).is_err() || !read_frame(&mut stream, &mut answer)? {
            return Ok(());
        }
        times.record(sent.elapsed());
    }
}
