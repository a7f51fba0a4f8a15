//! One value to many bare connections: one write to each, one after the other.
//!
//! The receivers are in `crowd`.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use serde_json::{Map, Value};

use super::link::{ShutdownOnDrop, dial};
use crate::ends::{
    Control, Task, fans,
    payload::{Head, frame, stamp},
    times::Times,
    workers::Workers,
};

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let mut streams = Vec::new();
    let mut hangups = Vec::new();
    for number in 1..=task.peers {
        let stream = dial(task, number.into())?;
        hangups.push(ShutdownOnDrop(stream.try_clone()?));
        streams.push(stream);
    }
    let at = streams[0].local_addr()?;
    let times = Arc::new(Times::default());
    let mut workers = Workers::default();
    let (recording, bytes, mut pace) = (Arc::clone(&times), task.bytes(), fans::pace(task));
    workers.spawn("sender", move || {
        let mut frame = frame(bytes);
        loop {
            let tick = pace.wait();
            let begun = Instant::now();
            stamp(
                &mut frame,
                Head {
                    stamp: tick.wall,
                    number: tick.number,
                },
            );
            for stream in &mut streams {
                if stream.write_all(&frame).is_err() {
                    return Ok(());
                }
            }
            recording.record(begun.elapsed() / streams.len() as u32);
        }
    })?;
    fans::measure(control, &mut workers, &times, at)
}
