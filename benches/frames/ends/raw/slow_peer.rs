//! Two bare peers of which one answers at once and the other reads little or nothing, and a sender that waits for neither.
//!
//! The receiving end is the same for everybody who sends.

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

use super::link::{Hangup, Spinner, dial, listen, take};
use crate::{
    ends::{
        Control, Task,
        payload::{Head, frame, stamp, wall_nanos},
        received::{Burst, Received},
        slows::{self, Beside, Due, QUICK_BYTES},
        walker::Walker,
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
};

/// What the slow peer reads at once.
const SIP_BYTES: usize = 4 << 10;

/// How often a peer that reads nothing looks whether it may.
const GLANCE: Duration = Duration::from_millis(1);

/// When nothing has come for this long, all has come.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let (quick, slow) = (channel(), channel());
    let received = Arc::new(Received::default());
    let sipping = Arc::new(Sipping::default());
    let mut workers = Workers::default();
    let (owned, connected) = (task.clone(), control.connected());
    workers.spawn("accepting", move || {
        for _ in 0..2 {
            let (mut stream, _) = take(&owned, &listener)?;
            let (head, len) = first(&mut stream)?;
            let to = if head.number == 0 { &quick.0 } else { &slow.0 };
            // Fails when this end is over.
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
    let (owned, sips, counting) = (task.clone(), Arc::clone(&sipping), Arc::clone(&received));
    workers.spawn("slow peer", move || {
        let Ok((stream, head, len)) = slow.1.recv() else {
            return Ok(());
        };
        let mut burst = Burst::new(&counting, true);
        burst.frame(head, len);
        burst.end();
        sips.run(&owned, stream, burst)
    })?;
    control.ready(at);
    let mut window = Window::open(received.counts());
    let wanted = control.measure(&mut workers, || {
        received.forget_ages();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        sipping.drains.store(true, Ordering::Release);
        control.wait("end of the slow peer's frames", &mut workers, || {
            sipping.is_done.load(Ordering::Acquire)
        })?;
        received.tell(&window, true, &mut results);
        sipping.tell(&mut results);
        if !results.contains_key("age_p50_us") {
            return Err(failure("the slow peer got nothing at all"));
        }
    }
    Ok(results)
}

/// The first frame of a connection, which says by its number who it is for.
fn first(stream: &mut TcpStream) -> io::Result<(Head, usize)> {
    let mut prefix = [0; 4];
    stream
        .read_exact(&mut prefix)
        .context("waiting for a first frame")?;
    let mut payload = vec![0; (u32::from_be_bytes(prefix) as usize).min(512 << 10)];
    stream
        .read_exact(&mut payload)
        .context("waiting for a first frame")?;
    let head =
        Head::of(&payload).ok_or_else(|| failure("a frame that is too short for its head"))?;
    Ok((head, payload.len()))
}

/// The slow peer: reads little or nothing, and at the end all there is.
#[derive(Default)]
struct Sipping {
    drains: AtomicBool,
    is_done: AtomicBool,
    /// Bytes that had to be read before the newest frame.
    stale: AtomicU64,
    /// How old that was when it came.
    newest_age: AtomicU64,
}

impl Sipping {
    fn run(&self, task: &Task, mut stream: TcpStream, mut burst: Burst) -> io::Result<()> {
        let (mut walker, mut stage) = (Walker::default(), vec![0; 256 << 10]);
        let start = Instant::now();
        let mut sipped = 0;
        while !self.drains.load(Ordering::Acquire) {
            let allowed = start.elapsed().as_micros() as u64 * u64::from(task.slow_mbps);
            if sipped + SIP_BYTES as u64 > allowed {
                thread::sleep(GLANCE);
                continue;
            }
            let n = stream.read(&mut stage[..SIP_BYTES])?;
            if n == 0 {
                break;
            }
            sipped += n as u64;
            walker.walk(&stage[..n], |head, len| burst.frame(head, len));
            burst.end();
        }
        stream.set_read_timeout(Some(SILENCE))?;
        let (mut drained, mut newest) = (0, (0, 0));
        loop {
            let n = match stream.read(&mut stage) {
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
            walker.walk(&stage[..n], |head, len| {
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

    fn tell(&self, into: &mut Map<String, Value>) {
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
    let _hangups = [Hangup(quick.try_clone()?), Hangup(slow.try_clone()?)];
    let beside = Arc::new(Beside::default());
    let slot = Arc::new(Slot::default());
    let mut workers = Workers::default();
    let (asking, offering, bytes) = (Arc::clone(&beside), Arc::clone(&slot), task.bytes());
    workers.spawn("sender", move || {
        send(quick, slow, bytes, &asking, &offering)
    })?;
    let counts = || {
        [&slot.offered, &slot.written, &slot.superseded].map(|count| count.load(Ordering::Relaxed))
    };
    let is_empty = || {
        let [offered, written, superseded] = counts();
        offered == written + superseded
    };
    slows::measure(control, &mut workers, &beside, at, counts, is_empty)
}

/// What the sender counts of its one slot.
#[derive(Default)]
struct Slot {
    offered: AtomicU64,
    written: AtomicU64,
    superseded: AtomicU64,
}

/// Until the other end is gone.
fn send(
    mut quick: TcpStream,
    mut slow: TcpStream,
    bytes: usize,
    beside: &Beside,
    slot: &Slot,
) -> io::Result<()> {
    quick.set_nonblocking(true)?;
    slow.set_nonblocking(true)?;
    let mut due = Due::new();
    let mut question = frame(QUICK_BYTES);
    // What leaves, how much of it has left, and what waits behind it.
    let (mut leaving, mut left, mut waiting) = (frame(bytes), 4 + bytes, None);
    let (mut walker, mut stage) = (Walker::default(), vec![0; 64 << 10]);
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    loop {
        if !beside.is_over() {
            if let Some(head) = due.quick() {
                stamp(&mut question, head);
                if quick.write_all(&question).is_err() {
                    return Ok(());
                }
                beside.on_asked();
            }
            if let Some(head) = due.slow() {
                add(&slot.offered);
                if waiting.replace(head).is_some() {
                    add(&slot.superseded);
                }
            }
        }
        if left == leaving.len() {
            if let Some(head) = waiting.take() {
                stamp(&mut leaving, head);
                left = 0;
            }
        }
        if left < leaving.len() {
            match slow.write(&leaving[left..]) {
                Ok(n) => left += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok(()),
            }
            if left == leaving.len() {
                add(&slot.written);
            }
        }
        match quick.read(&mut stage) {
            Ok(0) => return Ok(()),
            Ok(n) => walker.walk(&stage[..n], |head, _| beside.on_answer(due.start(), head)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => return Ok(()),
        }
    }
}
