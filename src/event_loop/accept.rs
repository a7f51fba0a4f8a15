//! Accepts connections that other servers open.
//!
//! Nothing here reads or writes.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use super::{EventLoop, listeners::Arrival};
use crate::{
    event::Event,
    handler::Handler,
    limits::ACCEPTS_PER_TURN,
    net::{EMFILE, ENFILE, ENOBUFS, ENOMEM, Net},
    proto::Reason,
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn accept(&mut self, now: Instant) {
        if !self.listeners.has_pending() {
            return;
        }
        // At most as many as may wait for their initial message at one time, so that each new connection is read once before it can
        // be evicted.
        let connections = ACCEPTS_PER_TURN.min(self.options.pending_max);
        for (listener, share) in self.listeners.shares(connections) {
            for _ in 0..share {
                match self.net.accept(listener) {
                    Ok((stream, addr)) => {
                        let arrival = self.listeners.on_accepted(listener, now);
                        self.welcome(stream, addr, arrival, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners.on_empty(listener);
                        break;
                    }
                    Err(error) => {
                        if self.on_accept_failed(listener, &error, now) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Handles an error of `accept(2)`. Returns whether the listener pauses.
    fn on_accept_failed(&mut self, listener: usize, error: &io::Error, now: Instant) -> bool {
        self.handle.shared().counters.accept_failures.add(1);
        let is_exhausted = is_exhaustion(error);
        let (rests, event) = self
            .listeners
            .on_accept_failed(listener, error, is_exhausted, now);
        if let Some(event) = event {
            self.tell(event, now);
        }
        if is_exhausted {
            // Frees a descriptor for the next connection. The one that has been silent for longest has had its chance.
            if let Some(first) = self.connections.first_to_evict() {
                self.end(first, Reason::Evicted, now);
            }
        }
        rests
    }

    fn welcome(&mut self, stream: N::Stream, addr: SocketAddr, arrival: Arrival, now: Instant) {
        // Counted whatever becomes of it: it is kept, a knock, rejected or pending, and the sums must balance.
        self.handle.shared().counters.accepted.add(1);
        // The oldest stranger goes and not the newest: strangers that stay silent must not keep the next member out.
        if self.connections.awaiting() >= self.options.pending_max {
            if let Some(first) = self.connections.first_to_evict() {
                self.end(first, Reason::Evicted, now);
            }
        }
        if let Err(error) = self.net.watch(&stream, self.connections.next_index()) {
            self.tell(
                Event::Rejected {
                    addr,
                    sid: None,
                    reason: Reason::of_io(&error),
                },
                now,
            );
            return;
        }
        let due = now + self.options.handshake_timeout;
        let at_home = self.endpoints.is_home_of_any(addr.ip());
        let key =
            self.connections
                .insert_accepted(Arc::new(stream), addr, arrival, at_home, now, due);
        self.look_at(key);
    }
}

/// Whether the process or the machine is out of descriptors or memory. A pause may help; accepting another connection will not.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)
    )
}
