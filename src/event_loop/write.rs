//! What waits is written where the socket has room again.
//!
//! Nothing here decides what waits: that is the outbox.

use std::{mem, sync::Arc, time::Instant};

use super::{
    EventLoop,
    connections::{Draining, Phase},
};
use crate::{
    handler::Handler, limits::DRAIN_BYTES_MAX, net::Net, outbox::LoopRequest, shared::Peer,
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Goes on writing where there is room again, and ends connects.
    pub(super) fn write(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.writable);
        for key in round.drain(..) {
            match self.connections.get_mut(key).map(|link| &link.phase) {
                Some(Phase::Open { peer, .. }) => {
                    let peer = Arc::clone(peer);
                    self.handle_request(&peer, peer.outbox.resume(), now);
                }
                Some(Phase::Dialing { .. }) => self.on_connected(key, now),
                _ => {}
            }
        }
        self.writable = round;
    }

    /// What an outbox has left for the loop to do.
    pub(super) fn handle_request(&mut self, peer: &Arc<Peer>, request: LoopRequest, now: Instant) {
        if request.contains(LoopRequest::BROKEN) {
            self.give_up(peer, now);
        }
        if request.contains(LoopRequest::RESUME) {
            // Refused only where there is no loop.
            let _ = self.handle.shared().ask(peer, LoopRequest::RESUME);
        }
        if request.contains(LoopRequest::LINK) {
            self.roster.want(peer.id, now, &mut self.todo);
        }
    }

    /// Nothing can be written to this peer's link any more: what the kernel has received of it is read, in this turn and the
    /// next ones, then it ends.
    pub(super) fn give_up(&mut self, peer: &Peer, now: Instant) {
        let (Some(kind), Some(key)) = (peer.outbox.broken(), self.roster.link(peer.id)) else {
            return;
        };
        let Some(link) = self.connections.get_mut(key) else {
            return;
        };
        if !matches!(link.phase, Phase::Open { .. }) {
            // It has just taken the place of the broken one, which is ended for that in this very turn.
            return;
        }
        // A short read is no proof that nothing follows: the next one may bring the end.
        link.ended = true;
        let budget = DRAIN_BYTES_MAX.max(2 * self.options.receive_buffer.unwrap_or(0));
        link.draining.get_or_insert(Draining { kind, budget });
        if let Some(reason) = self.read_link(key) {
            self.end(key, reason, now);
        }
    }
}
