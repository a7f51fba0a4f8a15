//! Handles what other threads ask for: answers of the resolver, frames to write, links to make or drop, frames to this server
//! itself.
//!
//! Nothing here waits for a thread.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};

use super::{EventLoop, connections::Phase, endpoints::LookupOwner};
use crate::{
    handler::Handler,
    inbox::{Popped, Wait},
    limits::BUFFERS_KEPT,
    message::{Frame, Message},
    net::Net,
    outbox::LoopRequest,
    proto::{ConnectionKey, Payload, Reason},
    shared::{Peer, Shared},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Takes and handles all requests of other threads.
    pub(super) fn handle_requests(&mut self, now: Instant) {
        while let Some(found) = self.net.found() {
            let answer = found.answer;
            match self.endpoints.on_found(found.lookup_id, &answer, now) {
                Some((LookupOwner::Endpoint(peer, _), step)) => {
                    if let Some(step) = step {
                        self.step(peer, step, now);
                    }
                    self.recognize(peer, now);
                }
                Some((LookupOwner::OwnAddress(index), _)) => {
                    self.listeners.on_found(
                        &mut self.net,
                        index,
                        answer,
                        now,
                        &mut self.listener_actions,
                    );
                }
                None => {}
            }
        }
        if !self.handle.shared().wake_flag.take_notified() {
            return;
        }
        // The notifying thread may have made room in the inbox. Paused links are read in the next turn, which is due at once.
        for key in mem::take(&mut self.paused) {
            self.look_at(key);
        }
        // A clone, since the handler is called below, for which `self` is borrowed.
        let shared = Arc::clone(self.handle.shared());
        let mut requests = mem::take(&mut self.requests);
        shared.requests.take_all(&mut requests);
        for peer in requests.drain(..) {
            let mut request = peer.take_request();
            if request.has(LoopRequest::DISCONNECT) {
                // Before the queue is written: a frame that waits must not be written to a link that is about to be aborted.
                if let Some(link) = self.roster.link(peer.id) {
                    self.drop_link(link, now);
                }
            }
            if request.has(LoopRequest::RESUME) {
                if mem::take(&mut self.woken) {
                    // The first of many frames has woken the loop, perhaps on the sender's processor. After the yield the sender
                    // has added more frames, and they are written together.
                    thread::yield_now();
                }
                // Done here, since `handle_request` would leave it for the next turn.
                request = request.without(LoopRequest::RESUME);
                request = request.union(peer.outbox.resume());
            }
            self.handle_request(&peer, request, now);
        }
        self.requests = requests;
        if shared.inbox_is_for_the_loop() {
            self.loop_back(&shared);
        }
        // AcqRel: pairs with the Release store of the thread that asked for it.
        if shared.drop_links.swap(false, Ordering::AcqRel) {
            for key in self.connections.keys() {
                self.drop_link(key, now);
            }
        }
        // First the links of those that leave, then the names without theirs, then the dials of those that join.
        let members = shared.members_changed.swap(false, Ordering::AcqRel);
        let members = members.then(|| self.follow_leavers(now));
        #[cfg(feature = "tls")]
        self.reload_tls(now);
        if let Some(members) = members {
            self.follow_members(members, now);
        }
        if shared.renew_links.swap(false, Ordering::AcqRel) {
            self.renewals.add_all(self.peers.keys().copied(), now);
            self.roster.retry_refused(now, &mut self.todo);
        }
        // Read once in a turn, after all else: the turn in which a halt is noticed still does what was asked for before it.
        self.halting = shared.halt.is_given();
    }

    /// Ends a connection because the application has asked for it, if it is a link.
    fn drop_link(&mut self, key: ConnectionKey, now: Instant) {
        let connection = self.connections.get_mut(key);
        if connection.is_some_and(|connection| matches!(connection.phase, Phase::Open { .. })) {
            self.end(key, Reason::Dropped, now);
        }
    }

    /// Does for a peer what its outbox or another thread has asked for. What is to be resumed is left for the next turn: the outbox
    /// has just written as much as one turn may.
    pub(super) fn handle_request(&mut self, peer: &Arc<Peer>, request: LoopRequest, now: Instant) {
        // Each step may remove the peer. The following steps then have no effect.
        if request.has(LoopRequest::BROKEN) {
            self.give_up(peer, now);
        }
        if request.has(LoopRequest::RESUME) {
            // Fails only in a forked process, which has no loop.
            let _ = self.handle.shared().ask(peer, LoopRequest::RESUME);
        }
        if request.has(LoopRequest::RELEASE) {
            self.releases.push(peer.id);
            self.release_due.get_or_insert(now + BUFFERS_KEPT);
        }
        if request.has(LoopRequest::INITIATE) {
            self.roster.initiate(peer.id, now, &mut self.todo);
        }
        if request.has(LoopRequest::CONNECT) {
            self.roster.connect(peer.id, now, &mut self.todo);
        }
        if request.has(LoopRequest::LINK) {
            self.roster.want(peer.id, now, &mut self.todo);
        }
    }

    /// Delivers the frames that the application sent to this server itself.
    fn loop_back(&mut self, shared: &Shared) {
        let mut any = false;
        // Only as many as wait now. Those that the handler sends meanwhile notify the loop again, and are delivered in the next
        // turn.
        for _ in 0..shared.inbox.counts().waiting {
            if shared.halt.is_given() {
                break;
            }
            // `wakes` is ignored: this loop itself takes the messages and never waits for room.
            let Ok(Popped { taken, wakes: _ }) = shared.inbox.pop(Wait::No) else {
                break;
            };
            let Message {
                from,
                link,
                payload,
            } = taken.into_message();
            let payload = Payload::Owned(payload);
            self.handler
                .on_frame(from, Frame { payload, link }, &self.handle);
            any = true;
        }
        if any {
            self.handler.on_read_complete(&self.handle);
        }
    }
}
