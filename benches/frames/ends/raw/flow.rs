//! One-way traffic over a bare connection: a blocking write for each frame, or chunks of frames that were encoded beforehand.
//!
//! The receiver reads as much as possible and follows the length prefixes. With chunks both ends poll: waking a receiver costs
//! more than reading, and a limit must not include that.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value};

use super::link::{ShutdownOnDrop, Spinner, accept, dial, listen};
use crate::{
    ends::{
        Control, Task, flows,
        frame_parser::FrameParser,
        payload::{Head, frame, stamp, wall_nanos},
        received::{Burst, Received},
        workers::Workers,
    },
    variants::Mode,
};

/// The number of the end that dials.
const DRIVER: u64 = 2;

/// Bytes of one read, and about those of one write of encoded frames. With less, large frames are slower.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let received = Arc::new(Received::default());
    let (owned, connected, counting) = (task.clone(), control.connected(), Arc::clone(&received));
    workers.spawn("receiver", move || {
        let (stream, _) = accept(&owned, &listener)?;
        connected.store(true, Ordering::Release);
        let stream = Spinner::new(stream, owned.variant.mode == Mode::Chunks)?;
        receive(stream, &owned, &counting)
    })?;
    control.ready(at);
    flows::measure_received(task, control, &mut workers, &received)
}

fn receive(mut stream: impl Read, task: &Task, received: &Arc<Received>) -> io::Result<()> {
    let with_ages = !task.workload.is_stream();
    let is_numbered = !is_preencoded(task);
    let mut burst = Burst::new(received, with_ages);
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut parser, mut number) = (FrameParser::default(), 0);
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        parser.parse(&buffer[..n], |head, len| {
            number += 1;
            // Frames that were encoded beforehand all have the same number.
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
    let _hangup = ShutdownOnDrop(stream.try_clone()?);
    let offered = Arc::new(AtomicU64::new(0));
    let mut workers = Workers::default();
    let (owned, counting) = (task.clone(), Arc::clone(&offered));
    workers.spawn("sender", move || {
        let stream = Spinner::new(stream, owned.variant.mode == Mode::Chunks)?;
        if is_preencoded(&owned) {
            send_chunks(stream, &owned, &counting);
        } else {
            send_frames(stream, &owned, &counting);
        }
        Ok(())
    })?;
    // Every offered frame is written.
    let counts = || {
        let offered = offered.load(Ordering::Relaxed);
        [offered, offered, 0]
    };
    flows::measure_sent(task, control, &mut workers, at, counts)
}

fn is_preencoded(task: &Task) -> bool {
    matches!(task.variant.mode, Mode::Chunks | Mode::Block)
}

/// Sends until the other end is gone.
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

/// Sends until the other end is gone.
fn send_chunks(mut stream: impl Write, task: &Task, offered: &AtomicU64) {
    let frame = frame(task.bytes());
    let frames = (CHUNK_BYTES / frame.len()).max(1);
    let chunk = frame.repeat(frames);
    while stream.write_all(&chunk).is_ok() {
        offered.fetch_add(frames as u64, Ordering::Relaxed);
    }
}
