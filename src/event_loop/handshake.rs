//! The initial message of a connection: reading that of the far end, and writing that of this server.
//!
//! Nothing is decided here: the roster decides what becomes of the connection.

use std::{
    io, mem,
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::{EventLoop, answer::write_whole, connections::Phase, read_stream::read_message};
use crate::{
    event::Event,
    handler::Handler,
    net::{Identity, Net, Stream as _},
    proto::{
        Brought, Claim, ConnectionKey, InitialMessage, InitialMessageVersion, Native, PeerId,
        Reason, Sid, Source, Verdict, decode, encode,
    },
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Reads more of the initial message of an accepted connection.
    pub(super) fn receive_initial_message(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::AwaitingInitialMessage { received, .. } = &mut connection.phase else {
            return;
        };
        let decode = |bytes: &[u8]| decode(bytes).map_err(Reason::BadInitialMessage);
        match read_message(&*connection.stream, received, decode) {
            Ok(None) => {}
            Ok(Some(initial_message)) => match connection.stream.connected() {
                Ok(true) => {
                    let (leftover, addr) = (mem::take(received), connection.addr);
                    let took = now.saturating_duration_since(connection.since);
                    match connection.stream.identify(initial_message.sid) {
                        Ok(identity) => {
                            // Not before: a far end that is not who it claims to be is not answered.
                            let native = initial_message.native.as_ref();
                            connection.incarnation = native.map(|native| native.incarnation);
                            connection.controls = native.is_some_and(|native| native.controls);
                            self.handle.shared().counters.handshake_times.add(took);
                            let from = (addr, identity);
                            self.on_initial_message(key, &initial_message, leftover, from, now);
                        }
                        Err(reason) => self.reject(key, initial_message.sid, reason, now),
                    }
                }
                // The dialer has abandoned this connection. It may have waited longer than a newer one at another listener. It must
                // not replace the newer one, nor deliver frames that are older than those of the newer one.
                Ok(false) => self.end(key, Reason::Closed, now),
                Err(error) => self.end(key, Reason::of_io(&error), now),
            },
            Err(reason) => self.end(key, reason, now),
        }
    }

    /// The initial message of an accepted connection is complete.
    fn on_initial_message(
        &mut self,
        key: ConnectionKey,
        initial_message: &InitialMessage,
        leftover: Vec<u8>,
        (addr, identity): (SocketAddr, Identity),
        now: Instant,
    ) {
        if let Some(why) = &initial_message.overlooked {
            let sid = initial_message.sid;
            log::debug!("peer {sid} at {addr} names an address that cannot be dialed: {why}");
        }
        let known = self.roster.find(initial_message.sid);
        if self.shutting_down && known.is_none_or(|id| self.roster.has_left(id)) {
            // Neither refused as unknown, after which it would dial rarely, nor admitted as a guest.
            return self.reject(key, initial_message.sid, Reason::Halted, now);
        }
        let connection = self.connections.get_mut(key);
        let (arrival, since) = connection.map_or((None, now), |it| (it.arrival, it.since));
        if let (Some(id), Some(arrival)) = (known, &arrival) {
            // The order matters only for a larger sid: a connection from a smaller sid is a knock, which brings no frames.
            if self.roster.knocks(id) && !self.listeners.is_latest(id, arrival) {
                return self.reject(key, initial_message.sid, Reason::Replaced, now);
            }
        }
        let at_home = identity == Identity::Proved
            || known.is_some_and(|id| self.endpoints.is_home(id, addr.ip()));
        let ip = addr.ip().to_canonical();
        // What the link has brought is asked for now: this claim may be judged by whether it changes.
        let older = known.and_then(|id| self.roster.link(id));
        if let Some(peer) = older.and_then(|older| self.dialed_and_retired(older)) {
            // A knock has crossed the dial for which that link is retired. The far end may have accepted that dial already, and have
            // written to it: it is not given up.
            self.roster.on_retired(peer, now);
        }
        let claim = Claim {
            sid: initial_message.sid,
            link: key,
            since,
            source: Source { ip, at_home },
            brought: older.map_or(Brought::More, |older| self.connections.brought(older)),
            addresses: &initial_message.addresses,
            native: initial_message.native.as_ref(),
            retires: self.can_retire(older, initial_message.native.as_ref()),
        };
        let verdict = self.roster.on_initial_message(&claim, now, &mut self.todo);
        match verdict {
            Verdict::Keep(peer) | Verdict::Retire(peer) | Verdict::Wait(peer) => {
                if let (Verdict::Keep(_) | Verdict::Retire(_), Some(arrival)) = (&verdict, arrival)
                {
                    self.listeners.keep(peer, arrival);
                }
                self.connections
                    .advance(key, Phase::Named { peer, leftover }, None);
                // If the far end has already closed it, that was reported together with the initial message, and is not reported
                // again.
                self.look_at(key);
                if let (Verdict::Retire(_), Some(link)) = (&verdict, older) {
                    self.retire(link, now);
                }
            }
            Verdict::Knock => {
                self.handle.shared().counters.knocks.add(1);
                // It knocks again if the answer does not arrive.
                let _ = self.answer(key, None);
                self.connections.close(key);
            }
            Verdict::Reject(reason) => self.reject(key, initial_message.sid, reason, now),
        }
    }

    /// The peer of this link, if this server has dialed it and it is retired.
    fn dialed_and_retired(&mut self, link: ConnectionKey) -> Option<PeerId> {
        let link = self.connections.get_mut(link)?;
        match &link.phase {
            Phase::Open { peer, .. } if link.retired && link.arrival.is_none() => Some(peer.id),
            _ => None,
        }
    }

    /// Whether the dialer asks for this link to be retired, and made it. Another process with its sid has another link.
    fn can_retire(&mut self, link: Option<ConnectionKey>, by: Option<&Native>) -> bool {
        let Some(native) = by.filter(|native| native.retires) else {
            return false;
        };
        let link = link.and_then(|link| self.connections.get_mut(link));
        link.is_some_and(|link| link.can_retire() && link.incarnation == Some(native.incarnation))
    }

    /// Closes an accepted connection that has sent its initial message. `end` knows no sid in this phase.
    fn reject(&mut self, key: ConnectionKey, sid: Sid, reason: Reason, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let addr = connection.addr;
        // The connection ends in any case.
        let _ = self.answer(key, Some(&reason));
        self.connections.close(key);
        let sid = (sid != Sid::OBSERVER).then_some(sid);
        self.tell(Event::Rejected { addr, sid, reason }, now);
    }

    /// A connect has succeeded or failed, or a handshake of its stream can be continued.
    pub(super) fn on_connected(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Dialing { peer } = connection.phase else {
            return;
        };
        match connection.stream.connected() {
            Ok(false) => {
                if let Some(at) = connection.stream.connected_at() {
                    self.connections.set_due_before(key, at);
                }
                return;
            }
            Ok(true) => {}
            Err(error) => return self.end(key, Reason::of_io(&error), now),
        }
        let took = now.saturating_duration_since(connection.since);
        self.handle.shared().counters.connect_times.add(took);
        let stream = Arc::clone(&connection.stream);
        if let Some(Err(reason)) = self.peer(peer).map(|peer| stream.identify(peer.sid)) {
            return self.end(key, reason, now);
        }
        if let Some(older) = self.roster.link(peer) {
            let brought = match self.paused.contains(&older) {
                true => Brought::More,
                false => self.connections.brought(older),
            };
            // Nothing is written yet, so that the far end takes this for no knock and no link.
            if self.roster.is_moot(peer, brought, now) {
                for key in self.endpoints.finish(peer) {
                    self.connections.close(key);
                }
                return;
            }
        }
        // Before the initial message is written: at most one connection of a dial carries it.
        for loser in self.endpoints.on_connected(peer, key) {
            self.connections.close(loser);
        }
        // One write: ZooKeeper's acceptor may take a short read for a short message (`InitialMessage.parse`).
        let retires = self.can_retire_by_dial(peer);
        let initial_message = self.initial_message(peer, retires);
        if let Err(reason) = write_whole(&*stream, &initial_message) {
            return self.end(key, reason, now);
        }
        let is_native = self.options.initial_message == InitialMessageVersion::Native;
        if self.roster.knocks(peer) {
            // Tells the far end that nothing follows. It then closes the connection and dials back.
            if let Err(error) = stream.shutdown(Shutdown::Write) {
                return self.end(key, Reason::of_io(&error), now);
            }
            self.connections.advance(
                key,
                Phase::Knocking {
                    peer,
                    answer: is_native.then(Vec::new),
                },
                Some(now + self.options.handshake_timeout),
            );
            // The far end may already have closed it. That was reported together with the connect, and is not reported again.
            self.look_at(key);
        } else if is_native {
            let received = Vec::new();
            self.connections.advance(
                key,
                Phase::AwaitingAnswer { peer, received },
                Some(now + self.answer_timeout(retires)),
            );
            self.look_at(key);
        } else {
            self.on_dialed(key, peer, Vec::new(), now);
        }
    }

    /// Nothing stands in the way of a dialed connection any more: it becomes the link of its peer. `leftover` holds the bytes that
    /// followed the answer.
    pub(super) fn on_dialed(
        &mut self,
        key: ConnectionKey,
        peer: PeerId,
        leftover: Vec<u8>,
        now: Instant,
    ) {
        self.endpoints.finish(peer);
        self.connections
            .advance(key, Phase::Named { peer, leftover }, None);
        let incarnation = self
            .connections
            .get_mut(key)
            .and_then(|connection| connection.incarnation);
        self.roster
            .on_linked(peer, key, incarnation, now, &mut self.todo);
    }

    /// Whether the link to this peer can be retired for one that is dialed. One that was found silent is not.
    fn can_retire_by_dial(&mut self, peer: PeerId) -> bool {
        let link = self.roster.link(peer);
        let link = link.filter(|_| !self.roster.is_in_doubt(peer));
        let link = link.and_then(|link| self.connections.get_mut(link));
        link.is_some_and(|link| link.can_retire())
    }

    /// The initial message of this server to this peer. It contains the ports that the kernel chose in place of 0.
    fn initial_message(&self, to: PeerId, retires: bool) -> Vec<u8> {
        let addresses = self.listeners.advertised(&self.own_addresses);
        let form = match self.options.initial_message {
            InitialMessageVersion::Native => InitialMessageVersion::Native,
            _ if addresses.is_empty() => InitialMessageVersion::Bare,
            form => form,
        };
        // Every peer that is dialed is known. If it were not, the far end would refuse a connection to this server itself.
        let own = self.handle.sid();
        let to = self.peer(to).map_or(own, |peer| peer.sid);
        let native = self.roster.native_to(to, retires);
        encode(form, own, &addresses, &native)
    }

    /// Reads a knock until the far end closes it. What it sends until then is ignored.
    pub(super) fn await_hangup(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.stream.read(&mut self.read_buffer) {
            Ok(0) => self.end(key, Reason::Closed, now),
            Ok(_) => self.look_at(key),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.look_at(key),
            Err(error) => self.end(key, Reason::of_io(&error), now),
        }
    }
}
