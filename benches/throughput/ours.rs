//! The same through two managers, and through two loops with a handler.
//!
//! In a manager the application has a thread of its own at each end. With a handler it is called where a frame is
//! decoded, and answers there.

use std::{
    error::Error,
    net::TcpListener,
    sync::{Arc, mpsc::channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorum_cnx::{CnxManager, Config, EventLoop, Frame, Handle, Handler, SendError, Sent, Sid};

use crate::{Flow, Gauge, Task, Trip, histogram};

/// Who sends, and who receives or answers.
const NEAR: Sid = Sid(1);
const FAR: Sid = Sid(2);

/// Only a failure takes this long.
const LONG: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn manager_one_way(task: &Task) -> Result<Flow> {
    let [near, far] = managers(task)?;
    let gauge = Gauge::default();
    let (counter, receiving) = (gauge.clone(), Arc::clone(&far));
    let receiver = thread::spawn(move || {
        while receiving.recv().is_ok() {
            counter.count(1);
        }
    });
    let sender = spawn_sender(near.handle(), task, &gauge);
    let delivered = gauge.rate(task.time);
    join(sender)??;
    let (sent, came) = (near.stats().sent, far.stats().inbox);
    near.halt();
    far.halt();
    join(receiver)?;
    Ok(Flow {
        delivered,
        superseded: share(sent.superseded, sent.accepted),
        dropped: share(came.dropped, came.pushed),
    })
}

pub(crate) fn manager_trip(task: &Task) -> Result<Trip> {
    let [near, far] = managers(task)?;
    let echoing = Arc::clone(&far);
    let mirror = thread::spawn(move || {
        while let Ok(message) = echoing.recv() {
            // Fails when the measurement is over.
            let _ = echoing.to_send(NEAR, message.payload);
        }
    });
    let frame = payload(task);
    let mut trips = histogram();
    let start = Instant::now();
    while start.elapsed() < task.time || trips.is_empty() {
        let sent = Instant::now();
        near.to_send(FAR, frame.clone())?;
        near.recv_timeout(LONG)?;
        trips.saturating_record(sent.elapsed().as_nanos() as u64);
    }
    near.halt();
    far.halt();
    join(mirror)?;
    Ok(Trip::of(&trips))
}

pub(crate) fn loop_one_way(task: &Task) -> Result<Flow> {
    let gauge = Gauge::default();
    let [near, far] = loops(task, Ignore, Count::new(&gauge))?;
    let sender = spawn_sender(near.handle.clone(), task, &gauge);
    let delivered = gauge.rate(task.time);
    join(sender)??;
    let sent = near.handle.stats().sent;
    near.halt()?;
    far.halt()?;
    Ok(Flow {
        delivered,
        superseded: share(sent.superseded, sent.accepted),
        dropped: 0.0,
    })
}

pub(crate) fn loop_trip(task: &Task) -> Result<Trip> {
    let (over, trips) = channel();
    let ping = Ping {
        frame: payload(task),
        sent: None,
        trips: histogram(),
        time: task.time,
        start: Instant::now(),
        over,
    };
    let [near, far] = loops(task, ping, Echo)?;
    near.handle.to_send(FAR, payload(task))?;
    let trips = trips.recv_timeout(task.time + LONG)?;
    near.halt()?;
    far.halt()?;
    Ok(Trip::of(&trips))
}

fn payload(task: &Task) -> Bytes {
    vec![b'x'; task.bytes].into()
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Both ends, on ports that the kernel chose.
fn configs(task: &Task) -> Result<[Config; 2]> {
    let sockets = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let [near, far] = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    let config = |own, socket| {
        Config::builder(own)
            .server(NEAR, near.to_string())
            .server(FAR, far.to_string())
            .listener(socket)
            .idle(task.idle)
            .unsent_limit(task.unsent_limit)
            .build()
    };
    let [one, two] = sockets;
    Ok([config(NEAR, one)?, config(FAR, two)?])
}

fn managers(task: &Task) -> Result<[Arc<CnxManager>; 2]> {
    let [near, far] = configs(task)?;
    let pair = [
        Arc::new(CnxManager::start(near)?),
        Arc::new(CnxManager::start(far)?),
    ];
    wait_linked(&pair[0], &pair[1])?;
    Ok(pair)
}

/// A loop on its thread.
struct Turning {
    handle: Handle,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Turning {
    fn start<H: Handler + Send + 'static>(config: Config, handler: H) -> Result<Self> {
        let mut event_loop = EventLoop::new(config, handler)?;
        Ok(Self {
            handle: event_loop.handle().clone(),
            thread: thread::spawn(move || event_loop.run()),
        })
    }

    fn halt(self) -> Result<()> {
        self.handle.request_halt();
        Ok(join(self.thread)??)
    }
}

fn loops<N, F>(task: &Task, near: N, far: F) -> Result<[Turning; 2]>
where
    N: Handler + Send + 'static,
    F: Handler + Send + 'static,
{
    let [one, two] = configs(task)?;
    let pair = [Turning::start(one, near)?, Turning::start(two, far)?];
    wait_linked(&pair[0].handle, &pair[1].handle)?;
    Ok(pair)
}

fn wait_linked(near: &Handle, far: &Handle) -> Result<()> {
    let start = Instant::now();
    while !near.connected_to_peer(FAR) || !far.connected_to_peer(NEAR) {
        if start.elapsed() > LONG {
            return Err("the two are not linked in time".into());
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

fn spawn_sender(
    handle: Handle,
    task: &Task,
    gauge: &Gauge,
) -> JoinHandle<std::result::Result<(), SendError>> {
    let (frame, gauge, paced) = (payload(task), gauge.clone(), task.paced);
    thread::spawn(move || {
        while !gauge.is_stopped() {
            let sent = handle.to_send(FAR, frame.clone())?;
            if paced && sent != Sent::Written {
                while !handle.have_delivered() && !gauge.is_stopped() {
                    thread::yield_now();
                }
            }
        }
        Ok(())
    })
}

fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| "a thread has panicked".into())
}

struct Ignore;

impl Handler for Ignore {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}

struct Count {
    gauge: Gauge,
    burst: u64,
}

impl Count {
    fn new(gauge: &Gauge) -> Self {
        Self {
            gauge: gauge.clone(),
            burst: 0,
        }
    }
}

impl Handler for Count {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        self.burst += 1;
    }

    fn on_burst_end(&mut self, _: &Handle) {
        self.gauge.count(std::mem::take(&mut self.burst));
    }
}

struct Echo;

impl Handler for Echo {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        // Fails when the measurement is over.
        let _ = handle.to_send(from, frame.into_bytes());
    }
}

/// Sends again as soon as the answer is there, until the time is over.
struct Ping {
    frame: Bytes,
    /// When; `None` for the first, which came from another thread.
    sent: Option<Instant>,
    trips: Histogram<u64>,
    time: Duration,
    start: Instant,
    over: std::sync::mpsc::Sender<Histogram<u64>>,
}

impl Handler for Ping {
    fn on_frame(&mut self, from: Sid, _: Frame<'_>, handle: &Handle) {
        let now = Instant::now();
        match self.sent {
            Some(sent) => self.trips.saturating_record((now - sent).as_nanos() as u64),
            None => self.start = now,
        }
        if now - self.start >= self.time && !self.trips.is_empty() {
            // Fails when nobody waits any more.
            let _ = self.over.send(self.trips.clone());
            return;
        }
        self.sent = Some(now);
        // Fails when the measurement is over.
        let _ = handle.to_send(from, self.frame.clone());
    }
}
