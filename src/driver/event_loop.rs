//! The turn: who is ready, what comes in, what goes out, what follows from it, what is buried.
//!
//! The rules of who keeps which connection are not here; the roster decides, and this obeys.

use std::{
    fmt, io,
    io::IoSlice,
    mem,
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    doors::{Doors, Wish},
    journal::Journal,
    links::{Links, Phase},
    mio_net::MioNet,
    net::{Net, Ready, Stream},
    pump::{self, Pumped},
    routes::{Asker, Routes, Step},
};
use crate::{
    config::{Config, Dial, Idle, Knobs, Replace, Unknown},
    error::Reason,
    handler::{Event, Frame, Handler, Message},
    limits::{ACCEPTS_PER_TURN, CHALLENGE_MARGIN, INBOX_FRAMES, SLOW_TURN, STAGE_BYTES},
    manager::Handle,
    proto::{
        Action, Address, Assembler, Hello, LinkKey, Payload, PeerId, Roster, Rules, Sid, Verdict,
        encode,
    },
    share::{Ask, Doorbell, Inbox, Wire as _},
    shared::{Life, Listening, Peer, Shared, asked},
};

/// Errors of `accept(2)` in one turn after which a door rests: each may concern one connection only, all of them not.
const ACCEPT_ERRORS_MAX: usize = 8;

/// The loop, in the hands of the application: its thread turns it, and its handler is called where a frame is decoded.
///
/// [`run`](Self::run) turns it until it halts. [`turn`](Self::turn) is for an application with a loop of its own: the
/// `EventLoop` is [`AsFd`], readable when a turn has something to do, and [`timeout`](Self::timeout) says when one is due
/// without that.
pub struct EventLoop<H: Handler, N: Net = MioNet> {
    net: N,
    handler: H,
    handle: Handle,
    knobs: Knobs,
    own_addresses: Vec<Address>,
    roster: Roster,
    routes: Routes,
    links: Links<N::Stream>,
    doors: Doors,
    journal: Journal,
    /// The peers that the roster knows, by id.
    peers: Vec<Option<Arc<Peer>>>,
    members: usize,
    /// The read buffer that all links share.
    stage: Box<[u8]>,
    ready: Vec<Ready>,
    /// Links to be read, in the order in which they became readable.
    busy: Vec<LinkKey>,
    /// Links whose socket has room again, or whose connect has ended.
    writable: Vec<LinkKey>,
    /// What the roster wants done, carried out in one place.
    todo: Vec<Action>,
    notes: Vec<Arc<Peer>>,
    wishes: Vec<Wish>,
    halting: bool,
}

impl<H: Handler> EventLoop<H> {
    /// Opens the listening sockets. Frames to the own sid come back through the handler.
    ///
    /// A listening socket that cannot be opened is no error: the loop tries again, and tells by
    /// [`Event::ListenFailed`].
    ///
    /// # Errors
    ///
    /// When the system gives no event queue.
    pub fn new(config: Config, handler: H) -> io::Result<Self> {
        let net = MioNet::new(&config.knobs)?;
        Self::on_net(config, handler, net)
    }

    pub(crate) fn with_inbox(
        config: Config,
        handler: H,
        inbox: Arc<Inbox<Message>>,
        inbox_is_for_the_loop: bool,
    ) -> io::Result<Self> {
        let net = MioNet::new(&config.knobs)?;
        Self::build(config, handler, net, inbox, inbox_is_for_the_loop)
    }
}

impl<H: Handler> AsFd for EventLoop<H> {
    /// Readable (level-triggered) when a turn has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// The same on another network, a simulated one for instance.
    ///
    /// # Errors
    ///
    /// When a listening socket that was handed over cannot be used.
    pub fn on_net(config: Config, handler: H, net: N) -> io::Result<Self> {
        Self::build(
            config,
            handler,
            net,
            Arc::new(Inbox::new(INBOX_FRAMES)),
            true,
        )
    }

    fn build(
        config: Config,
        handler: H,
        mut net: N,
        inbox: Arc<Inbox<Message>>,
        inbox_is_for_the_loop: bool,
    ) -> io::Result<Self> {
        let Config {
            own,
            own_addresses,
            listen,
            listeners,
            members,
            knobs,
        } = config;
        let now = net.now();
        let rules = Rules {
            own,
            eager: knobs.dial == Dial::Eager,
            newest: knobs.replace == Replace::Newest,
            guests_max: match knobs.unknown {
                Unknown::Reject => 0,
                Unknown::Admit { max } => max,
            },
            observers_max: knobs.observers_max,
            backoff_min: knobs.backoff_min,
            backoff_max: knobs.backoff_max,
            patience: knobs.peer_dead_after + CHALLENGE_MARGIN,
        };
        let seed = knobs.seed.unwrap_or_else(random_seed);
        let mut roster = Roster::new(rules, members.iter().map(|member| member.sid), seed);
        let (mut routes, mut peers) = (Routes::default(), Vec::new());
        for member in &members {
            let id = roster
                .find(member.sid)
                .expect("the roster was made of the members");
            routes.insert(id, &member.addresses);
            peers.push(Arc::new(Peer::new(id, member.sid)));
        }
        let waker = net.waker();
        let bell = Doorbell::new(move || waker());
        let shared = Arc::new(Shared::new(
            own,
            peers.clone(),
            inbox,
            inbox_is_for_the_loop,
            bell,
        ));
        // Sockets that were handed over stand in for the addresses.
        let addresses = if listeners.is_empty() {
            listen
        } else {
            Vec::new()
        };
        let mut doors = Doors::new(addresses, knobs.listen_tries, knobs.listen_pause, now);
        let wishes = doors.adopt(&mut net, listeners)?;
        let mut todo = Vec::new();
        roster.on_start(&mut todo);
        let mut event_loop = Self {
            net,
            handler,
            handle: Handle::new(shared),
            knobs,
            own_addresses,
            roster,
            routes,
            links: Links::new(),
            doors,
            journal: Journal::default(),
            members: peers.len(),
            peers: peers.into_iter().map(Some).collect(),
            stage: vec![0; STAGE_BYTES].into_boxed_slice(),
            ready: Vec::new(),
            busy: Vec::new(),
            writable: Vec::new(),
            todo,
            notes: Vec::new(),
            wishes,
            halting: false,
        };
        event_loop.decide(now);
        event_loop.bury();
        Ok(event_loop)
    }

    /// The way to this loop from any thread.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The network under the loop.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// Turns until the loop is halted.
    ///
    /// # Errors
    ///
    /// When the system's event queue fails; the loop cannot go on then.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// How long a turn may wait at most until something is due; `None`: for ever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if !self.busy.is_empty() || self.doors.knocked().next().is_some() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.roster.deadline(),
            self.links.deadline(),
            self.routes.deadline(),
            self.doors.deadline(),
        ];
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(self.net.now()))
    }

    /// One round: waits until something is ready, for at most `timeout` (`None`: for as long as nothing is due), and does
    /// what there is to do. Returns `false` once the loop has halted.
    ///
    /// # Errors
    ///
    /// When the system's event queue fails; the loop cannot go on then.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.halting {
            return Ok(false);
        }
        // Nap.
        self.nap(timeout)?;
        let now = self.net.now();

        // Note who is ready.
        self.note();

        // In: connections first, so that a member's initial message is read before its place is needed.
        self.accept(now);
        self.read(now);

        // Out.
        self.answer(now);
        self.write(now);

        // Decide, then do.
        self.decide(now);

        // Bury: no place in the slab is given again inside a turn.
        self.bury();
        self.finish(now);
        Ok(!self.halting)
    }

    fn nap(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.ready.clear();
        self.handle.shared().set_loop_thread(thread::current().id());
        let due = self.timeout();
        let timeout = match (timeout, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Idle::Spin { for_at_most } = self.knobs.idle {
            let until =
                self.net.now() + timeout.map_or(for_at_most, |timeout| timeout.min(for_at_most));
            loop {
                self.net.wait(Some(Duration::ZERO), &mut self.ready)?;
                if !self.ready.is_empty() || timeout == Some(Duration::ZERO) {
                    return Ok(());
                }
                if self.net.now() >= until {
                    break;
                }
                thread::yield_now();
            }
        }
        self.net.wait(timeout, &mut self.ready)
    }

    fn note(&mut self) {
        for ready in self.ready.drain(..) {
            let Ready::Link {
                token,
                readable,
                writable,
                ended,
            } = ready
            else {
                if let Ready::Door(door) = ready {
                    self.doors.on_knocked(door);
                }
                continue;
            };
            let Some((key, link)) = self.links.at(token) else {
                continue;
            };
            link.ended |= ended;
            if readable && !mem::replace(&mut link.busy, true) {
                self.busy.push(key);
            }
            if writable {
                self.writable.push(key);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        let doors: Vec<usize> = self.doors.knocked().collect();
        for door in doors {
            let mut errors = 0;
            for _ in 0..ACCEPTS_PER_TURN {
                match self.net.accept(door) {
                    Ok((stream, addr)) => self.welcome(stream, addr, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.doors.on_empty(door);
                        break;
                    }
                    Err(error) => {
                        // Most errors concern the one connection that is already gone again: accept(2).
                        errors += 1;
                        if is_exhaustion(&error) || errors >= ACCEPT_ERRORS_MAX {
                            self.doors.on_exhausted(door, now);
                            break;
                        }
                    }
                }
            }
        }
    }

    fn welcome(&mut self, stream: N::Stream, addr: SocketAddr, now: Instant) {
        self.handle.shared().counters.accepted.add(1);
        if self.links.greeting() >= self.knobs.pending_max {
            let oldest = self
                .links
                .oldest_greeting()
                .expect("there are as many as allowed");
            self.end(oldest, Reason::Evicted, now);
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
        let key =
            self.links
                .insert_greeting(Arc::new(stream), addr, now + self.knobs.handshake_timeout);
        self.look_at(key);
    }

    /// Has the link read in this turn or the next: its edge may have come already.
    fn look_at(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            if !mem::replace(&mut link.busy, true) {
                self.busy.push(key);
            }
        }
    }

    fn read(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.busy);
        for key in round.drain(..) {
            let Some(link) = self.links.get_mut(key) else {
                continue;
            };
            link.busy = false;
            match &link.phase {
                Phase::Open { .. } => self.pump(key, now),
                Phase::Greeting { .. } => self.greet(key, now),
                Phase::Knocking { .. } => self.hang_on(key, now),
                // A challenger is not read, but it is let go when it leaves.
                Phase::Named { .. } if link.ended => self.end(key, Reason::ClosedEarly, now),
                Phase::Named { .. } | Phase::Dialing { .. } | Phase::Buried => {}
            }
        }
        // Those that have more to read stand in `busy` again; the room is kept.
        round.append(&mut self.busy);
        self.busy = round;
    }

    fn pump(&mut self, key: LinkKey, now: Instant) {
        let Self {
            links,
            peers,
            handler,
            handle,
            stage,
            roster,
            ..
        } = self;
        let Some(link) = links.get_mut(key) else {
            return;
        };
        let Phase::Open {
            peer: id,
            frames,
            held,
            proved,
        } = &mut link.phase
        else {
            return;
        };
        let (id, peer) = (
            *id,
            peers[id.0 as usize]
                .as_ref()
                .expect("an open link has a peer"),
        );
        let (mut count, mut bytes) = (0, 0);
        let pumped = pump::frames(&*link.stream, frames, held, stage, link.ended, |payload| {
            count += 1;
            let frame = Frame(payload);
            bytes += frame.len() as u64;
            handler.on_frame(peer.sid, frame, handle);
        });
        if count > 0 {
            peer.counters.frames.add(count);
            peer.counters.bytes.add(bytes);
            handler.on_burst_end(handle);
            if !mem::replace(proved, true) {
                roster.on_proof(id, key);
            }
        }
        match pumped {
            Pumped::Dry => {}
            Pumped::More => self.look_at(key),
            Pumped::End(reason) => self.end(key, reason, now),
        }
    }

    /// Reads on at the initial message of an accepted connection.
    fn greet(&mut self, key: LinkKey, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Phase::Greeting { heard, .. } = &mut link.phase else {
            return;
        };
        match pump::hello(&*link.stream, heard) {
            Ok(None) => {}
            Ok(Some(hello)) => {
                let (held, addr) = (mem::take(heard), link.addr);
                self.introduce(key, &hello, held, addr, now);
            }
            Err(Pumped::End(reason)) => self.end(key, reason, now),
            Err(Pumped::Dry | Pumped::More) => {}
        }
    }

    /// An accepted connection has named itself.
    fn introduce(
        &mut self,
        key: LinkKey,
        hello: &Hello,
        held: Vec<u8>,
        addr: SocketAddr,
        now: Instant,
    ) {
        let known = self.roster.find(hello.sid);
        let at_home = known.is_some_and(|id| self.routes.is_home(id, addr.ip()));
        let reachable = !hello.addresses.is_empty();
        let verdict = self
            .roster
            .on_hello(hello.sid, key, at_home, reachable, now, &mut self.todo);
        let sid = if hello.sid == Sid::OBSERVER {
            None
        } else {
            Some(hello.sid)
        };
        // A guest's route is what it said last; a member's is what the configuration says.
        let guest = self
            .roster
            .find(hello.sid)
            .filter(|id| id.0 as usize >= self.members);
        if let Some(id) =
            guest.filter(|id| reachable && (known.is_none() || self.roster.link(*id).is_none()))
        {
            self.routes.insert(id, &hello.addresses);
        }
        match verdict {
            Verdict::Keep(peer) | Verdict::Wait(peer) => {
                self.links.advance(key, Phase::Named { peer, held }, None);
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
    fn hang_on(&mut self, key: LinkKey, now: Instant) {
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

    /// Looks at what other threads have left.
    fn answer(&mut self, now: Instant) {
        while let Some(found) = self.net.found() {
            let ips = found.answer.unwrap_or_default();
            match self.routes.on_found(found.ticket, &ips) {
                Some((Asker::Place(peer, _), Some(step))) => {
                    self.step(peer, step, Reason::NoAddress, now)
                }
                Some((Asker::Door(door), _)) => {
                    self.doors
                        .on_found(&mut self.net, door, ips, now, &mut self.wishes);
                }
                Some((Asker::Place(..), None)) | None => {}
            }
        }
        let shared = Arc::clone(self.handle.shared());
        if !shared.bell.lower() {
            return;
        }
        let mut notes = mem::take(&mut self.notes);
        shared.notes.take(&mut notes);
        for peer in notes.drain(..) {
            let asked = peer.take_asked();
            let known = self.peers.get(peer.id.0 as usize).and_then(Option::as_ref);
            if !known.is_some_and(|known| Arc::ptr_eq(known, &peer)) {
                continue;
            }
            if asked & asked::BROKEN != 0 {
                self.give_up(peer.id, now);
            }
            if asked & asked::RESUME != 0 {
                self.see_to(peer.id, peer.outbox.resume(), now);
            }
            if asked & asked::INITIATE != 0 {
                self.roster.initiate(peer.id, &mut self.todo);
            }
            if asked & asked::LINK != 0 {
                self.roster.want(peer.id, &mut self.todo);
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
        self.halting = shared.halt.load(Ordering::Acquire);
    }

    /// Hands over what the application sent to this server itself.
    fn loop_back(&mut self, shared: &Shared) {
        let mut any = false;
        // As many as can wait: those that the handler sends meanwhile have their turn in the next turn.
        for _ in 0..INBOX_FRAMES {
            let Ok(message) = shared.inbox.try_pop() else {
                break;
            };
            self.handler.on_frame(
                message.from,
                Frame(Payload::Owned(message.payload)),
                &self.handle,
            );
            any = true;
        }
        if any {
            self.handler.on_burst_end(&self.handle);
        }
    }

    /// Goes on writing where there is room again, and ends connects.
    fn write(&mut self, now: Instant) {
        let mut round = mem::take(&mut self.writable);
        for key in round.drain(..) {
            match self.links.get_mut(key).map(|link| &link.phase) {
                Some(Phase::Open { peer, .. }) => {
                    let id = *peer;
                    let ask = self.peer(id).outbox.resume();
                    self.see_to(id, ask, now);
                }
                Some(Phase::Dialing { .. }) => self.on_connected(key, now),
                _ => {}
            }
        }
        self.writable = round;
    }

    /// What an outbox has left for the loop to do.
    fn see_to(&mut self, id: PeerId, ask: Ask, now: Instant) {
        match ask {
            Ask::Nothing => {}
            Ask::Resume => self.handle.shared().ask(self.peer(id), asked::RESUME),
            Ask::Link => self.roster.want(id, &mut self.todo),
            Ask::Broken(_) => self.give_up(id, now),
        }
    }

    /// Nothing can be written to this peer's link any more: what it said before is read, then it ends.
    fn give_up(&mut self, id: PeerId, now: Instant) {
        let Some(key) = self.roster.link(id) else {
            return;
        };
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.ended = true;
        self.pump(key, now);
        self.end(key, Reason::Io(io::ErrorKind::BrokenPipe), now);
    }

    /// A connect has ended, one way or the other.
    fn on_connected(&mut self, key: LinkKey, now: Instant) {
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
        // In one write: an acceptor may take a short read for a short message (InitialMessage.parse of ZooKeeper).
        let stream = Arc::clone(&link.stream);
        let challenge = encode(self.knobs.challenge, self.handle.sid(), &self.advertised());
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

    /// The own addresses as others can use them: a port that the kernel chose takes the place of 0.
    fn advertised(&self) -> Vec<Address> {
        let mut listening = self.handle.listening().into_iter();
        let bound = |listening: Option<Listening>| match listening {
            Some(Listening::Open(at)) => at.port(),
            _ => 0,
        };
        self.own_addresses
            .iter()
            .map(|address| match (address.port(), bound(listening.next())) {
                (0, port) => Address::new(address.host(), port),
                _ => address.clone(),
            })
            .collect()
    }

    /// Gives up what is overdue, opens doors, asks the roster, and carries out what it wants.
    fn decide(&mut self, now: Instant) {
        while let Some(key) = self.links.overdue(now) {
            let connecting = matches!(
                self.links.get_mut(key).map(|link| &link.phase),
                Some(Phase::Dialing { .. })
            );
            let reason = if connecting {
                Reason::ConnectTimeout
            } else {
                Reason::HandshakeTimeout
            };
            self.end(key, reason, now);
        }
        while let Some((peer, step)) = self.routes.overdue(now) {
            self.step(peer, step, Reason::NoAddress, now);
        }
        self.doors.tick(&mut self.net, now, &mut self.wishes);
        let mut wishes = mem::take(&mut self.wishes);
        for wish in wishes.drain(..) {
            match wish {
                Wish::Tell(event) => self.tell(event, now),
                Wish::Note(door, listening) => self.handle.shared().set_listening(door, listening),
                Wish::Lookup(door, host) => {
                    let ticket = self.routes.ticket(Asker::Door(door));
                    self.net.lookup(ticket, &host);
                }
            }
        }
        self.wishes = wishes;
        self.roster.tick(now, &mut self.todo);
        // Carrying out may add to the list: a dial can fail at once.
        let mut next = 0;
        while let Some(action) = self.todo.get(next).cloned() {
            next += 1;
            self.carry_out(action, now);
        }
        self.todo.clear();
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Meet { peer: id, sid } => {
                let peer = Arc::new(Peer::new(id, sid));
                let index = id.0 as usize;
                if self.peers.len() <= index {
                    self.peers.resize(index + 1, None);
                }
                self.handle.shared().meet(Arc::clone(&peer));
                self.peers[index] = Some(peer);
            }
            Action::Part { peer: id } => {
                self.routes.remove(id);
                if let Some(peer) = self.peers[id.0 as usize].take() {
                    self.handle.shared().part(&peer);
                    self.journal.forget(peer.sid);
                }
            }
            Action::Dial { peer } => {
                self.handle.shared().counters.dials.add(1);
                self.peer(peer).counters.dials.add(1);
                let step = self.routes.start(peer, now);
                self.step(peer, step, Reason::NoAddress, now);
            }
            Action::Cancel { peer } => {
                if let Some(key) = self.routes.finish(peer) {
                    self.links.bury(key);
                }
            }
            Action::Up { peer, link } => self.raise(peer, link, now),
            Action::Close { link, reason } => self.end(link, reason, now),
        }
    }

    /// Does what a dial needs next, until something is underway or nothing is left.
    fn step(&mut self, id: PeerId, mut step: Step, mut why: Reason, now: Instant) {
        loop {
            let error = match step {
                Step::Lookup(questions) => {
                    for (ticket, host) in questions {
                        self.net.lookup(ticket, &host);
                    }
                    return;
                }
                Step::Connect(addr) => match self.connect(id, addr, now) {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Step::Exhausted => {
                    self.handle.shared().counters.dial_failures.add(1);
                    let sid = self.peer(id).sid;
                    self.tell(Event::DialFailed { sid, reason: why }, now);
                    self.roster.on_dial_failed(id, now, &mut self.todo);
                    return;
                }
            };
            why = Reason::of_io(&error);
            step = self.routes.next(id);
        }
    }

    fn connect(&mut self, id: PeerId, addr: SocketAddr, now: Instant) -> io::Result<()> {
        let stream = self.net.dial(addr)?;
        self.net.watch(&stream, self.links.next_index())?;
        let key =
            self.links
                .insert_dialing(Arc::new(stream), addr, id, now + self.knobs.connect_timeout);
        self.routes.on_connecting(id, key);
        Ok(())
    }

    /// A connection becomes the link of its peer.
    fn raise(&mut self, id: PeerId, key: LinkKey, now: Instant) {
        let dialed = !self.roster.knocks(id);
        let peer = Arc::clone(self.peer(id));
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (stream, addr) = (Arc::clone(&link.stream), link.addr);
        let Phase::Named { held, .. } = &mut link.phase else {
            unreachable!("a link has a name before it comes up")
        };
        let phase = Phase::Open {
            peer: id,
            frames: Assembler::default(),
            held: mem::take(held),
            proved: false,
        };
        self.links.advance(key, phase, None);
        peer.linked.store(true, Ordering::Release);
        peer.counters.ups.add(1);
        self.handle.shared().counters.ups.add(1);
        // Before anybody is told: who sends on that word finds the link.
        let ask = peer.outbox.attach(stream);
        self.tell(
            Event::Up {
                sid: peer.sid,
                dialed: dialed && peer.sid.0 >= 0,
                addr,
            },
            now,
        );
        self.see_to(id, ask, now);
        // What came while it had no name was announced by an edge that is gone.
        self.look_at(key);
    }

    /// Ends a connection for this reason, and does what its phase asks for.
    fn end(&mut self, key: LinkKey, reason: Reason, now: Instant) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let addr = link.addr;
        match self.links.bury(key) {
            Some(Phase::Dialing { peer }) => {
                let step = self.routes.next(peer);
                self.step(peer, step, reason, now);
            }
            Some(Phase::Knocking { peer }) => {
                self.routes.finish(peer);
                self.roster.on_knocked(peer, now);
            }
            Some(Phase::Greeting { .. }) => self.tell(
                Event::Rejected {
                    addr,
                    sid: None,
                    reason,
                },
                now,
            ),
            Some(Phase::Named { peer, .. }) => {
                let sid = self.peers[peer.0 as usize].as_ref().map(|peer| peer.sid);
                self.tell(Event::Rejected { addr, sid, reason }, now);
                self.roster.on_down(peer, key, now, &mut self.todo);
            }
            Some(Phase::Open { peer: id, .. }) => {
                let peer = Arc::clone(self.peer(id));
                peer.outbox.detach();
                peer.linked.store(false, Ordering::Release);
                self.tell(
                    Event::Down {
                        sid: peer.sid,
                        reason,
                    },
                    now,
                );
                self.roster.on_down(id, key, now, &mut self.todo);
                // Something still waits for this peer: with `Dial::OnDemand`, that is the demand.
                if !peer.outbox.is_empty() && self.roster.find(peer.sid) == Some(id) {
                    self.roster.want(id, &mut self.todo);
                }
            }
            Some(Phase::Buried) | None => {}
        }
    }

    fn bury(&mut self) {
        for link in self.links.exhume() {
            self.net.unwatch(&link.stream);
            // A thread that is just writing holds the stream a moment longer; the connection ends now.
            let _ = link.stream.shutdown(Shutdown::Both);
        }
    }

    fn finish(&mut self, now: Instant) {
        let shared = self.handle.shared();
        shared.counters.turns.add(1);
        shared.counters.connections.set(self.links.len() as u64);
        if self.halting {
            self.close(now);
            return;
        }
        let took = self.net.now().saturating_duration_since(now);
        if took > SLOW_TURN {
            self.tell(Event::SlowTurn { took }, now);
        }
    }

    /// Halts: every socket is closed when this returns.
    fn close(&mut self, now: Instant) {
        self.net.close_doors();
        for key in self.links.keys() {
            if let Some(Phase::Open { peer, .. }) = self.links.bury(key) {
                let peer = Arc::clone(self.peer(peer));
                peer.outbox.detach();
                self.tell(
                    Event::Down {
                        sid: peer.sid,
                        reason: Reason::Halted,
                    },
                    now,
                );
            }
        }
        self.bury();
        self.handle.shared().counters.connections.set(0);
        self.tell(Event::Halted, now);
        self.handle.shared().end(Life::Halted);
    }

    fn peer(&self, id: PeerId) -> &Arc<Peer> {
        self.peers[id.0 as usize]
            .as_ref()
            .expect("the roster and the loop know the same peers")
    }

    /// Counts, logs and hands over what has happened.
    fn tell(&mut self, event: Event, now: Instant) {
        let counters = &self.handle.shared().counters;
        match &event {
            Event::Down { reason, .. } => counters.downs.count(reason.name()),
            Event::Rejected { reason, .. } => counters.rejected.count(reason.name()),
            _ => {}
        }
        self.journal.write(&event, now);
        self.handler.on_event(&event, &self.handle);
    }
}

impl<H: Handler, N: Net> Drop for EventLoop<H, N> {
    /// Also when a handler panics: nobody waits for a loop that is gone.
    fn drop(&mut self) {
        self.handle.shared().end(Life::Died);
    }
}

impl<H: Handler, N: Net> fmt::Debug for EventLoop<H, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("sid", &self.handle.sid())
            .field("connections", &self.links.len())
            .finish_non_exhaustive()
    }
}

/// Whether the machine or the process is out of descriptors or memory: waiting may help, the next connection will not.
fn is_exhaustion(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        105
    } else {
        55
    };
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)
    )
}

/// A seed that differs between processes and between loops of one: the hash keys of the standard library are random.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
