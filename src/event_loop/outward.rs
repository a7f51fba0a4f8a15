//! Out: what other threads ask for, what the sockets have room for again, and the dials.
//!
//! Nothing here reads frames.

use std::{
    io::{self, IoSlice},
    mem,
    net::{Shutdown, SocketAddr},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};

use super::{
    EventLoop,
    links::{Draining, Phase},
    routes::{Asker, Question, Step},
};
use crate::{
    event::Event,
    handler::Handler,
    inbox::{Popped, Wait},
    limits::DRAIN_BYTES_MAX,
    message::{Frame, Message},
    net::{Net, Stream as _},
    outbox::{Ask, Wire as _},
    proto::{Brought, Challenge, LinkKey, Payload, PeerId, Reason, encode},
    shared::{Peer, Shared, asked},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Looks at what other threads have left.
    pub(super) fn answer(&mut self, now: Instant) {
        while let Some(found) = self.net.found() {
            let answer = found.answer;
            match self.routes.on_found(found.ticket, &answer, now) {
                Some((Asker::Place(peer, _), step)) => {
                    if let Some(step) = step {
                        self.step(peer, step, now);
                    }
                    self.recognize(peer, now);
                }
                Some((Asker::Door(door), _)) => {
                    self.doors
                        .on_found(&mut self.net, door, answer, now, &mut self.wishes);
                }
                None => {}
            }
        }
        if !self.handle.shared().bell.lower() {
            return;
        }
        // Whoever has rung may have made room. They are read in the next turn, which is due at once.
        for key in mem::take(&mut self.paused) {
            self.look_at(key);
        }
        let shared = Arc::clone(self.handle.shared());
        let mut notes = mem::take(&mut self.notes);
        shared.notes.take(&mut notes);
        for peer in notes.drain(..) {
            let asked = peer.take_asked();
            // Each of these may be the end of the peer; the rest then means nobody.
            if asked & asked::BROKEN != 0 {
                self.give_up(&peer, now);
            }
            if asked & asked::RESUME != 0 {
                if mem::take(&mut self.woken) {
                    // The first of many frames has woken the loop, perhaps on the processor of who puts them: when he has
                    // put more, they leave together.
                    thread::yield_now();
                }
                self.see_to(&peer, peer.outbox.resume(), now);
            }
            if asked & asked::INITIATE != 0 {
                self.roster.initiate(peer.id, now, &mut self.todo);
            }
            if asked & asked::LINK != 0 {
                self.roster.want(peer.id, now, &mut self.todo);
            }
        }
        self.notes = notes;
        if shared.inbox_is_for_the_loop() {
            self.loop_back(&shared);
        }
        if shared.drop_links.swap(false, Ordering::AcqRel) {
            for key in self.links.keys() {
                if matches!(
                    self.links.get_mut(key).map(|link| &link.phase),
                    Some(Phase::Open { .. })
                ) {
                    self.end(key, Reason::Dropped, now);
                }
            }
        }
        self.halting = shared.halt.is_given();
    }

    /// Hands over what the application sent to this server itself.
    pub(super) fn loop_back(&mut self, shared: &Shared) {
        let mut any = false;
        // As many as wait now: those that the handler sends meanwhile ring the bell again, and come in the next turn.
        for _ in 0..shared.inbox.counts().waiting {
            if shared.halt.is_given() {
                break;
            }
            // The loop waits for no room here: it is the one that takes.
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
            self.handler.on_burst_end(&self.handle);
        }
    }

    /// Goes on writing where there is room again, and ends connects.
    pub(super) fn write(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.writable);
        for key in round.drain(..) {
            match self.links.get_mut(key).map(|link| &link.phase) {
                Some(Phase::Open { peer, .. }) => {
                    let peer = Arc::clone(peer);
                    self.see_to(&peer, peer.outbox.resume(), now);
                }
                Some(Phase::Dialing { .. }) => self.on_connected(key, now),
                _ => {}
            }
        }
        self.writable = round;
    }

    /// More is known of where this peer is: perhaps what came from elsewhere comes from there, and it is being dialed where it
    /// was.
    fn recognize(&mut self, id: PeerId, now: Instant) {
        for ip in self.roster.abroad(id) {
            if self.routes.is_home(id, ip) {
                self.roster.on_home(id, ip, now, &mut self.todo);
            }
        }
        let mut is_home = |key| {
            let addr = self.links.get_mut(key)?.addr;
            Some(self.routes.is_home(id, addr.ip()))
        };
        let dialed = self.routes.connecting(id);
        if let Some(key) = dialed.filter(|key| is_home(*key) == Some(false)) {
            self.links.abort(key);
            let step = self.routes.redirect(id, now);
            return self.step(id, step, now);
        }
        let link = self.roster.link(id);
        if let Some(key) = link.filter(|key| self.is_outdated(id, *key)) {
            self.end(key, Reason::Moved, now);
        }
    }

    /// Whether this link was dialed while the names of its peer were being looked up, to where they do not lead any more.
    fn is_outdated(&mut self, id: PeerId, key: LinkKey) -> bool {
        let link = self.links.get_mut(key);
        // One that was accepted has come by itself.
        let dialed = link.filter(|link| link.arrival.is_none());
        dialed.is_some_and(|link| self.routes.is_outdated(id, link.addr.ip()))
    }

    /// What an outbox has left for the loop to do.
    pub(super) fn see_to(&mut self, peer: &Arc<Peer>, ask: Ask, now: Instant) {
        match ask {
            Ask::Nothing => {}
            Ask::Resume => {
                // Refused only where there is no loop.
                let _ = self.handle.shared().ask(peer, asked::RESUME);
            }
            Ask::Link => self.roster.want(peer.id, now, &mut self.todo),
            Ask::Broken => self.give_up(peer, now),
        }
    }

    /// Nothing can be written to this peer's link any more: what the kernel has received of it is read, in this turn and the
    /// next ones, then it ends.
    pub(super) fn give_up(&mut self, peer: &Peer, now: Instant) {
        let (Some(kind), Some(key)) = (peer.outbox.broken(), self.roster.link(peer.id)) else {
            return;
        };
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        if !matches!(link.phase, Phase::Open { .. }) {
            // It has just taken the place of the broken one, which is ended for that in this very turn.
            return;
        }
        // A short read is no proof that nothing follows: the next one may bring the end.
        link.ended = true;
        let budget = DRAIN_BYTES_MAX.max(2 * self.knobs.receive_buffer.unwrap_or(0));
        link.draining.get_or_insert(Draining { kind, budget });
        if let Some(reason) = self.pump(key) {
            self.end(key, reason, now);
        }
    }

    /// Looks names up, beside whatever else is done.
    pub(super) fn look_up(&mut self, questions: Vec<Question>) {
        for Question { ticket, host } in questions {
            self.net.lookup(ticket, &host);
        }
    }

    /// Does what a dial needs next, until something is underway or nothing is left.
    pub(super) fn step(&mut self, id: PeerId, mut step: Step, now: Instant) {
        loop {
            match step {
                Step::Wait => return,
                Step::Connect(addr) => match self.connect(id, addr, now) {
                    Ok(()) => return,
                    Err(error) => {
                        let failed = (addr, Reason::of_io(&error));
                        step = self.routes.next(id, failed, now);
                    }
                },
                Step::Exhausted(addr, reason) => {
                    self.handle.shared().counters.dial_failures.add(1);
                    if let Some(sid) = self.peer(id).map(|peer| peer.sid) {
                        self.tell(Event::DialFailed { sid, addr, reason }, now);
                    }
                    self.roster.on_dial_failed(id, now, &mut self.todo);
                    return;
                }
            }
        }
    }

    pub(super) fn connect(&mut self, id: PeerId, addr: SocketAddr, now: Instant) -> io::Result<()> {
        let stream = self.net.dial(addr)?;
        self.net.watch(&stream, self.links.next_index())?;
        let key =
            self.links
                .insert_dialing(Arc::new(stream), addr, id, now + self.knobs.connect_timeout);
        self.routes.on_connecting(id, key);
        Ok(())
    }

    /// A connect has ended, one way or the other.
    pub(super) fn on_connected(&mut self, key: LinkKey, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Phase::Dialing { peer } = link.phase else {
            return;
        };
        match link.stream.connected() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => return self.end(key, Reason::of_io(&error), now),
        }
        let stream = Arc::clone(&link.stream);
        if let Some(older) = self.roster.link(peer) {
            let brought = match self.paused.contains(&older) {
                true => Brought::More,
                false => self.links.brought(older),
            };
            if self.roster.is_moot(peer, brought, now) {
                self.routes.finish(peer);
                self.links.bury(key);
                return;
            }
        }
        // In one write: an acceptor may take a short read for a short message (InitialMessage.parse of ZooKeeper).
        let challenge = self.challenge();
        match stream.write(&[IoSlice::new(&challenge)]) {
            Ok(n) if n == challenge.len() => {}
            Ok(_) => return self.end(key, Reason::Io(io::ErrorKind::WriteZero), now),
            Err(error) => return self.end(key, Reason::of_io(&error), now),
        }
        if self.roster.knocks(peer) {
            // Tells the far end that nothing follows; it hangs up and dials back.
            if let Err(error) = stream.shutdown(Shutdown::Write) {
                return self.end(key, Reason::of_io(&error), now);
            }
            self.links.advance(
                key,
                Phase::Knocking { peer },
                Some(now + self.knobs.handshake_timeout),
            );
            // It may have hung up already, which was announced together with the connection, and is not again.
            self.look_at(key);
        } else {
            self.routes.finish(peer);
            self.links.advance(
                key,
                Phase::Named {
                    peer,
                    held: Vec::new(),
                },
                None,
            );
            self.roster.on_linked(peer, key, now, &mut self.todo);
        }
    }

    /// How this server names itself, with a port that the kernel chose in place of 0.
    fn challenge(&self) -> Vec<u8> {
        let addresses = self.doors.advertised(&self.own_addresses);
        let form = if addresses.is_empty() {
            Challenge::Bare
        } else {
            self.knobs.challenge
        };
        encode(form, self.handle.sid(), &addresses)
    }
}
