//! What the handles and the loop have in common: the peers, the inbox, the bell, the state of the loop.
//!
//! Nothing here waits for the network.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    batch::{Burst, Source},
    config,
    error::SendError,
    limits::{FRAME_BYTES_MAX, QUEUE_RUN_BYTES},
    manager::Sent,
    process::{self, Home},
    proto::{Address, PeerId, Sid},
    share::{Ask, Doorbell, Inbox, Notes, Outbox, Put, Refused},
    stats::{self, Counters, Incoming, Outgoing, PeerCounters, PeerStats, Stats},
};

/// A peer, as every thread sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) sid: Sid,
    pub(crate) outbox: Outbox,
    pub(crate) counters: PeerCounters,
    pub(crate) linked: AtomicBool,
    /// True exactly when the last link ended soon and had brought nothing. Only the loop looks at it.
    pub(crate) doubtful: AtomicBool,
    /// What the loop was asked to do for this peer and has not yet looked at.
    asked: AtomicU8,
}

/// The bits of `Peer::asked`.
pub(crate) mod asked {
    pub(crate) const LINK: u8 = 1;
    pub(crate) const INITIATE: u8 = 2;
    pub(crate) const RESUME: u8 = 4;
    pub(crate) const BROKEN: u8 = 8;
}

impl Peer {
    pub(crate) fn new(id: PeerId, sid: Sid, outbox: config::Outbox) -> Self {
        let outbox = match outbox {
            config::Outbox::Latest => Outbox::latest(),
            config::Outbox::Queue { bytes } => Outbox::queue(bytes),
        };
        Self {
            id,
            sid,
            outbox,
            counters: PeerCounters::default(),
            linked: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            asked: AtomicU8::new(0),
        }
    }

    /// What was asked since the last call.
    pub(crate) fn take_asked(&self) -> u8 {
        self.asked.swap(0, Ordering::AcqRel)
    }

    fn received(&self) -> Incoming {
        Incoming {
            frames: self.counters.frames.read(),
            bytes: self.counters.bytes.read(),
        }
    }
}

/// What a listening socket is doing. There is one for each address that a configured one means: several for a name with several
/// addresses, none where another socket takes the connections, as that of a wildcard does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listening {
    /// It is bound here.
    Open(SocketAddr),
    /// It is not open yet; the loop tries again. An address as it was configured, or one that its name has, as a literal.
    Trying(Address),
    /// The tries are used up for this configured address; nothing that it means is listened on.
    Lost(Address),
}

/// How far the loop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// It ended as it was asked to.
    Halted,
    /// It ended by an error or a panic.
    Died,
}

#[derive(Debug)]
struct State {
    life: Life,
    listening: Vec<Listening>,
    loop_thread: Option<ThreadId>,
}

/// Read with every frame, and written once: it shares its line of the cache with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct HaltOrder(AtomicBool);

impl HaltOrder {
    #[inline]
    pub(crate) fn is_given(&self) -> bool {
        // Relaxed: it guards nothing. The loop acts on it after the bell, which orders the rest.
        self.0.load(Ordering::Relaxed)
    }
}

/// Observers and admitted servers.
#[derive(Debug, Default)]
struct Guests {
    known: BTreeMap<Sid, Arc<Peer>>,
    /// What those that are gone had sent and received. A total over these and the known ones never runs backwards.
    sent: Outgoing,
    received: Incoming,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) own: Sid,
    home: Home,
    /// Sorted by sid; never changes, so that finding a member takes no lock.
    members: Vec<Arc<Peer>>,
    /// The sids of these: a search touches them alone.
    sids: Vec<Sid>,
    guests: RwLock<Guests>,
    /// Loopback goes here; in a manager it is the inbox of the application.
    pub(crate) inbox: Arc<Inbox<Burst>>,
    /// Whether the loop empties the inbox into its handler.
    inbox_is_for_the_loop: bool,
    pub(crate) bell: Doorbell,
    pub(crate) notes: Notes<Arc<Peer>>,
    /// True exactly when the loop was asked to halt.
    pub(crate) halt: HaltOrder,
    /// True exactly when the loop is to drop its links.
    pub(crate) drop_links: AtomicBool,
    pub(crate) counters: Counters,
    state: Mutex<State>,
    ended: Condvar,
}

impl Shared {
    pub(crate) fn new(
        own: Sid,
        members: Vec<Arc<Peer>>,
        inbox: Arc<Inbox<Burst>>,
        inbox_is_for_the_loop: bool,
        bell: Doorbell,
    ) -> Self {
        Self {
            own,
            home: Home::here(),
            sids: members.iter().map(|peer| peer.sid).collect(),
            members,
            guests: RwLock::default(),
            inbox,
            inbox_is_for_the_loop,
            bell,
            notes: Notes::new(),
            halt: HaltOrder::default(),
            drop_links: AtomicBool::new(false),
            counters: Counters::default(),
            state: Mutex::new(State {
                life: Life::Running,
                listening: Vec::new(),
                loop_thread: None,
            }),
            ended: Condvar::new(),
        }
    }

    pub(crate) fn find(&self, sid: Sid) -> Option<Arc<Peer>> {
        match self.member(sid) {
            Some(peer) => Some(Arc::clone(peer)),
            None => self
                .guests
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .known
                .get(&sid)
                .cloned(),
        }
    }

    #[inline]
    fn member(&self, sid: Sid) -> Option<&Arc<Peer>> {
        let index = self.sids.binary_search(&sid).ok()?;
        Some(&self.members[index])
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let guests = self.guests.read().unwrap_or_else(PoisonError::into_inner);
        self.with_members(&guests)
    }

    /// Members and these, sorted by sid.
    fn with_members(&self, guests: &Guests) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self
            .members
            .iter()
            .chain(guests.known.values())
            .cloned()
            .collect();
        peers.sort_by_key(|peer| peer.sid);
        peers
    }

    pub(crate) fn meet(&self, peer: Arc<Peer>) {
        self.guests
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .known
            .insert(peer.sid, peer);
    }

    pub(crate) fn part(&self, peer: &Peer) {
        // Before the lock is taken: payloads are freed here, and their owners may call this.
        peer.outbox.close();
        let mut guests = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        guests.known.remove(&peer.sid);
        let mut tally = peer.outbox.tally();
        // A thread may still have one in hand, which goes nowhere.
        tally.discarded += std::mem::take(&mut tally.waiting);
        guests.sent.add(tally);
        guests.received.add(peer.received());
    }

    /// See [`Handle::to_send`](crate::Handle::to_send).
    pub(crate) fn to_send(&self, sid: Sid, frame: Bytes) -> Result<Sent, SendError> {
        self.admit(frame.len())?;
        if let Some(peer) = self.member(sid) {
            return self.put(peer, frame);
        }
        if sid == self.own {
            return self.loop_back(frame);
        }
        match self.find(sid) {
            Some(peer) => self.put(&peer, frame),
            None => Err(SendError::UnknownPeer(sid)),
        }
    }

    /// See [`Handle::to_send_slice`](crate::Handle::to_send_slice).
    pub(crate) fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<Sent, SendError> {
        self.admit(frame.len())?;
        match self.member(sid) {
            Some(peer) if !is_long(frame.len()) && peer.outbox.is_queue() => {
                let (_, put, ask) = peer.outbox.put_all(&[frame]);
                self.see_to(peer, ask)?;
                self.receipt(peer, put)
            }
            _ => self.to_send(sid, Bytes::copy_from_slice(frame)),
        }
    }

    /// See [`Handle::to_send_all`](crate::Handle::to_send_all).
    pub(crate) fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        let has_long = self.admit_all(frames)?;
        if let Some(peer) = self.member(sid) {
            return self.put_all(peer, frames, has_long);
        }
        if sid == self.own {
            for (taken, frame) in frames.iter().enumerate() {
                match self.loop_back(Bytes::copy_from_slice(frame)) {
                    Ok(_) => {}
                    Err(error) if taken == 0 => return Err(error),
                    Err(_) => return Ok(taken),
                }
            }
            return Ok(frames.len());
        }
        match self.find(sid) {
            Some(peer) => self.put_all(&peer, frames, has_long),
            None => Err(SendError::UnknownPeer(sid)),
        }
    }

    /// See [`Handle::wait_for_room`](crate::Handle::wait_for_room).
    pub(crate) fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        // A time that no clock reaches is for ever. The thread of the loop does not wait: only it could make room.
        let deadline = if self.is_loop_thread(thread::current().id()) {
            Some(Instant::now())
        } else {
            Instant::now().checked_add(timeout)
        };
        if sid == self.own {
            let owner = Source::loopback(sid).owner();
            return Ok(self.inbox.wait_for_room(owner, deadline));
        }
        let peer = self.find(sid).ok_or(SendError::UnknownPeer(sid))?;
        Ok(peer.outbox.wait_for_room(deadline))
    }

    /// See [`Handle::discard`](crate::Handle::discard).
    pub(crate) fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        let peer = self.find(sid).ok_or(SendError::UnknownPeer(sid))?;
        Ok(peer.outbox.discard())
    }

    /// Whether a frame of this length is taken.
    #[inline]
    fn admit(&self, frame_len: usize) -> Result<(), SendError> {
        check(frame_len)?;
        // Also before the loop has seen it: threads that go on sending would keep it from the locks that it needs to halt.
        if self.halt.is_given() {
            return Err(SendError::Halted);
        }
        Ok(())
    }

    /// Whether frames of these lengths are taken, and if so whether some are long.
    #[inline]
    fn admit_all(&self, frames: &[&[u8]]) -> Result<bool, SendError> {
        let mut longest = 0;
        for frame in frames {
            check(frame.len())?;
            longest = longest.max(frame.len());
        }
        if self.halt.is_given() {
            return Err(SendError::Halted);
        }
        Ok(is_long(longest))
    }

    /// Whether the loop is in this process.
    pub(crate) fn is_here(&self) -> bool {
        self.home.is_here()
    }

    fn put(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<Sent, SendError> {
        let (put, ask) = peer.outbox.put(frame);
        self.see_to(peer, ask)?;
        self.receipt(peer, put)
    }

    fn put_all(
        &self,
        peer: &Arc<Peer>,
        frames: &[&[u8]],
        has_long: bool,
    ) -> Result<usize, SendError> {
        let mut taken = 0;
        while taken < frames.len() {
            let rest = &frames[taken..];
            let part = if has_long {
                self.put_part(peer, rest)
            } else {
                self.put_short(peer, rest)
            };
            match part {
                Ok(more) => taken += more,
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Puts the first of these, as many as leave together. A long one is copied before anything is locked, also behind short
    /// ones.
    #[cold]
    fn put_part(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        match frames {
            [frame, ..] if is_long(frame.len()) => {
                self.put(peer, Bytes::copy_from_slice(frame)).map(|_| 1)
            }
            frames => {
                let short = frames
                    .iter()
                    .take_while(|frame| !is_long(frame.len()))
                    .count();
                self.put_short(peer, &frames[..short])
            }
        }
    }

    #[inline]
    fn put_short(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        let (taken, put, ask) = peer.outbox.put_all(frames);
        self.see_to(peer, ask)?;
        self.receipt(peer, put).map(|_| taken)
    }

    /// Asks the loop for what an outbox has left for it. [`SendError::Halted`] in a forked process.
    #[inline]
    pub(crate) fn see_to(&self, peer: &Arc<Peer>, ask: Ask) -> Result<(), SendError> {
        match ask {
            Ask::Nothing => Ok(()),
            Ask::Link => self.ask(peer, asked::LINK),
            Ask::Resume => self.ask(peer, asked::RESUME),
            Ask::Broken => self.ask(peer, asked::BROKEN),
        }
    }

    #[inline]
    fn receipt(&self, peer: &Peer, put: Put) -> Result<Sent, SendError> {
        match put {
            Put::Written => Ok(Sent::Written),
            Put::Queued => Ok(Sent::Queued),
            Put::Superseded => Ok(Sent::Superseded),
            Put::Full => Err(SendError::Full),
            Put::Closed if self.life() == Life::Running => Err(SendError::UnknownPeer(peer.sid)),
            Put::Closed => Err(SendError::Halted),
        }
    }

    fn loop_back(&self, frame: Bytes) -> Result<Sent, SendError> {
        let burst = Burst::whole(Source::loopback(self.own), frame);
        let has_dropped = match self.inbox.offer(burst) {
            Ok(has_dropped) => has_dropped,
            Err(Refused::Full) => return Err(SendError::Full),
            Err(Refused::Closed) => return Err(SendError::Halted),
        };
        self.counters.loopback.add(1);
        if self.inbox_is_for_the_loop || has_dropped {
            self.bell.ring();
        }
        Ok(Sent::Loopback)
    }

    /// Leaves a note for the loop about this peer. At most one note a peer waits.
    pub(crate) fn ask(&self, peer: &Arc<Peer>, what: u8) -> Result<(), SendError> {
        if !self.home.is_here_or_turns() {
            // Nobody is there to do it, and the bell is the parent's.
            self.end(Life::Halted);
            return Err(SendError::Halted);
        }
        // AcqRel: whoever finds the bits empty leaves the note; the loop takes the bits after the note.
        if peer.asked.fetch_or(what, Ordering::AcqRel) == 0 {
            self.notes.leave(Arc::clone(peer));
        }
        self.bell.ring();
        Ok(())
    }

    pub(crate) fn order(&self, flag: &AtomicBool) {
        if !self.is_here() {
            return self.end(Life::Halted);
        }
        flag.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(crate) fn request_halt(&self) {
        self.order(&self.halt.0);
    }

    pub(crate) fn inbox_is_for_the_loop(&self) -> bool {
        self.inbox_is_for_the_loop
    }

    pub(crate) fn life(&self) -> Life {
        let life = lock(&self.state).life;
        if life == Life::Running && !self.is_here() {
            self.end(Life::Halted);
            return Life::Halted;
        }
        life
    }

    /// This thread turns the loop from now on.
    pub(crate) fn turns_here(&self) {
        process::turns_a_loop();
        self.set_loop_thread(thread::current().id());
    }

    pub(crate) fn set_loop_thread(&self, thread: ThreadId) {
        lock(&self.state).loop_thread = Some(thread);
    }

    pub(crate) fn is_loop_thread(&self, thread: ThreadId) -> bool {
        lock(&self.state).loop_thread == Some(thread)
    }

    pub(crate) fn set_listening(&self, listening: Vec<Listening>) {
        lock(&self.state).listening = listening;
    }

    pub(crate) fn listening(&self) -> Vec<Listening> {
        lock(&self.state).listening.clone()
    }

    /// The loop has ended: nothing is accepted, nothing comes, everybody who waits is told. Only the first call counts.
    pub(crate) fn end(&self, life: Life) {
        {
            let mut state = lock(&self.state);
            if state.life != Life::Running {
                return;
            }
            state.life = life;
            state.listening.clear();
        }
        for peer in self.peers() {
            peer.outbox.close();
            peer.linked.store(false, Ordering::Release);
        }
        self.inbox.close();
        self.ended.notify_all();
    }

    pub(crate) fn wait_for_end(&self) {
        if self.life() != Life::Running {
            return;
        }
        let mut state = lock(&self.state);
        while state.life == Life::Running {
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        // Under one lock, so that a guest that goes is counted once: as known or as gone.
        let guests = self.guests.read().unwrap_or_else(PoisonError::into_inner);
        let (mut sent, mut received) = (guests.sent, guests.received);
        let peers: Vec<PeerStats> = self
            .with_members(&guests)
            .iter()
            .map(|peer| {
                let tally = peer.outbox.tally();
                sent.add(tally);
                let got = peer.received();
                received.add(got);
                let mut own = Outgoing::default();
                own.add(tally);
                PeerStats {
                    sid: peer.sid,
                    linked: peer.linked.load(Ordering::Acquire),
                    sent: own,
                    received: got,
                    ups: peer.counters.ups.read(),
                    downs: peer.counters.downs.read(),
                    dials: peer.counters.dials.read(),
                }
            })
            .collect();
        drop(guests);
        Stats {
            sent,
            received,
            loopback: counters.loopback.read(),
            inbox: stats::Queue::of(&self.inbox),
            events: stats::Queue::default(),
            accepted: counters.accepted.read(),
            accept_failures: counters.accept_failures.read(),
            kept: counters.kept.read(),
            pending: counters.pending.read(),
            knocks: counters.knocks.read(),
            rejected: counters.rejected.read(),
            ups: counters.ups.read(),
            downs: counters.downs.read(),
            dials: counters.dials.read(),
            dial_failures: counters.dial_failures.read(),
            turns: counters.turns.read(),
            connections: counters.connections.read(),
            peers,
        }
    }
}

fn check(frame_len: usize) -> Result<(), SendError> {
    match frame_len {
        0 => Err(SendError::Empty),
        1..=FRAME_BYTES_MAX => Ok(()),
        len => Err(SendError::TooLarge(len)),
    }
}

/// Whether a queue is given a copy of it: it would fill a run, or be written at once, and is copied before anything is locked.
fn is_long(frame_len: usize) -> bool {
    frame_len >= QUEUE_RUN_BYTES / 2
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
