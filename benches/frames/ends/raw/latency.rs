//! Ping-pong over a bare connection, blocking or spinning.
//!
//! Never more than one frame is underway.

use std::{
    io::{self, Read, Write},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use serde_json::{Map, Value};

use super::link::{Hangup, Spinner, Watched, dial, listen, take};
use crate::{
    ends::{Control, Task, payload::frame, times::Times, trips, workers::Workers},
    variants::How,
};

/// Who dials says this number.
const DRIVER: u64 = 2;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let (owned, connected) = (task.clone(), control.connected());
    workers.spawn("echo", move || {
        let (stream, _) = take(&owned, &listener)?;
        connected.store(true, Ordering::Release);
        let bytes = owned.bytes();
        match owned.variant.how {
            How::Watch => echo(Watched::new(stream)?, bytes),
            how => echo(Spinner::new(stream, how == How::Spin)?, bytes),
        }
    })?;
    control.ready(at);
    control.measure(&mut workers, || {})?;
    Ok(Map::new())
}

/// Sends back each frame, until the other end is gone.
pub(super) fn echo(mut stream: impl Read + Write, bytes: usize) -> io::Result<()> {
    let mut frame = frame(bytes);
    while is_filled(&mut stream, &mut frame)? {
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads a whole frame; `false` if the other end is gone.
fn is_filled(stream: &mut impl Read, frame: &mut [u8]) -> io::Result<bool> {
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
    let _hangup = Hangup(stream.try_clone()?);
    let times = Arc::new(Times::default());
    let mut workers = Workers::default();
    let (recording, bytes, how) = (Arc::clone(&times), task.bytes(), task.variant.how);
    workers.spawn("ping", move || match how {
        How::Watch => ping(Watched::new(stream)?, bytes, &recording),
        how => ping(Spinner::new(stream, how == How::Spin)?, bytes, &recording),
    })?;
    trips::measure(control, &mut workers, &times, at)
}

fn ping(mut stream: impl Read + Write, bytes: usize, times: &Times) -> io::Result<()> {
    let frame = frame(bytes);
    let mut answer = frame.clone();
    loop {
        let sent = Instant::now();
        if stream.write_all(&frame).is_err() || !is_filled(&mut stream, &mut answer)? {
            return Ok(());
        }
        times.record(sent.elapsed());
    }
}
