//! Control frames of a link: pings that are due, their answers, and answers to those of the far end.
//!
//! Nothing here ends a link. A ping waits behind what is being written, and for a loop that is busy or a link that is paused.

use std::time::Instant;

use super::{EventLoop, connections::Phase};
use crate::{
    handler::Handler,
    limits::PROVEN_AFTER,
    net::Net,
    proto::{ConnectionKey, Controls},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// A time has come for which an open link has waited: the end of its probation, or its next ping.
    pub(super) fn on_link_due(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Open {
            peer,
            since,
            on_probation,
            pings,
            ..
        } = &mut connection.phase
        else {
            return;
        };
        let peer = peer.clone();
        let proven_at = *since + PROVEN_AFTER;
        let ends_probation = *on_probation && proven_at <= now;
        *on_probation &= !ends_probation;
        let number = pings.as_mut().and_then(|pings| pings.next(now));
        let due = [
            on_probation.then_some(proven_at),
            pings.as_ref().map(|pings| pings.due),
        ];
        self.connections
            .set_due(key, due.into_iter().flatten().min());
        if ends_probation {
            // The link has lasted as long as its probation.
            let request = peer.outbox.end_probation();
            self.handle_request(&peer, request, now);
        }
        let Some(number) = number else {
            return;
        };
        // Not the time of the turn, which may have begun long ago.
        let sent = self.net.now();
        let (is_taken, request) = peer.outbox.put_controls(Controls {
            ping: Some(number),
            pong: None,
        });
        if let Some(Phase::Open {
            pings: Some(pings), ..
        }) = self.connections.get_mut(key).map(|it| &mut it.phase)
        {
            pings.sent = is_taken.then_some(sent);
        }
        self.handle_request(&peer, request, now);
    }

    /// Answers the ping that has arrived on this link, and takes the answer to its own, if there are any.
    pub(super) fn on_controls(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Open {
            peer,
            pings,
            frames,
            ..
        } = &mut connection.phase
        else {
            return;
        };
        if !frames.has_controls() {
            return;
        }
        let now = self.net.now();
        let Controls { ping, pong } = frames.take_controls();
        peer.counters.controls.add(1);
        if let (Some(pings), Some(number)) = (pings, pong) {
            if let Some(took) = pings.on_answer(number, now) {
                peer.on_round_trip(took);
            }
        }
        if ping.is_some() {
            let (_, request) = peer.outbox.put_controls(Controls {
                ping: None,
                pong: ping,
            });
            // Fails only in a forked process, which has no loop.
            let _ = self.handle.shared().ask(peer, request);
        }
    }
}
