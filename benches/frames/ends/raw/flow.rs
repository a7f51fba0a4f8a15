//! One way over a bare connection: a blocking write for each frame, or chunks that were encoded before.
//!
//! The receiver reads as much as there is and walks the length prefixes. With chunks nobody ever sleeps: to wake a receiver
//! costs more than what it reads, and a limit must not pay that.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value};

use super::link::{Hangup, Spinner, dial, listen, take};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{Head, frame, stamp, wall_nanos},
        received::{Burst, Received},
        walker::Walker,
        workers::Workers,
    },
    variants::How,
    workloads::Workload,
};

/// Who dials says this number.
const DRIVER: u64 = 2;

/// What one read takes at most, and about what one write of encoded frames gives: with less, large frames are slower.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let received = Arc::new(Received::default());
    let (owned, connected, counting) = (task.clone(), control.connected(), Arc::clone(&received));
    workers.spawn("receiver", move || {
        let (stream, _) = take(&owned, &listener)?;
        connected.store(true, Ordering::Release);
        let stream = Spinner::new(stream, is_encoded_before(&owned))?;
        receive(stream, &owned, &counting)
    })?;
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

fn receive(mut stream: impl Read, task: &Task, received: &Arc<Received>) -> io::Result<()> {
    let with_ages = task.workload != Workload::Stream;
    let is_numbered = !is_encoded_before(task);
    let mut burst = Burst::new(received, with_ages);
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut walker, mut number) = (Walker::default(), 0);
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        walker.walk(&buffer[..n], |head, len| {
            number += 1;
            // Frames that were encoded before say all the same.
            let head = if is_numbered {
                head
            } else {
                Head { number, ..head }
            };
            burst.frame(head, len);
        });
        burst.end();
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let stream = dial(task, DRIVER)?;
    let at = stream.local_addr()?;
    let _hangup = Hangup(stream.try_clone()?);
    let offered = Arc::new(AtomicU64::new(0));
    let mut workers = Workers::default();
    let (owned, counting) = (task.clone(), Arc::clone(&offered));
    workers.spawn("sender", move || {
        let stream = Spinner::new(stream, is_encoded_before(&owned))?;
        if is_encoded_before(&owned) {
            send_chunks(stream, &owned, &counting);
        } else {
            send_frames(stream, &owned, &counting);
        }
        Ok(())
    })?;
    // All that is offered is written.
    let counts = || {
        let offered = offered.load(Ordering::Relaxed);
        [offered, offered, 0]
    };
    flows::measure_sent(control, &mut workers, at, counts)
}

fn is_encoded_before(task: &Task) -> bool {
    task.variant.how == How::Chunks
}

/// Until the other end is gone.
fn send_frames(mut stream: impl Write, task: &Task, offered: &AtomicU64) {
    let mut frame = frame(task.bytes());
    for number in 1.. {
        let now = wall_nanos();
        stamp(&mut frame, Head { stamp: now, number });
        if stream.write_all(&frame).is_err() {
            return;
        }
        offered.store(number, Ordering::Relaxed);
    }
}

/// Until the other end is gone.
fn send_chunks(mut stream: impl Write, task: &Task, offered: &AtomicU64) {
    let frame = frame(task.bytes());
    let frames = (CHUNK_BYTES / frame.len()).max(1);
    let chunk = frame.repeat(frames);
    while stream.write_all(&chunk).is_ok() {
        offered.fetch_add(frames as u64, Ordering::Relaxed);
    }
}
