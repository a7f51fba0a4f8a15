//! Two peers of one loop: one answers at once, the other reads little or nothing.
//!
//! The receivers are bare sockets, the same for all participants.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{EventLoop, Frame, Handle, Handler, SendError, Sid};
use serde_json::{Map, Value};

use super::setup::{HaltOnDrop, driving, start, wait_linked};
use crate::{
    ends::{
        Control, Task,
        payload::Head,
        slows::{self, QUICK_BYTES, QuickCounts, Schedule},
        workers::Workers,
    },
    failure::While,
    variants::Api,
};

/// The peer that answers at once.
const QUICK: Sid = Sid(1);

/// The peer that does not keep up.
const SLOW: Sid = Sid(2);

/// The sender: it has the largest sid, and dials both.
const OWN: Sid = Sid(3);

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (config, at) = driving(task, OWN, [QUICK, SLOW])?;
    let quick_counts = Arc::new(QuickCounts::default());
    let mut due = Schedule::new();
    let answers = Answers {
        quick_counts: Arc::clone(&quick_counts),
        start: due.start(),
    };
    let mut workers = Workers::default();
    let (sending, bytes) = (Arc::clone(&quick_counts), task.bytes());
    let halt = if task.variant.api == Api::Loop {
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
                    offer(&mut due, &handle, bytes, &sending).context("sending")?;
                }
            }
            Ok(())
        })?;
        HaltOnDrop(handle)
    } else {
        let halt = start(config, answers, &mut workers)?;
        wait_linked(control, &mut workers, &halt.0, [QUICK, SLOW])?;
        let handle = halt.0.clone();
        workers.spawn("application", move || {
            while !handle.is_halted() {
                match offer(&mut due, &handle, bytes, &sending) {
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
    slows::measure(control, &mut workers, &quick_counts, at, of_slow, is_empty)
}

/// Sends the frames that are due.
fn offer(
    due: &mut Schedule,
    handle: &Handle,
    bytes: usize,
    quick_counts: &QuickCounts,
) -> Result<(), SendError> {
    if quick_counts.is_over() {
        return Ok(());
    }
    if let Some(head) = due.quick() {
        handle.to_send(QUICK, head.payload(QUICK_BYTES))?;
        quick_counts.on_sent();
    }
    if let Some(head) = due.slow() {
        handle.to_send(SLOW, head.payload(bytes))?;
    }
    Ok(())
}

/// Records the answers.
struct Answers {
    quick_counts: Arc<QuickCounts>,
    start: Instant,
}

impl Handler for Answers {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        if let Some(head) = Head::of(&frame) {
            self.quick_counts.on_answer(self.start, head);
        }
    }
}
