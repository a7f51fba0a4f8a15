//! Writes frames that wait, where the socket has room again.
//!
//! Nothing here decides which frame is written next: the outbox does.

use std::{mem, sync::Arc, time::Instant};

use super::{
    EventLoop,
    connections::{Draining, Phase},
};
use crate::{
    handler::Handler,
    limits::{BUFFERS_KEPT, DRAIN_BYTES_MAX},
    net::{Net, Stream as _},
    shared::Peer,
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Continues to write to sockets that have room again, and handles connects that have ended.
    pub(super) fn write(&mut self, now: Instant) {
        // Taken out and put back: the list keeps its buffer, and a connect that fails here may dial again, which needs all of
        // `self`.
        let mut round = mem::take(&mut self.writable);
        for key in round.drain(..) {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            match &connection.phase {
                Phase::Open { peer, .. } => {
                    connection.stream.on_writable();
                    let peer = Arc::clone(peer);
                    self.handle_request(&peer, peer.outbox.resume(), now);
                }
                // In its turn among the other handshakes.
                Phase::Dialing { .. } if connection.stream.is_handshaking() => self.look_at(key),
                Phase::Dialing { .. } => self.on_connected(key, now),
                _ => connection.stream.on_writable(),
            }
        }
        self.writable = round;
    }

    /// Frees buffers that were not used for a while: those of queues, and those of the pool.
    #[inline]
    pub(super) fn release_unused(&mut self, now: Instant) {
        match self.release_due {
            Some(due) if due <= now => self.look_for_unused(now),
            None if self.pool.is_used() => self.release_due = Some(now + BUFFERS_KEPT),
            _ => {}
        }
    }

    #[cold]
    fn look_for_unused(&mut self, now: Instant) {
        self.release_due = self.pool.release_unused().then(|| now + BUFFERS_KEPT);
        for id in mem::take(&mut self.releases) {
            // A peer that was removed has no buffers.
            if let Some(peer) = self.peer(id).cloned() {
                self.handle_request(&peer, peer.outbox.release_unused(), now);
            }
        }
    }

    /// Ends a link that cannot be written to any more. What the kernel has received is read first, in this turn and the next ones.
    pub(super) fn give_up(&mut self, peer: &Peer, now: Instant) {
        let (Some(kind), Some(key)) = (peer.outbox.broken(), self.roster.link(peer.id)) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !matches!(connection.phase, Phase::Open { .. }) {
            // This connection has just replaced the broken link, which is closed in this turn.
            return;
        }
        // A short read does not prove that nothing follows: the next one may return the end.
        connection.ended = true;
        let budget = DRAIN_BYTES_MAX.max(2 * self.options.receive_buffer.unwrap_or(0));
        connection.draining.get_or_insert(Draining { kind, budget });
        if let Some(reason) = self.read_link(key, Some(now)) {
            self.end(key, reason, now);
        }
    }
}
