//! Two bare peers and a sender that waits for neither: one peer answers at once, the other reads little or nothing.
//!
//! All participants use this receiving end.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::link::{ShutdownOnDrop, Spinner, accept, dial, listen};
use crate::{
    ends::{
        Control, Task,
        frame_parser::FrameParser,
        payload::{Head, frame, stamp, wall_nanos},
        received::{Burst, Received},
        slows::{self, QUICK_BYTES, QuickCounts, Schedule},
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
};

/// Bytes of one read of the slow peer.
const READ_BYTES: usize = 4 << 10;

/// How often the slow peer checks whether it may read.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// When nothing has arrived for this time, everything has arrived.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let (quick, slow) = (channel(), channel());
    let received = Arc::new(Received::default());
    let reader = Arc::new(SlowReader::default());
    let mut workers = Workers::default();
    let (owned, connected) = (task.clone(), control.connected());
    workers.spawn("accepting", move || {
        for _ in 0..2 {
            let (mut stream, _) = accept(&owned, &listener)?;
            let (head, len) = first(&mut stream)?;
            let to = if head.number == 0 { &quick.0 } else { &slow.0 };
            // Fails when this end has stopped.
            let _ = to.send((stream, head, len));
        }
        connected.store(true, Ordering::Release);
        Ok(())
    })?;
    workers.spawn("quick peer", move || {
        let Ok((mut stream, head, _)) = quick.1.recv() else {
            return Ok(());
        };
        let mut answer = frame(QUICK_BYTES);
        stamp(&mut answer, head);
        stream.write_all(&answer)?;
        super::latency::echo(Spinner::new(stream, false)?, QUICK_BYTES)
    })?;
    let (owned, reading, counting) = (task.clone(), Arc::clone(&reader), Arc::clone(&received));
    workers.spawn("slow peer", move || {
        let Ok((stream, head, len)) = slow.1.recv() else {
            return Ok(());
        };
        let mut burst = Burst::new(&counting, true);
        burst.frame(head, len);
        burst.end();
        reading.run(&owned, stream, burst)
    })?;
    control.ready(at);
    let mut window = Window::open(received.counts());
    let wanted = control.measure(&mut workers, || {
        received.reset_ages();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        reader.drains.store(true, Ordering::Release);
        control.wait("end of the slow peer's frames", &mut workers, || {
            reader.is_done.load(Ordering::Acquire)
        })?;
        received.report(&window, true, &mut results);
        reader.report(&mut results);
        if !results.contains_key("age_p50_us") {
            return Err(failure("no frame reached the slow peer"));
        }
    }
    Ok(results)
}

/// The first frame of a connection. Its number tells the quick peer (0) from the slow one.
fn first(stream: &mut TcpStream) -> io::Result<(Head, usize)> {
    let mut prefix = [0; 4];
    stream
        .read_exact(&mut prefix)
        .context("waiting for a first frame")?;
    let mut payload = vec![0; (u32::from_be_bytes(prefix) as usize).min(512 << 10)];
    stream
        .read_exact(&mut payload)
        .context("waiting for a first frame")?;
    let head = Head::of(&payload).ok_or_else(|| failure("a frame is too short for its head"))?;
    Ok((head, payload.len()))
}

/// The slow peer. It reads little or nothing, and at the end everything.
#[derive(Default)]
struct SlowReader {
    drains: AtomicBool,
    is_done: AtomicBool,
    /// Bytes that were read after the measurement before the newest frame.
    stale: AtomicU64,
    /// The age of the newest frame when it arrived.
    newest_age: AtomicU64,
}

impl SlowReader {
    fn run(&self, task: &Task, mut stream: TcpStream, mut burst: Burst) -> io::Result<()> {
        let (mut parser, mut buffer) = (FrameParser::default(), vec![0; 256 << 10]);
        let start = Instant::now();
        let mut consumed = 0;
        while !self.drains.load(Ordering::Acquire) {
            let allowed = start.elapsed().as_micros() as u64 * u64::from(task.slow_mbps);
            if consumed + READ_BYTES as u64 > allowed {
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            let n = stream.read(&mut buffer[..READ_BYTES])?;
            if n == 0 {
                break;
            }
            consumed += n as u64;
            parser.parse(&buffer[..n], |head, len| burst.frame(head, len));
            burst.end();
        }
        stream.set_read_timeout(Some(SILENCE))?;
        let (mut drained, mut newest) = (0, (0, 0));
        loop {
            let n = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            };
            drained += n as u64;
            let now = wall_nanos();
            parser.parse(&buffer[..n], |head, len| {
                newest = (now.saturating_sub(head.stamp), 4 + len as u64);
                burst.frame(head, len);
            });
            burst.end();
        }
        self.stale
            .store(drained.saturating_sub(newest.1), Ordering::Relaxed);
        self.newest_age.store(newest.0, Ordering::Relaxed);
        self.is_done.store(true, Ordering::Release);
        Ok(())
    }

    fn report(&self, into: &mut Map<String, Value>) {
        let age = self.newest_age.load(Ordering::Relaxed) as f64 / 1000.0;
        into.insert("newest_age_us".into(), json!(age));
        into.insert(
            "stale_bytes".into(),
            json!(self.stale.load(Ordering::Relaxed)),
        );
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (quick, slow) = (dial(task, 1)?, dial(task, 2)?);
    let at = quick.local_addr()?;
    let _hangups = [
        ShutdownOnDrop(quick.try_clone()?),
        ShutdownOnDrop(slow.try_clone()?),
    ];
    let quick_counts = Arc::new(QuickCounts::default());
    let slot = Arc::new(Slot::default());
    let mut workers = Workers::default();
    let (sending, offering, bytes) = (Arc::clone(&quick_counts), Arc::clone(&slot), task.bytes());
    workers.spawn("sender", move || {
        send(quick, slow, bytes, &sending, &offering)
    })?;
    let counts = || {
        [&slot.offered, &slot.written, &slot.superseded].map(|count| count.load(Ordering::Relaxed))
    };
    let is_empty = || {
        let [offered, written, superseded] = counts();
        offered == written + superseded
    };
    slows::measure(control, &mut workers, &quick_counts, at, counts, is_empty)
}

/// Counters of the sender's one slot.
#[derive(Default)]
struct Slot {
    offered: AtomicU64,
    written: AtomicU64,
    superseded: AtomicU64,
}

/// Sends until the other end is gone.
fn send(
    mut quick: TcpStream,
    mut slow: TcpStream,
    bytes: usize,
    quick_counts: &QuickCounts,
    slot: &Slot,
) -> io::Result<()> {
    quick.set_nonblocking(true)?;
    slow.set_nonblocking(true)?;
    let mut due = Schedule::new();
    let mut quick_frame = frame(QUICK_BYTES);
    // The frame that is being written, the bytes of it that are written, and the head of the frame that waits in the slot.
    let (mut writing, mut written, mut waiting) = (frame(bytes), 4 + bytes, None);
    let (mut parser, mut buffer) = (FrameParser::default(), vec![0; 64 << 10]);
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    loop {
        if !quick_counts.is_over() {
            if let Some(head) = due.quick() {
                stamp(&mut quick_frame, head);
                if quick.write_all(&quick_frame).is_err() {
                    return Ok(());
                }
                quick_counts.on_sent();
            }
            if let Some(head) = due.slow() {
                add(&slot.offered);
                if waiting.replace(head).is_some() {
                    add(&slot.superseded);
                }
            }
        }
        if written == writing.len() {
            if let Some(head) = waiting.take() {
                stamp(&mut writing, head);
                written = 0;
            }
        }
        if written < writing.len() {
            match slow.write(&writing[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok(()),
            }
            if written == writing.len() {
                add(&slot.written);
            }
        }
        match quick.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => parser.parse(&buffer[..n], |head, _| {
                quick_counts.on_answer(due.start(), head)
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => return Ok(()),
        }
    }
}
