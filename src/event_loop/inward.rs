//! In: connections are accepted and name themselves, links are read.
//!
//! Nothing here dials or writes.

use std::{io, mem, net::SocketAddr, sync::Arc, time::Instant};

use super::{
    EventLoop,
    doors::Arrival,
    links::Phase,
    pump::{self, Pumped},
};
use crate::{
    event::Event,
    handler::Handler,
    limits::{ACCEPTS_PER_TURN, SLOW_TURN, TURN_BYTES},
    message::Frame,
    net::{EMFILE, ENFILE, ENOBUFS, ENOMEM, Net, Stream as _},
    proto::{Brought, Claim, Hello, LinkKey, Reason, Sid, Source, Verdict},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn accept(&mut self, now: Instant) {
        if !self.doors.has_pending() {
            return;
        }
        // In all not more than may be silent at one time: who comes now is read once before it can be evicted.
        let connections = ACCEPTS_PER_TURN.min(self.knobs.pending_max);
        for (door, share) in self.doors.shares(connections) {
            for _ in 0..share {
                match self.net.accept(door) {
                    Ok((stream, addr)) => {
                        let arrival = self.doors.on_accepted(door, now);
                        self.welcome(stream, addr, arrival, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.doors.on_empty(door);
                        break;
                    }
                    Err(error) => {
                        if self.on_accept_failed(door, &error, now) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// A connection could not be accepted. Returns whether the listening socket rests.
    fn on_accept_failed(&mut self, door: usize, error: &io::Error, now: Instant) -> bool {
        self.handle.shared().counters.accept_failures.add(1);
        let is_exhausted = is_exhaustion(error);
        let (rests, event) = self.doors.on_accept_failed(door, error, is_exhausted, now);
        if let Some(event) = event {
            self.tell(event, now);
        }
        if is_exhausted {
            // A descriptor for whoever comes next: the silent ones have had theirs.
            if let Some(oldest) = self.links.oldest_greeting() {
                self.end(oldest, Reason::Evicted, now);
            }
        }
        rests
    }

    pub(super) fn welcome(
        &mut self,
        stream: N::Stream,
        addr: SocketAddr,
        arrival: Arrival,
        now: Instant,
    ) {
        self.handle.shared().counters.accepted.add(1);
        if self.links.greeting() >= self.knobs.pending_max {
            if let Some(oldest) = self.links.oldest_greeting() {
                self.end(oldest, Reason::Evicted, now);
            }
        }
        if let Err(error) = self.net.watch(&stream, self.links.next_index()) {
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
        let due = now + self.knobs.handshake_timeout;
        let key = self
            .links
            .insert_greeting(Arc::new(stream), addr, arrival, due);
        self.look_at(key);
    }

    /// Has the link read in this turn or the next: its edge may have come already.
    pub(super) fn look_at(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            if !mem::replace(&mut link.busy, true) {
                self.busy.push(key);
            }
        }
    }

    pub(super) fn read(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.busy);
        let (mut heard, mut later) = (false, Vec::new());
        for key in round.drain(..) {
            if self.handle.shared().halt.is_given() {
                // Nobody wants to know any more.
                break;
            }
            let Some(link) = self.links.get_mut(key) else {
                continue;
            };
            let is_open = matches!(link.phase, Phase::Open { .. });
            if is_open && mem::replace(&mut heard, true) {
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
                    if let Some(reason) = self.pump(key) {
                        self.end(key, reason, now);
                    }
                }
                Phase::Greeting { .. } => self.greet(key, now),
                Phase::Knocking { .. } => self.hang_on(key, now),
                // A challenger is not read, but it is let go when it leaves.
                Phase::Named { .. } if link.ended => self.end(key, Reason::ClosedEarly, now),
                Phase::Named { .. } | Phase::Dialing { .. } | Phase::Buried => {}
            }
        }
        // First those that were not heard, then those that have more, which stand in `busy` again; the room is kept.
        round.append(&mut later);
        round.append(&mut self.busy);
        self.busy = round;
    }

    /// Reads frames of a link up to its share of the turn. Returns why the link is to be ended, if it is.
    pub(super) fn pump(&mut self, key: LinkKey) -> Option<Reason> {
        let Self {
            links,
            handler,
            handle,
            stage,
            hot,
            paused,
            ..
        } = self;
        let link = links.get_mut(key)?;
        let Phase::Open {
            peer,
            number,
            heard,
            on_probation,
            frames,
            held,
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
        let pumped = pump::frames(&*link.stream, frames, held, stage, link.ended, |payload| {
            let frame = Frame {
                payload,
                link: link_number,
            };
            if !halt.is_given() {
                count += 1;
                bytes += frame.len() as u64;
                handler.on_frame(peer.sid, frame, handle);
            }
        });
        if count > 0 {
            peer.counters.frames.add(count);
            peer.counters.bytes.add(bytes);
            handler.on_burst_end(handle);
            *hot = Some(key);
        }
        if !*heard && (count > 0 || !frames.is_between_frames()) {
            *heard = true;
            if mem::take(on_probation) {
                // The peer keeps the link: what waits for it may be written. The deadline finds nothing left to do.
                let ask = peer.outbox.confirm();
                // Refused only where there is no loop.
                let _ = handle.shared().see_to(peer, ask);
            }
        }
        match (pumped, &mut link.draining) {
            (Pumped::Dry, None) => None,
            (Pumped::Dry, Some(draining)) => Some(Reason::of_kind(draining.kind)),
            (Pumped::More, Some(draining)) if draining.budget == 0 => {
                Some(Reason::of_kind(draining.kind))
            }
            (Pumped::More, draining) => {
                if let Some(draining) = draining {
                    draining.budget = draining.budget.saturating_sub(TURN_BYTES);
                }
                self.look_at(key);
                None
            }
            (Pumped::End(reason), draining) => {
                let written = draining.as_ref().map(|draining| draining.kind);
                Some(end_of(reason, written.or_else(|| peer.outbox.broken())))
            }
        }
    }

    /// Reads on at the initial message of an accepted connection.
    pub(super) fn greet(&mut self, key: LinkKey, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Phase::Greeting { heard, .. } = &mut link.phase else {
            return;
        };
        match pump::hello(&*link.stream, heard) {
            Ok(None) => {}
            Ok(Some(hello)) => match link.stream.connected() {
                Ok(true) => {
                    let (held, addr) = (mem::take(heard), link.addr);
                    self.introduce(key, &hello, held, addr, now);
                }
                // Its dialer has given it up. It may have waited longer than a newer one at another listening socket,
                // and must neither replace that nor bring frames older than those that came over it.
                Ok(false) => self.end(key, Reason::Closed, now),
                Err(error) => self.end(key, Reason::of_io(&error), now),
            },
            Err(reason) => self.end(key, reason, now),
        }
    }

    /// An accepted connection has named itself.
    pub(super) fn introduce(
        &mut self,
        key: LinkKey,
        hello: &Hello,
        held: Vec<u8>,
        addr: SocketAddr,
        now: Instant,
    ) {
        if let Some(why) = &hello.overlooked {
            let sid = hello.sid;
            log::debug!("peer {sid} at {addr} names an address that cannot be dialed: {why}");
        }
        let known = self.roster.find(hello.sid);
        let arrival = self.links.get_mut(key).and_then(|link| link.arrival);
        if let (Some(id), Some(arrival)) = (known, &arrival) {
            // A smaller sid's is a knock, which brings nothing.
            if self.roster.knocks(id) && !self.doors.is_latest(id, arrival) {
                self.links.bury(key);
                let (sid, reason) = (Some(hello.sid), Reason::Replaced);
                self.tell(Event::Rejected { addr, sid, reason }, now);
                return;
            }
        }
        let at_home = known.is_some_and(|id| self.routes.is_home(id, addr.ip()));
        let ip = addr.ip().to_canonical();
        let older = known.and_then(|id| self.roster.link(id));
        let claim = Claim {
            sid: hello.sid,
            link: key,
            source: Source { ip, at_home },
            brought: older.map_or(Brought::More, |older| self.links.brought(older)),
            addresses: &hello.addresses,
        };
        let verdict = self.roster.on_hello(&claim, now, &mut self.todo);
        let sid = (hello.sid != Sid::OBSERVER).then_some(hello.sid);
        match verdict {
            Verdict::Keep(peer) | Verdict::Wait(peer) => {
                if let (Verdict::Keep(_), Some(arrival)) = (&verdict, arrival) {
                    self.doors.keep(peer, arrival);
                }
                self.links.advance(key, Phase::Named { peer, held }, None);
                // If it has left already, that was announced together with its name, and is not again.
                self.look_at(key);
            }
            Verdict::Knock => {
                self.handle.shared().counters.knocks.add(1);
                self.links.bury(key);
            }
            Verdict::Reject(reason) => {
                self.links.bury(key);
                self.tell(Event::Rejected { addr, sid, reason }, now);
            }
        }
    }

    /// A knock waits for the far end to hang up; what it says until then means nothing.
    pub(super) fn hang_on(&mut self, key: LinkKey, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        match link.stream.read(&mut self.stage) {
            Ok(0) => self.end(key, Reason::Closed, now),
            Ok(_) => self.look_at(key),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.look_at(key),
            Err(error) => self.end(key, Reason::of_io(&error), now),
        }
    }
}

/// Whether the machine or the process is out of descriptors or memory: waiting may help, the next connection will not.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)
    )
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
