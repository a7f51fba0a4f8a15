//! Connections are read, each up to its share of the turn.
//!
//! Nothing here is written.

use std::{io, mem, time::Instant};

use super::{
    EventLoop,
    connections::Phase,
    read_stream::{ReadOutcome, read_frames},
};
use crate::{
    handler::Handler,
    limits::{HOT_READS, HOT_TURNS_MAX, SLOW_TURN, TURN_BYTES},
    message::Frame,
    net::Net,
    proto::{ConnectionKey, Reason},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Has the link read in this turn or the next: its edge may have come already.
    pub(super) fn look_at(&mut self, key: ConnectionKey) {
        if let Some(link) = self.connections.get_mut(key) {
            if !mem::replace(&mut link.busy, true) {
                self.busy.push(key);
            }
        }
    }

    pub(super) fn read(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.busy);
        let (mut has_read_one, mut later) = (false, Vec::new());
        for key in round.drain(..) {
            if self.handle.shared().halt.is_given() {
                // Nobody wants to know any more.
                break;
            }
            let Some(link) = self.connections.get_mut(key) else {
                continue;
            };
            let is_open = matches!(link.phase, Phase::Open { .. });
            if is_open && mem::replace(&mut has_read_one, true) {
                let took = self.net.now().saturating_duration_since(now);
                if took > SLOW_TURN {
                    // The handler is slow, and there is more to a turn than frames.
                    later.push(key);
                    continue;
                }
            }
            link.busy = false;
            match &link.phase {
                Phase::Open { .. } => {
                    if let Some(reason) = self.read_link(key) {
                        self.end(key, reason, now);
                    }
                }
                Phase::AwaitingInitialMessage { .. } => self.receive_initial_message(key, now),
                Phase::Knocking { .. } => self.await_hangup(key, now),
                // A contender is not read, but it is let go when it leaves.
                Phase::Named { .. } if link.ended => self.end(key, Reason::ClosedEarly, now),
                Phase::Named { .. } | Phase::Dialing { .. } | Phase::Closed => {}
            }
        }
        // First those that were not read, then those that have more, which stand in `busy` again; the room is kept.
        round.append(&mut later);
        round.append(&mut self.busy);
        self.busy = round;
    }

    /// Reads the link that is most likely to have something, a few times, without asking first whether it has: who waits for
    /// an answer is spared that request. Returns whether something came, and so the turn has begun.
    pub(super) fn read_hot(&mut self) -> bool {
        let before = mem::take(&mut self.hot_turns);
        let Some(key) = self.hot.filter(|_| before < HOT_TURNS_MAX) else {
            // Others may be ready as well.
            return false;
        };
        for _ in 0..HOT_READS {
            self.hot = None;
            if let Some(reason) = self.read_link(key) {
                let now = self.net.now();
                self.end(key, reason, now);
                self.hot = None;
            } else if self.hot.is_none() {
                continue;
            }
            self.hot_turns = before + 1;
            return true;
        }
        self.hot = self.connections.get_mut(key).map(|_| key);
        false
    }

    /// Reads frames of a link up to its share of the turn. Returns why the link is to be ended, if it is.
    pub(super) fn read_link(&mut self, key: ConnectionKey) -> Option<Reason> {
        let Self {
            connections,
            handler,
            handle,
            read_buffer,
            hot,
            paused,
            ..
        } = self;
        let link = connections.get_mut(key)?;
        let Phase::Open {
            peer,
            number,
            has_received,
            on_probation,
            frames,
            leftover,
            ..
        } = &mut link.phase
        else {
            return None;
        };
        if !handler.is_ready(peer.sid) {
            paused.insert(key);
            return None;
        }
        if !paused.is_empty() {
            paused.remove(&key);
        }
        let link_number = *number;
        let (mut count, mut bytes) = (0, 0);
        let halt = &handle.shared().halt;
        let outcome = read_frames(
            &*link.stream,
            frames,
            leftover,
            read_buffer,
            link.ended,
            |payload| {
                let frame = Frame {
                    payload,
                    link: link_number,
                };
                if !halt.is_given() {
                    count += 1;
                    bytes += frame.len() as u64;
                    handler.on_frame(peer.sid, frame, handle);
                }
            },
        );
        if count > 0 {
            peer.counters.frames.add(count);
            peer.counters.bytes.add(bytes);
            handler.on_read_complete(handle);
            *hot = Some(key);
        }
        if !*has_received && (count > 0 || !frames.is_between_frames()) {
            *has_received = true;
            if mem::take(on_probation) {
                // The peer keeps the link: what waits for it may be written. The deadline finds nothing left to do.
                let request = peer.outbox.confirm();
                // Refused only where there is no loop.
                let _ = handle.shared().ask(peer, request);
            }
        }
        match (outcome, &mut link.draining) {
            (ReadOutcome::Drained, None) => None,
            (ReadOutcome::Drained, Some(draining)) => Some(Reason::of_kind(draining.kind)),
            (ReadOutcome::BudgetExhausted, Some(draining)) if draining.budget == 0 => {
                Some(Reason::of_kind(draining.kind))
            }
            (ReadOutcome::BudgetExhausted, draining) => {
                if let Some(draining) = draining {
                    draining.budget = draining.budget.saturating_sub(TURN_BYTES);
                }
                self.look_at(key);
                None
            }
            (ReadOutcome::Closed(reason), draining) => {
                let written = draining.as_ref().map(|draining| draining.kind);
                Some(end_of(reason, written.or_else(|| peer.outbox.broken())))
            }
        }
    }
}

/// Why a link has ended: what the last read said, and how writing failed, if it did.
///
/// The kernel reports an error of a connection once. If a write took it, the read finds a plain end.
fn end_of(read: Reason, written: Option<io::ErrorKind>) -> Reason {
    match (&read, written) {
        // `EPIPE` says only that the end was known already.
        (_, None | Some(io::ErrorKind::BrokenPipe)) => read,
        (Reason::Closed | Reason::ClosedEarly, Some(kind)) => Reason::of_kind(kind),
        _ => read,
    }
}
