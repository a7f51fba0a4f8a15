//! A leader that sends entries to two followers through queues, and counts those that both have acknowledged.
//!
//! The leader is the end that listens, since it has the smallest sid; the two followers are in the process of the end that
//! connects. Each acknowledges with the number of the last entry that it has read, once for each read. Both sides are handlers, or
//! threads that take messages from an inbox. A leader may also turn its loop itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorum_cnx::{
    Batch, CnxManager, Config, Event, EventLoop, Frame, Handle, Handler, Outbox, SendError, Sender,
    Sid,
};
use serde_json::{Map, Value, json};

use super::setup::{
    HaltOnDrop, SERVER, driver_builder, finish, serving_builder, start, wait_linked,
};
use crate::{
    ends::{
        Control, Task, flows,
        payload::{HEAD_BYTES, Head},
        received::{Burst, Received},
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
    variants::Api,
};

const FOLLOWERS: [Sid; 2] = [Sid(2), Sid(3)];

/// Timeout of a turn, after which the application checks for a halt.
const TURN: Duration = Duration::from_millis(100);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (builder, at) = serving_builder(task, FOLLOWERS)?;
    let config = finish(builder.outbox(Outbox::QUEUE))?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let leader = Leader {
        in_flight: task.in_flight.into(),
        payload: vec![b'x'; task.bytes()],
        followers: Vec::new(),
        acknowledged: Arc::clone(&acknowledged),
        connected: control.connected(),
    };
    let mut workers = Workers::default();
    let _halt = lead(task, config, leader, &mut workers)?;
    control.ready(at);
    let counts = || [acknowledged.load(Ordering::Relaxed)];
    let mut window = Window::open(counts());
    let wanted = control.measure(&mut workers, || window = Window::open(counts()))?;
    let mut results = Map::new();
    if wanted {
        let growth = window.close(counts());
        if growth.counts == [0] {
            return Err(failure("no entry was acknowledged since `mark`"));
        }
        results.insert("acknowledged_per_s".into(), json!(growth.per_second(0)));
    }
    Ok(results)
}

/// Starts the leader.
fn lead(
    task: &Task,
    config: Config,
    mut leader: Leader,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    match task.variant.api {
        Api::Loop => {
            let mut event_loop =
                EventLoop::new(config, ByTurns(leader)).context("starting the loop")?;
            let handle = event_loop.handle().clone();
            workers.spawn("application", move || {
                while event_loop.turn(Some(TURN))? {
                    event_loop.handler_mut().0.send();
                }
                Ok(())
            })?;
            Ok(HaltOnDrop(handle))
        }
        Api::Inbox => {
            let manager = CnxManager::start(config).context("starting the manager")?;
            let handle = manager.handle();
            workers.spawn("application", move || {
                while !manager.wait_linked(FOLLOWERS.len(), TURN) {
                    if manager.is_halted() {
                        return Ok(());
                    }
                }
                leader.begin(&manager.handle());
                leader.send();
                let mut batch = Batch::default();
                while manager.recv_all(&mut batch).is_ok() {
                    for (from, payload) in &batch {
                        leader.on_acknowledgement(from, payload);
                    }
                    leader.send();
                }
                Ok(())
            })?;
            Ok(HaltOnDrop(handle))
        }
        _ => start(config, leader, workers),
    }
}

/// What a leader knows of a follower.
struct Follower {
    sender: Sender,
    /// The number of the last entry that was sent, and of the last one that was acknowledged.
    sent: u64,
    acknowledged: u64,
}

struct Leader {
    /// Entries that not both followers have acknowledged, at most.
    in_flight: u64,
    payload: Vec<u8>,
    /// Empty until both are linked.
    followers: Vec<Follower>,
    /// Entries that both have acknowledged.
    acknowledged: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
}

impl Leader {
    /// Both followers are linked.
    fn begin(&mut self, handle: &Handle) {
        let follower = |sender| Follower {
            sender,
            sent: 0,
            acknowledged: 0,
        };
        let senders = FOLLOWERS.iter().map(|sid| handle.sender(*sid));
        self.followers = senders.filter_map(Result::ok).map(follower).collect();
        self.connected.store(true, Ordering::Release);
    }

    fn on_acknowledgement(&mut self, from: Sid, payload: &[u8]) {
        let at = FOLLOWERS.iter().position(|sid| *sid == from);
        let follower = at.and_then(|at| self.followers.get_mut(at));
        if let (Some(follower), Some(number)) = (follower, payload.first_chunk()) {
            follower.acknowledged = u64::from_be_bytes(*number);
        }
    }

    /// Sends as many entries as may be in flight. If a queue is full, the next acknowledgement continues.
    fn send(&mut self) {
        let acknowledged = self.followers.iter().map(|one| one.acknowledged).min();
        let Some(acknowledged) = acknowledged else {
            return;
        };
        self.acknowledged.store(acknowledged, Ordering::Relaxed);
        for follower in &mut self.followers {
            while follower.sent < acknowledged + self.in_flight {
                let head = Head {
                    stamp: 0,
                    number: follower.sent + 1,
                };
                let fed = follower.sender.feed_with(self.payload.len(), |entry| {
                    entry[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
                    entry[HEAD_BYTES..].copy_from_slice(&self.payload[HEAD_BYTES..]);
                });
                if fed.is_err() {
                    break;
                }
                follower.sent += 1;
            }
            // Fails when the loop halts.
            let _ = follower.sender.flush();
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        let is_up = matches!(event, Event::Up { .. });
        if is_up && handle.linked_peers().len() == FOLLOWERS.len() {
            self.begin(handle);
        }
    }
}

/// Sends on the thread of the loop.
impl Handler for Leader {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.on_acknowledgement(from, &frame);
    }

    fn on_read_complete(&mut self, _: &Handle) {
        self.send();
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        Self::on_event(self, event, handle);
        self.send();
    }
}

/// The application sends, after each turn.
struct ByTurns(Leader);

impl Handler for ByTurns {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.0.on_acknowledgement(from, &frame);
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        Leader::on_event(&mut self.0, event, handle);
    }
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let mut workers = Workers::default();
    let mut followers = Vec::new();
    let mut all_received = Vec::new();
    let mut at = None;
    for sid in FOLLOWERS {
        let (builder, address) = driver_builder(task, sid, [SERVER])?;
        let config = finish(builder.outbox(Outbox::QUEUE))?;
        let received = Arc::new(Received::default());
        followers.push(follow(task, config, &received, &mut workers)?);
        all_received.push(received);
        at.get_or_insert(address);
    }
    let at = at.ok_or_else(|| failure("there is no follower"))?;
    for halt in &followers {
        wait_linked(control, &mut workers, &halt.0, [SERVER])?;
    }
    let counts = || {
        let counts = all_received.iter().map(|one| one.counts());
        counts.fold([0; 3], |sums, counts| {
            [0, 1, 2].map(|n| sums[n] + counts[n])
        })
    };
    control.wait("entry", &mut workers, || counts()[0] > 0)?;
    flows::warm(task, control, &mut workers, at)?;
    let mut window = Window::open(counts());
    let wanted = control.measure(&mut workers, || window = Window::open(counts()))?;
    let mut results = Map::new();
    if wanted {
        results.insert("gaps".into(), json!(window.close(counts()).counts[2]));
    }
    Ok(results)
}

/// Starts a follower.
fn follow(
    task: &Task,
    config: Config,
    received: &Arc<Received>,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    let mut reader = Reader {
        burst: Burst::new(received, false),
        last: 0,
    };
    if task.variant.api != Api::Inbox {
        return start(config, reader, workers);
    }
    let manager = CnxManager::start(config).context("starting the manager")?;
    let handle = manager.handle();
    workers.spawn("application", move || {
        let handle = manager.handle();
        let mut batch = Batch::default();
        while manager.recv_all(&mut batch).is_ok() {
            for (_, payload) in &batch {
                reader.on_entry(payload);
            }
            if reader.acknowledge(&handle).is_err() {
                break;
            }
        }
        Ok(())
    })?;
    Ok(HaltOnDrop(handle))
}

/// Reads entries.
struct Reader {
    burst: Burst,
    /// The number of the last entry.
    last: u64,
}

impl Reader {
    fn on_entry(&mut self, payload: &[u8]) {
        if let Some(head) = Head::of(payload) {
            self.burst.frame(head, payload.len());
            self.last = head.number;
        }
    }

    /// Acknowledges what was read.
    fn acknowledge(&mut self, handle: &Handle) -> Result<(), SendError> {
        self.burst.end();
        handle
            .to_send_slice(SERVER, &self.last.to_be_bytes())
            .map(drop)
    }
}

impl Handler for Reader {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.on_entry(&frame);
    }

    fn on_read_complete(&mut self, handle: &Handle) {
        // Fails when the loop halts.
        let _ = self.acknowledge(handle);
    }
}
