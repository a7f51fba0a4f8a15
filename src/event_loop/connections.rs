//! The connections of the loop: a slab, and the phase of each connection.
//!
//! Nothing here reads or writes. A place in the slab is reused only after `drain_closed`, at the end of a turn.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;

use super::{listeners::Arrival, pings::Pings};
use crate::{
    proto::{Assembler, Brought, ConnectionKey, PeerId},
    shared::Peer,
};

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) stream: Arc<S>,
    pub(super) addr: SocketAddr,
    /// When and where it was accepted; `None` for a dialed connection.
    pub(super) arrival: Option<Arrival>,
    /// When it was accepted, or its connect began.
    pub(super) since: Instant,
    /// The incarnation of the far end. `Some` exactly when it has said so in a native handshake. If the connection was accepted, its
    /// dialer then expects an answer.
    pub(super) incarnation: Option<u64>,
    /// True exactly when the far end has said in a native handshake that it understands control frames.
    pub(super) controls: bool,
    /// True exactly when it is a link that is retired: its outbox was given the end frame.
    pub(super) retired: bool,
    pub(super) phase: Phase,
    /// When the connection is given up, unless its phase has changed by then.
    due: Option<Instant>,
    generation: u32,
    /// True exactly when the connection is in the list of connections to be read.
    pub(super) busy: bool,
    /// True exactly when the far end is known to have ended the connection. Reading continues until it returns the end.
    pub(super) ended: bool,
    /// Set when nothing can be written any more. What the kernel has received is still read, then the connection ends.
    pub(super) draining: Option<Draining>,
    /// True exactly when what has not arrived at the far end must not arrive any more.
    pub(super) aborted: bool,
}

/// The state of a connection whose write half has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draining {
    /// The error of the write half.
    pub(super) kind: io::ErrorKind,
    /// How many more bytes may be read.
    pub(super) budget: usize,
}

/// The phase of a connection.
///
/// ```text
///   Dialing --connected-----------------------> Named --Up--> Open     (sid < own)
///      |  |`--connected--> AwaitingAnswer --answer--^                   (sid < own, native)
///      |  `---connected--> Knocking                                     (sid > own)
///   AwaitingInitialMessage --initial message--> Named --Up--> Open     (native: the answer is written before Open)
///   each of them --Reason--> Closed
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    /// `connect(2)` has not finished.
    Dialing { peer: PeerId },
    /// The native initial message was written. `received` is the part of the answer that has arrived.
    AwaitingAnswer { peer: PeerId, received: Vec<u8> },
    /// The initial message was written. The far end is expected to close the connection, and to answer a native one before. `answer`
    /// is the part of the answer that has arrived, `None` exactly when none is expected.
    Knocking {
        peer: PeerId,
        answer: Option<Vec<u8>>,
    },
    /// The connection was accepted. `received` is the part of its initial message that has arrived.
    AwaitingInitialMessage { place: Place, received: Vec<u8> },
    /// The initial message is complete, and the connection is not the link of its peer: it becomes the link in this turn, or it
    /// waits as a contender. `leftover` holds the bytes that followed the initial message.
    Named { peer: PeerId, leftover: Vec<u8> },
    /// The link of its peer. `leftover` holds the bytes that followed the initial message, which are read first.
    Open {
        peer: Arc<Peer>,
        /// The number of the link.
        number: u64,
        since: Instant,
        /// True exactly when the link has brought a byte.
        has_received: bool,
        /// When the time of a received frame is recorded again.
        record_at: Instant,
        /// True exactly when its outbox writes nothing until the link is proven.
        on_probation: bool,
        /// `Some` exactly when pings are sent.
        pings: Option<Pings>,
        frames: Assembler,
        leftover: Vec<u8>,
    },
    /// The connection has ended. It is removed at the end of the turn.
    Closed,
}

/// The place of a connection in the order of eviction: first those from unknown addresses, and the oldest of these first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    may_be_member: bool,
    order: u64,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Connections<S> {
    slab: Slab<Connection<S>>,
    due: BTreeSet<(Instant, ConnectionKey)>,
    /// Accepted connections without a complete initial message, in the order in which they are evicted.
    awaiting: BTreeSet<(Place, ConnectionKey)>,
    /// The number of connections in phase `Named`.
    named: usize,
    closed: Vec<ConnectionKey>,
    generations: u32,
    order: u64,
}

impl<S> Connection<S> {
    /// Whether this link can be retired: both ends understand the end frame, and it can still be written.
    pub(super) fn can_retire(&self) -> bool {
        self.controls && self.draining.is_none()
    }
}

impl<S> Connections<S> {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(),
            due: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            named: 0,
            closed: Vec::new(),
            generations: 0,
            order: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn awaiting(&self) -> usize {
        self.awaiting.len()
    }

    /// Accepted connections that are neither links nor closed: those without an initial message, and contenders.
    pub(super) fn pending(&self) -> usize {
        self.awaiting.len() + self.named
    }

    /// The place that the next connection gets. It is also the token under which it is watched.
    pub(super) fn next_index(&self) -> usize {
        self.slab.vacant_key()
    }

    pub(super) fn insert_dialing(
        &mut self,
        stream: Arc<S>,
        addr: SocketAddr,
        peer: PeerId,
        now: Instant,
        due: Instant,
    ) -> ConnectionKey {
        self.insert(stream, addr, None, Phase::Dialing { peer }, now, due)
    }

    pub(super) fn insert_accepted(
        &mut self,
        stream: Arc<S>,
        addr: SocketAddr,
        arrival: Arrival,
        may_be_member: bool,
        now: Instant,
        due: Instant,
    ) -> ConnectionKey {
        self.order += 1;
        let place = Place {
            may_be_member,
            order: self.order,
        };
        let received = Vec::new();
        let phase = Phase::AwaitingInitialMessage { place, received };
        let key = self.insert(stream, addr, Some(arrival), phase, now, due);
        self.awaiting.insert((place, key));
        key
    }

    fn insert(
        &mut self,
        stream: Arc<S>,
        addr: SocketAddr,
        arrival: Option<Arrival>,
        phase: Phase,
        since: Instant,
        due: Instant,
    ) -> ConnectionKey {
        // It may wrap: a key is mistaken only for a connection that is the 2^32nd after its own and has the same place.
        self.generations = self.generations.wrapping_add(1);
        let generation = self.generations;
        let connection = Connection {
            stream,
            addr,
            arrival,
            since,
            incarnation: None,
            controls: false,
            retired: false,
            phase,
            due: None,
            generation,
            busy: false,
            ended: false,
            draining: None,
            aborted: false,
        };
        let index = u32::try_from(self.slab.insert(connection))
            .expect("descriptors are far fewer than 2^32");
        let key = ConnectionKey { index, generation };
        self.set_due(key, Some(due));
        key
    }

    /// The connection with this key, if it is not closed.
    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection<S>> {
        let connection = self.slab.get_mut(key.index as usize)?;
        (connection.generation == key.generation && !matches!(connection.phase, Phase::Closed))
            .then_some(connection)
    }

    /// The connection at this place, if it is not closed.
    pub(super) fn at(&mut self, index: usize) -> Option<(ConnectionKey, &mut Connection<S>)> {
        let connection = self.slab.get_mut(index)?;
        let key = ConnectionKey {
            index: u32::try_from(index).ok()?,
            generation: connection.generation,
        };
        (!matches!(connection.phase, Phase::Closed)).then_some((key, connection))
    }

    /// Whether the connection was dialed, or accepted from an address of a member. Asked while it has no name.
    pub(super) fn may_be_member(&mut self, key: ConnectionKey) -> bool {
        match self.get_mut(key).map(|connection| &connection.phase) {
            Some(Phase::AwaitingInitialMessage { place, .. }) => place.may_be_member,
            Some(Phase::Dialing { .. }) => true,
            _ => false,
        }
    }

    /// The peer whose link is at this place.
    pub(super) fn peer_at(&mut self, index: usize) -> Option<PeerId> {
        match &self.at(index)?.1.phase {
            Phase::Open { peer, .. } => Some(peer.id),
            _ => None,
        }
    }

    /// The payload bytes received from the peer of this link, over all its links so far, and those of the frame that is underway, and its
    /// control frames; `More` if unread bytes may wait.
    pub(super) fn brought(&mut self, key: ConnectionKey) -> Brought {
        match self.get_mut(key) {
            // The edge is used, but its bytes are not read: they would be missed if the link were called silent now.
            Some(connection) if connection.busy => Brought::More,
            Some(Connection {
                phase: Phase::Open { peer, frames, .. },
                ..
            }) => {
                let (bytes, controls) = (peer.counters.bytes.read(), peer.counters.controls.read());
                Brought::Bytes(bytes + controls + frames.underway() as u64)
            }
            _ => Brought::More,
        }
    }

    pub(super) fn set_due(&mut self, key: ConnectionKey, due: Option<Instant>) {
        let Some(connection) = self.get_mut(key) else {
            return;
        };
        let old = std::mem::replace(&mut connection.due, due);
        if let Some(old) = old {
            self.due.remove(&(old, key));
        }
        if let Some(due) = due {
            self.due.insert((due, key));
        }
    }

    /// Makes the deadline of a connection no later than `at`.
    pub(super) fn set_due_before(&mut self, key: ConnectionKey, at: Instant) {
        let due = self.get_mut(key).and_then(|connection| connection.due);
        if due.is_none_or(|due| at < due) {
            self.set_due(key, Some(at));
        }
    }

    /// When the first connection is to be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next connection whose deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> Option<ConnectionKey> {
        self.due
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, key)| *key)
    }

    /// The connection to evict, of those that wait for their initial message.
    pub(super) fn first_to_evict(&self) -> Option<ConnectionKey> {
        self.awaiting.first().map(|(_, key)| *key)
    }

    /// Makes a connection in phase `Named` the link of this peer. Returns its stream and the address of the far end. If the
    /// connection has ended or is in another phase, returns `None` and changes nothing.
    pub(super) fn open(
        &mut self,
        key: ConnectionKey,
        peer: Arc<Peer>,
        number: u64,
        ping_every: Option<Duration>,
        now: Instant,
    ) -> Option<(Arc<S>, SocketAddr)> {
        let connection = self.get_mut(key)?;
        let ping_every = ping_every.filter(|_| connection.controls);
        let Phase::Named { leftover, .. } = &mut connection.phase else {
            return None;
        };
        let phase = Phase::Open {
            peer,
            number,
            since: now,
            has_received: false,
            record_at: now,
            on_probation: false,
            pings: ping_every.map(|every| Pings::new(every, now)),
            frames: Assembler::new(connection.controls),
            leftover: std::mem::take(leftover),
        };
        let far_end = (Arc::clone(&connection.stream), connection.addr);
        self.advance(key, phase, ping_every.map(|_| now));
        Some(far_end)
    }

    /// Moves a connection to another phase and returns the old one.
    pub(super) fn advance(
        &mut self,
        key: ConnectionKey,
        phase: Phase,
        due: Option<Instant>,
    ) -> Option<Phase> {
        let connection = self.get_mut(key)?;
        let is_named = matches!(phase, Phase::Named { .. });
        let old = std::mem::replace(&mut connection.phase, phase);
        self.named += usize::from(is_named);
        match old {
            Phase::AwaitingInitialMessage { place, .. } => {
                self.awaiting.remove(&(place, key));
            }
            Phase::Named { .. } => self.named -= 1,
            _ => {}
        }
        self.set_due(key, due);
        Some(old)
    }

    /// Closes a connection, which is removed at the end of the turn. Returns its old phase.
    pub(super) fn close(&mut self, key: ConnectionKey) -> Option<Phase> {
        // Before the phase changes: afterwards `get_mut` does not find the connection any more.
        self.set_due(key, None);
        let old = self.advance(key, Phase::Closed, None)?;
        self.closed.push(key);
        Some(old)
    }

    /// Closes a connection. What has not arrived at the far end must not arrive any more.
    pub(super) fn abort(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.get_mut(key) {
            connection.aborted = true;
        }
        self.close(key);
    }

    /// The keys of all connections that are not closed.
    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        self.slab
            .iter()
            .filter(|(_, connection)| !matches!(connection.phase, Phase::Closed))
            .filter_map(|(index, connection)| {
                Some(ConnectionKey {
                    index: u32::try_from(index).ok()?,
                    generation: connection.generation,
                })
            })
            .collect()
    }

    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Removes the closed connections.
    pub(super) fn drain_closed(&mut self) -> impl Iterator<Item = Connection<S>> + '_ {
        let Self { slab, closed, .. } = self;
        closed
            .drain(..)
            .filter_map(|key| slab.try_remove(key.index as usize))
    }
}
