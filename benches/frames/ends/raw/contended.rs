//! Eight threads that write at the same time: to one bare connection under a lock, or each to its own.
//!
//! The receivers are in `crowd`.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value};

use super::link::{ShutdownOnDrop, dial};
use crate::ends::{
    Control, Task, flows,
    payload::{Head, frame, stamp, wall_nanos},
    workers::Workers,
};

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let mut streams = Vec::new();
    let mut hangups = Vec::new();
    for number in 1..=task.peers {
        let stream = dial(task, number.into())?;
        hangups.push(ShutdownOnDrop(stream.try_clone()?));
        streams.push(Arc::new(Mutex::new(stream)));
    }
    let at = hangups[0].0.local_addr()?;
    let mut workers = Workers::default();
    let mut written = Vec::new();
    for thread in 0..flows::SENDERS {
        let stream = Arc::clone(&streams[thread % streams.len()]);
        let count = Arc::new(AtomicU64::new(0));
        written.push(Arc::clone(&count));
        let bytes = task.bytes();
        workers.spawn("sender", move || {
            let mut frame = frame(bytes);
            for number in 1.. {
                let now = wall_nanos();
                stamp(&mut frame, Head { stamp: now, number });
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                if stream.write_all(&frame).is_err() {
                    break;
                }
                count.store(number, Ordering::Relaxed);
            }
            Ok(())
        })?;
    }
    flows::measure_sent(task, control, &mut workers, at, || {
        let counts = written.iter().map(|count| count.load(Ordering::Relaxed));
        let written = counts.sum();
        [written, written, 0]
    })
}
