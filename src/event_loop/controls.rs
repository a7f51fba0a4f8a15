//! Control frames of a link: pings that are due, their answers, answers to those of the far end, and end frames.
//!
//! Nothing here decides which link is kept. A ping waits behind what is being written, and for a loop that is busy or a link that is paused.
//!
//! A native link that is replaced as planned is *retired*, so that no frame is lost with it:
//!
//! ```text
//!   dialer                                              acceptor
//!     initial message, feature 2  ---- new connection -->  it contends with the old link
//!     read to its end             <---- old link --------  frame in hand, end frame
//!     frame in hand, end frame    ----- old link ------->  read to its end: the old link ends, and the new one is up
//!     the new link is up          <- new connection -----  answer, frames
//! ```
//!
//! Nothing follows an end frame, so that the new link brings nothing before all of the old one is read. An end that has no new link yet has
//! its frames wait. If the old link breaks meanwhile, the contender replaces it as any other. If the contender ends, the old link is finished
//! all the same. If the old link brings nothing for [`RETIRING_MAX`](crate::limits::RETIRING_MAX), the contender replaces it.

use std::{mem, time::Instant};

use super::{EventLoop, connections::Phase};
use crate::{
    handler::Handler,
    limits::PROVEN_AFTER,
    net::Net,
    proto::{Action, ConnectionKey, Controls, Reason},
};

/// The end frame alone.
const END: Controls = Controls {
    ping: None,
    pong: None,
    end: true,
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
            ..Controls::default()
        });
        if let Some(Phase::Open {
            pings: Some(pings), ..
        }) = self.connections.get_mut(key).map(|it| &mut it.phase)
        {
            pings.sent = is_taken.then_some(sent);
        }
        self.handle_request(&peer, request, now);
    }

    /// Begins to retire a link that a contender waits for.
    pub(super) fn retire(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Open { peer, .. } = &connection.phase else {
            return;
        };
        if mem::replace(&mut connection.retired, true) {
            return;
        }
        let peer = peer.clone();
        let (is_taken, request) = peer.outbox.put_controls(END);
        self.handle_request(&peer, request, now);
        if !is_taken {
            // It broke in this turn, or is on probation and has brought nothing so far.
            let (link, reason) = (key, Reason::Replaced);
            self.apply(Action::Close { link, reason }, now);
        }
    }

    /// Answers the ping and the end frame that have arrived on this link, and takes the answer to its own ping, if there are any. Returns
    /// whether both ends have finished the link.
    pub(super) fn on_controls(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        let Phase::Open {
            peer,
            pings,
            frames,
            ..
        } = &mut connection.phase
        else {
            return false;
        };
        if !frames.has_controls() {
            return false;
        }
        let now = self.net.now();
        let Controls { ping, pong, end } = frames.take_controls();
        peer.counters.controls.add(1);
        if let (Some(pings), Some(number)) = (pings, pong) {
            if let Some(took) = pings.on_answer(number, now) {
                peer.on_round_trip(took);
            }
        }
        let is_finished = end && mem::replace(&mut connection.retired, end);
        if ping.is_some() || end {
            let (_, request) = peer.outbox.put_controls(Controls {
                ping: None,
                pong: ping,
                end: end && !is_finished,
            });
            // Fails only in a forked process, which has no loop.
            let _ = self.handle.shared().ask(peer, request);
        }
        is_finished
    }
}
