//! Reads connections, each up to its budget for the turn.
//!
//! Nothing here writes, except that the first byte of a link on probation has its queue written.

use std::{io, mem, sync::Arc, time::Instant};

use super::{
    EventLoop,
    connections::Phase,
    read_stream::{ReadOutcome, read_frames},
};
use crate::{
    handle::Handle,
    handler::Handler,
    limits::{
        HANDSHAKES_PER_TURN, HOT_READS, HOT_TURNS_MAX, RECEIVED_PRECISION, SLOW_TURN, TURN_BYTES,
    },
    message::Frame,
    net::{Net, Stream as _},
    proto::{ConnectionKey, Reason},
    shared::Peer,
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Has the connection read in this turn or the next. Needed where the edge that announced its data has already been used.
    pub(super) fn look_at(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            if !mem::replace(&mut connection.busy, true) {
                self.busy.push(key);
            }
        }
    }

    /// Records the time of frames that were delivered in a turn that has not read the clock.
    fn record_untimed(&mut self, now: Instant) {
        if let Some(connection) = self
            .read_untimed
            .take()
            .and_then(|key| self.connections.get_mut(key))
        {
            if let Phase::Open {
                peer, record_at, ..
            } = &mut connection.phase
            {
                record(peer, record_at, now);
            }
        }
    }

    pub(super) fn read(&mut self, now: Instant) {
        self.record_untimed(now);
        let mut round = mem::take(&mut self.busy);
        let (mut has_read_one, mut later) = (false, Vec::new());
        for key in round.drain(..) {
            if self.handle.shared().halt.is_given() {
                // After a halt request nothing is delivered.
                break;
            }
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            let is_open = matches!(connection.phase, Phase::Open { .. });
            if is_open && mem::replace(&mut has_read_one, true) {
                let took = self.net.now().saturating_duration_since(now);
                if took > SLOW_TURN {
                    // The handler is slow, and the turn has more to do than to deliver frames.
                    later.push(key);
                    continue;
                }
            }
            // Before it is read: whatever finds more to read puts it into `busy` again.
            connection.busy = false;
            match &connection.phase {
                Phase::Open { .. } => {
                    if let Some(reason) = self.read_link(key, Some(now)) {
                        self.end(key, reason, now);
                    }
                }
                // Costly, so not in the order of their edges, but a few after all that is cheap.
                Phase::AwaitingInitialMessage { .. } | Phase::Dialing { .. }
                    if connection.stream.is_handshaking() =>
                {
                    self.handshakes.push(key);
                }
                Phase::AwaitingInitialMessage { .. } => self.receive_initial_message(key, now),
                Phase::AwaitingAnswer { .. }
                | Phase::Knocking {
                    answer: Some(_), ..
                } => {
                    self.receive_answer(key, now);
                }
                Phase::Knocking { answer: None, .. } => self.await_hangup(key, now),
                // A contender is not read, but it ends when its far end has closed it.
                Phase::Named { .. } if connection.ended => self.end(key, Reason::ClosedEarly, now),
                Phase::Named { .. } | Phase::Dialing { .. } | Phase::Closed => {}
            }
        }
        // First the connections that were not read, then those with more data, which are in `busy` again. The buffer is reused.
        round.append(&mut later);
        round.append(&mut self.busy);
        self.busy = round;
    }

    /// Continues a few handshakes, and leaves the others for the next turn. Those of likely members come first.
    ///
    /// Like [`write`](Self::write), it is called after the requests and the answers to lookups: a dialed connection that they would end
    /// again would be reported as one that was accepted and rejected.
    pub(super) fn continue_handshakes(&mut self, now: Instant) {
        let mut handshakes = mem::take(&mut self.handshakes);
        if handshakes.len() > HANDSHAKES_PER_TURN {
            // Stable: those that have waited longer stay in front.
            handshakes.sort_by_key(|key| !self.connections.may_be_member(*key));
        }
        for (taken, key) in handshakes.drain(..).enumerate() {
            if taken >= HANDSHAKES_PER_TURN {
                self.look_at(key);
                continue;
            }
            match self.connections.get_mut(key).map(|it| &it.phase) {
                Some(Phase::Dialing { .. }) => self.on_connected(key, now),
                Some(Phase::AwaitingInitialMessage { .. }) => {
                    self.receive_initial_message(key, now);
                }
                _ => {}
            }
        }
        self.handshakes = handshakes;
    }

    /// Reads the link that was active last, a few times, without asking the kernel for events first. That saves a system call for
    /// an application that waits for an answer. Returns whether frames or the end of the link arrived; the turn then continues
    /// without waiting.
    pub(super) fn read_hot(&mut self) -> bool {
        let before = mem::take(&mut self.hot_turns);
        let Some(key) = self.hot.filter(|_| before < HOT_TURNS_MAX) else {
            // Other connections may be ready as well.
            return false;
        };
        for _ in 0..HOT_READS {
            self.hot = None;
            if let Some(reason) = self.read_link(key, None) {
                let now = self.net.now();
                self.record_untimed(now);
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

    /// Reads frames of a link up to its budget for the turn. Returns the reason if the link is to be ended. `now` is `None` in a turn
    /// that has not read the clock, which costs more than the rest of such a turn. The next turn that reads it records the time.
    pub(super) fn read_link(&mut self, key: ConnectionKey, now: Option<Instant>) -> Option<Reason> {
        let Self {
            connections,
            handler,
            handle,
            read_buffer,
            pool,
            hot,
            read_untimed,
            paused,
            ..
        } = self;
        let connection = connections.get_mut(key)?;
        let Phase::Open {
            peer,
            number,
            has_received,
            record_at,
            on_probation,
            frames,
            leftover,
            ..
        } = &mut connection.phase
        else {
            return None;
        };
        if !handler.is_ready(peer.sid) {
            paused.insert(key);
            return None;
        }
        // The set is usually empty, and then nothing is searched.
        if !paused.is_empty() {
            paused.remove(&key);
        }
        let (link, mut count, mut bytes) = (*number, 0, 0);
        let halt = &handle.shared().halt;
        let outcome = read_frames(
            &*connection.stream,
            frames,
            leftover,
            read_buffer,
            pool,
            connection.ended,
            |payload| {
                let frame = Frame { payload, link };
                // Looked at for each frame, since the handler may ask for a halt in any of them.
                if !halt.is_given() {
                    count += 1;
                    bytes += frame.len() as u64;
                    handler.on_frame(peer.sid, frame, handle);
                }
            },
        );
        if count > 0 {
            // Once for all frames of the read, since an atomic addition for each would be a good part of what a small frame
            // costs.
            peer.counters.frames.add(count);
            peer.counters.bytes.add(bytes);
            match now {
                Some(now) => record(peer, record_at, now),
                None => *read_untimed = Some(key),
            }
            handler.on_read_complete(handle);
            *hot = Some(key);
        }
        if !*has_received && (count > 0 || frames.has_controls() || !frames.is_between_frames()) {
            *has_received = true;
            end_probation(peer, on_probation, handle);
        }
        // The usual case, without a second search for the connection.
        if outcome.is_drained() && connection.draining.is_none() && !frames.has_controls() {
            return None;
        }
        self.after_read(key, outcome)
    }

    /// Handles control frames, and has a link read again that may have more. Returns the reason if the link is to be ended.
    fn after_read(&mut self, key: ConnectionKey, outcome: ReadOutcome) -> Option<Reason> {
        if self.on_controls(key) {
            return Some(Reason::Replaced);
        }
        let connection = self.connections.get_mut(key)?;
        match (outcome, &mut connection.draining) {
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
                let written = written.or_else(|| match &connection.phase {
                    Phase::Open { peer, .. } => peer.outbox.broken(),
                    _ => None,
                });
                Some(end_of(reason, written))
            }
        }
    }
}

/// Ends the probation of a link that has brought a byte: the peer keeps it, so the frames that wait may be written. The deadline of the
/// probation then finds nothing to do.
fn end_probation(peer: &Arc<Peer>, on_probation: &mut bool, handle: &Handle) {
    if mem::take(on_probation) {
        let request = peer.outbox.end_probation();
        // Fails only in a forked process, which has no loop.
        let _ = handle.shared().ask(peer, request);
    }
}

/// Records for the statistics that a frame was received in this turn. The arithmetic costs as much as a tenth of a turn, so it is not
/// done for each read.
#[inline]
fn record(peer: &Peer, record_at: &mut Instant, now: Instant) {
    if now >= *record_at {
        peer.received_at(now);
        *record_at = now + RECEIVED_PRECISION;
    }
}

/// Why a link has ended, from the result of the last read and the error of the write half, if it failed.
///
/// The kernel reports an error of a connection once. If a write received it, the read returns a plain end.
fn end_of(read: Reason, written: Option<io::ErrorKind>) -> Reason {
    match (&read, written) {
        // `EPIPE` says only that the end was already known.
        (_, None | Some(io::ErrorKind::BrokenPipe)) => read,
        (Reason::Closed | Reason::ClosedEarly, Some(kind)) => Reason::of_kind(kind),
        _ => read,
    }
}
