//! Two peers of which one answers at once and the other reads little or nothing, served by one loop.
//!
//! The far ends are bare sockets, the same for everybody who sends.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{EventLoop, Frame, Handle, Handler, SendError, Sid};
use serde_json::{Map, Value};

use super::setup::{Halt, driving, start, wait_linked};
use crate::{
    ends::{
        Control, Task,
        payload::Head,
        slows::{self, Beside, Due, QUICK_BYTES},
        workers::Workers,
    },
    failure::While,
    variants::Way,
};

/// Who answers at once.
const QUICK: Sid = Sid(1);

/// Who does not keep up.
const SLOW: Sid = Sid(2);

/// Who dials both: the largest sid.
const OWN: Sid = Sid(3);

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = driving(task, OWN, [QUICK, SLOW])?;
    let beside = Arc::new(Beside::default());
    let mut due = Due::new();
    let answers = Answers {
        beside: Arc::clone(&beside),
        start: due.start(),
    };
    let mut workers = Workers::default();
    let (asking, bytes) = (Arc::clone(&beside), task.bytes());
    let halt = if task.variant.way == Way::Loop {
        let mut event_loop = EventLoop::new(config, answers).context("starting the loop")?;
        let handle = event_loop.handle().clone();
        workers.spawn("application", move || {
            let handle = event_loop.handle().clone();
            let is_linked = || {
                [QUICK, SLOW]
                    .into_iter()
                    .all(|peer| handle.connected_to_peer(peer))
            };
            while event_loop.turn(Some(Duration::ZERO))? {
                if is_linked() {
                    offer(&mut due, &handle, bytes, &asking).context("sending")?;
                }
            }
            Ok(())
        })?;
        Halt(handle)
    } else {
        let halt = start(config, answers, &mut workers)?;
        wait_linked(control, &mut workers, &halt.0, [QUICK, SLOW])?;
        let handle = halt.0.clone();
        workers.spawn("application", move || {
            while !handle.is_halted() {
                match offer(&mut due, &handle, bytes, &asking) {
                    Err(SendError::Halted) => break,
                    other => other.context("sending")?,
                }
                thread::yield_now();
            }
            Ok(())
        })?;
        halt
    };
    let of_slow = || {
        let stats = halt.0.stats();
        let slow = stats.peers.iter().find(|peer| peer.sid == SLOW);
        slow.map_or([0; 3], |slow| {
            [slow.sent.accepted, slow.sent.written, slow.sent.superseded]
        })
    };
    let is_empty = || halt.0.have_delivered();
    slows::measure(control, &mut workers, &beside, at, of_slow, is_empty)
}

/// Offers what is due.
fn offer(due: &mut Due, handle: &Handle, bytes: usize, beside: &Beside) -> Result<(), SendError> {
    if beside.is_over() {
        return Ok(());
    }
    if let Some(head) = due.quick() {
        handle.to_send(QUICK, head.payload(QUICK_BYTES))?;
        beside.on_asked();
    }
    if let Some(head) = due.slow() {
        handle.to_send(SLOW, head.payload(bytes))?;
    }
    Ok(())
}

/// Notes when an answer comes.
struct Answers {
    beside: Arc<Beside>,
    start: Instant,
}

impl Handler for Answers {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        if let Some(head) = Head::of(&frame) {
            self.beside.on_answer(self.start, head);
        }
    }
}
