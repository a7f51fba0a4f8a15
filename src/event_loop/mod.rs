//! The turn: who is ready, what comes in, what goes out, what follows from it, what is buried.
//!
//! The rules of who keeps which connection are not here; the roster decides, and this obeys.

mod doors;
mod inward;
mod journal;
mod links;
mod obey;
mod outward;
mod pump;
mod routes;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Dial, Idle, Knobs, Replace, Unknown},
    event::Event,
    handle::Handle,
    handler::Handler,
    inbox::{Burst, Inbox},
    limits::{
        CHALLENGE_MARGIN, DROPPED_SENDERS_MAX, DROPS_TOLD_EVERY, EVENTS_PER_TURN, HOT_READS,
        HOT_TURNS_MAX, SLOW_TURN, STAGE_BYTES,
    },
    net::{MioNet, Net, Ready},
    proto::{Action, Address, Brought, LinkKey, PeerId, Roster, Rules},
    shared::{Life, Peer, Shared},
    sync::Doorbell,
};
use doors::{Doors, Wish};
use journal::Journal;
use links::Links;
use routes::{Asker, Routes};

/// The loop, in the hands of the application: its thread turns it, and its handler is called where a frame is decoded.
///
/// [`run`](Self::run) turns it until it halts. [`turn`](Self::turn) is for an application with a loop of its own: the
/// `EventLoop` is [`AsFd`], readable when a turn has something to do, and [`timeout`](Self::timeout) says when one is due
/// without that.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Sid};
///
/// /// Answers each frame where it is decoded, and halts after ten.
/// struct Echo(u32);
///
/// impl Handler for Echo {
///     fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
///         self.0 += 1;
///         if self.0 == 10 {
///             handle.request_halt();
///         } else {
///             // Never blocks. An error means that nobody is there to hear the answer.
///             let _ = handle.to_send(from, frame.into_bytes());
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Alone, it talks to itself.
/// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").build()?;
/// let mut event_loop = EventLoop::new(config, Echo(0))?;
/// event_loop.handle().to_send(Sid(1), "hello")?;
/// event_loop.run()?;
/// assert_eq!(event_loop.handler().0, 10);
/// # Ok(())
/// # }
/// ```
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
    /// The peers that the roster has announced, until it parts with them.
    peers: BTreeMap<PeerId, Arc<Peer>>,
    /// The read buffer that all links share.
    stage: Box<[u8]>,
    ready: Vec<Ready>,
    /// Links to be read, in the order in which they became readable.
    busy: Vec<LinkKey>,
    /// Links that are not read for as long as the handler is not ready for them.
    paused: BTreeSet<LinkKey>,
    /// When dropped messages may be reported again.
    drops_due: Instant,
    /// The link that has brought frames last: a loop that spins looks there first.
    hot: Option<LinkKey>,
    /// Turns in a row that found something there, and did not ask who else is ready.
    hot_turns: u32,
    /// Links whose socket has room again, or whose connect has ended.
    writable: Vec<LinkKey>,
    /// What the roster wants done, carried out in one place.
    todo: Vec<Action>,
    notes: Vec<Arc<Peer>>,
    wishes: Vec<Wish>,
    /// True exactly when another thread has woken the loop for this turn.
    woken: bool,
    /// Who turned last.
    turner: Option<ThreadId>,
    /// True exactly when the last turn took as many events as one may, or did not ask for any, so that more may wait.
    /// Whoever nests this loop in another that is edge-triggered, as mio is, has had his edge.
    crowded: bool,
    /// True exactly when the loop was asked to halt.
    halting: bool,
    /// True exactly when a turn has begun and not come to its end.
    turning: bool,
}

impl<H: Handler> EventLoop<H> {
    /// Opens the listening sockets, of which the handler hears before this returns, and begins to dial. Frames to the own
    /// sid come back through the handler.
    ///
    /// A listening socket that cannot be opened is no error: the loop tries again, and tells by
    /// [`Event::ListenFailed`].
    ///
    /// # Errors
    ///
    /// When the system gives no event queue, or a listening socket that was handed over cannot be used.
    pub fn new(config: Config, handler: H) -> io::Result<Self> {
        let net = MioNet::new(&config.knobs)?;
        Self::on_net(config, handler, net)
    }

    pub(crate) fn with_inbox(
        config: Config,
        handler: H,
        inbox: Arc<Inbox<Burst>>,
        inbox_is_for_the_loop: bool,
    ) -> io::Result<Self> {
        let net = MioNet::new(&config.knobs)?;
        Self::build(config, handler, net, inbox, inbox_is_for_the_loop)
    }
}

impl<H: Handler> AsFd for EventLoop<H> {
    /// Readable (level-triggered) when a turn has something to do. Who watches it edge-triggered turns the loop also for as
    /// long as [`timeout`](EventLoop::timeout) is zero.
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
        let knobs = &config.knobs;
        let inbox = Arc::new(Inbox::new(knobs.inbox_room(), knobs.inbox_full));
        Self::build(config, handler, net, inbox, true)
    }

    fn build(
        config: Config,
        handler: H,
        mut net: N,
        inbox: Arc<Inbox<Burst>>,
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
            if let Some(id) = roster.find(member.sid) {
                routes.insert(id, &member.addresses);
                peers.push(Arc::new(Peer::new(id, member.sid, knobs.outbox)));
            }
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
        roster.on_start(now, &mut todo);
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
            peers: peers.into_iter().map(|peer| (peer.id, peer)).collect(),
            stage: vec![0; STAGE_BYTES].into_boxed_slice(),
            ready: Vec::new(),
            busy: Vec::new(),
            paused: BTreeSet::new(),
            drops_due: now,
            hot: None,
            hot_turns: 0,
            writable: Vec::new(),
            todo,
            notes: Vec::new(),
            wishes,
            woken: false,
            turner: None,
            crowded: false,
            halting: false,
            turning: false,
        };
        // Until another thread turns it: the loop's thread must not wait for what only it can bring about.
        let thread = thread::current().id();
        event_loop.turner = Some(thread);
        event_loop.handle.shared().set_loop_thread(thread);
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
    /// Those of [`turn`](Self::turn).
    pub fn run(&mut self) -> io::Result<()> {
        while self.round(None)? {}
        Ok(())
    }

    /// How long a turn may wait at most until something is due; `None`: for ever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if self.crowded || self.has_more() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.roster.deadline(),
            self.links.deadline(),
            self.routes.deadline(),
            self.doors.deadline(),
            self.drops_due(),
        ];
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(self.net.now()))
    }

    /// One round: waits until something is ready, for at most `timeout` (`None`: for as long as nothing is due), and does
    /// what there is to do. Returns `false` once the loop has halted.
    ///
    /// # Errors
    ///
    /// When the system's event queue fails, or an earlier turn was cut off, by that or by a panic of the handler. The loop
    /// has died then, as everybody who holds a handle is told.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let goes_on = self.round(timeout)?;
        // Nobody knows when the next one comes: what was left for it meanwhile must make it due.
        self.handle.shared().bell.hand_over();
        Ok(goes_on)
    }

    /// The turn.
    fn round(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.turning {
            // What it was about to do is lost, links that were to be read for instance.
            self.handle.shared().end(Life::Died);
            return Err(io::Error::other("an earlier turn was cut off"));
        }
        if self.halting {
            return Ok(false);
        }
        self.turning = true;

        // Nap.
        if let Err(error) = self.nap(timeout) {
            self.handle.shared().end(Life::Died);
            return Err(error);
        }
        // Others may be ready as well.
        self.crowded = self.hot_turns > 0 || self.ready.len() >= EVENTS_PER_TURN;
        if self.is_done() {
            self.handle.shared().counters.turns.add(1);
            self.turning = false;
            return Ok(true);
        }
        let now = self.net.now();

        // Note who is ready.
        self.note();
        if !self.crowded {
            self.doors.on_looked(now);
        }

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
        self.turning = false;
        Ok(!self.halting)
    }

    fn nap(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.ready.clear();
        let turner = thread::current().id();
        if self.turner.replace(turner) != Some(turner) {
            self.handle.shared().turns_here();
        }
        let due = self.timeout();
        let mut timeout = match (timeout, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.handle.shared().bell.rise();
        if let Idle::Spin { for_at_most } = self.knobs.idle {
            let start = self.net.now();
            loop {
                if self.read_hot() {
                    return Ok(());
                }
                self.net.wait(Some(Duration::ZERO), &mut self.ready)?;
                let spun = self.net.now().saturating_duration_since(start);
                if !self.ready.is_empty()
                    || self.handle.shared().bell.is_rung()
                    || timeout.is_some_and(|timeout| spun >= timeout)
                {
                    return Ok(());
                }
                if spun >= for_at_most {
                    // What was spun away is not waited for again.
                    timeout = timeout.map(|timeout| timeout.saturating_sub(spun));
                    break;
                }
                thread::yield_now();
            }
        }
        if timeout != Some(Duration::ZERO) && !self.handle.shared().bell.doze() {
            timeout = Some(Duration::ZERO);
        }
        let waited = self.net.wait(timeout, &mut self.ready);
        self.handle.shared().bell.rise();
        waited
    }

    /// Reads the link that is most likely to have something, a few times, without asking first whether it has: who waits for
    /// an answer is spared that request. Returns whether something came, and so the turn has begun.
    fn read_hot(&mut self) -> bool {
        let before = mem::take(&mut self.hot_turns);
        let Some(key) = self.hot.filter(|_| before < HOT_TURNS_MAX) else {
            // Others may be ready as well.
            return false;
        };
        for _ in 0..HOT_READS {
            self.hot = None;
            if let Some(reason) = self.pump(key) {
                let now = self.net.now();
                self.end(key, reason, now);
                self.hot = None;
            } else if self.hot.is_none() {
                continue;
            }
            self.hot_turns = before + 1;
            return true;
        }
        self.hot = self.links.get_mut(key).map(|_| key);
        false
    }

    /// Whether the turn has brought frames of the hot link, and knows of nothing else to do. The answer of an application that
    /// turns the loop waits for the end of the turn, so that the rest of it, and even a look at the clock, would be felt.
    fn is_done(&self) -> bool {
        self.hot_turns > 0
            && self.hot.is_some()
            && !self.has_more()
            && !self.handle.shared().bell.is_rung()
    }

    /// Whether a link or a listening socket is known to hold more than was taken.
    fn has_more(&self) -> bool {
        !self.busy.is_empty() || self.doors.has_pending()
    }

    fn note(&mut self) {
        self.woken = false;
        for ready in self.ready.drain(..) {
            let Ready::Link {
                token,
                readable,
                writable,
                ended,
            } = ready
            else {
                match ready {
                    Ready::Door(door) => self.doors.on_knocked(door),
                    _ => self.woken = true,
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

    /// Gives up what is overdue, opens doors, asks the roster, and carries out what it wants.
    fn decide(&mut self, now: Instant) {
        while let Some(key) = self.links.overdue(now) {
            self.on_overdue(key, now);
        }
        while let Some((peer, step)) = self.routes.overdue(now) {
            self.step(peer, step, now);
        }
        self.doors.tick(&mut self.net, now, &mut self.wishes);
        if let Some(listening) = self.doors.changed() {
            self.handle.shared().set_listening(listening);
        }
        let mut wishes = mem::take(&mut self.wishes);
        for wish in wishes.drain(..) {
            match wish {
                Wish::Tell(event) => self.tell(event, now),
                Wish::Lookup(door, host) => {
                    let ticket = self.routes.ticket(Asker::Door(door));
                    self.net.lookup(ticket, &host);
                }
            }
        }
        self.wishes = wishes;
        self.tell_drops(now);
        let (links, routes, paused) = (&mut self.links, &self.routes, &self.paused);
        let brought = |id, link| match (routes.is_asking(id), paused.contains(&link)) {
            (true, _) => Brought::Unclear,
            // It is the application that does not read what it brings.
            (_, true) => Brought::More,
            (false, false) => links.brought(link),
        };
        self.roster.tick(now, brought, &mut self.todo);
        // Carrying out may add to the list: a dial can fail at once.
        let mut next = 0;
        while let Some(action) = self.todo.get(next).cloned() {
            next += 1;
            self.carry_out(action, now);
        }
        self.todo.clear();
    }

    /// When dropped messages are to be reported, if some are.
    fn drops_due(&self) -> Option<Instant> {
        let has_dropped = self.handle.shared().inbox.has_dropped();
        has_dropped.then_some(self.drops_due)
    }

    /// Reports messages that the inbox has dropped.
    fn tell_drops(&mut self, now: Instant) {
        if self.drops_due().is_none_or(|at| at > now) {
            return;
        }
        self.drops_due = now + DROPS_TOLD_EVERY;
        let dropped = self.handle.shared().inbox.take_dropped();
        let messages = dropped.values().sum();
        let mut senders: Vec<_> = dropped
            .into_iter()
            .map(|(owner, count)| (owner.sid(), count))
            .collect();
        senders.sort_by_key(|(_, count)| Reverse(*count));
        senders.truncate(DROPPED_SENDERS_MAX);
        self.tell(Event::Dropped { messages, senders }, now);
    }

    fn finish(&mut self, now: Instant) {
        let shared = self.handle.shared();
        shared.counters.turns.add(1);
        shared.counters.connections.set(self.links.len() as u64);
        shared.counters.pending.set(self.links.pending() as u64);
        if self.halting {
            self.close(now);
            return;
        }
        let took = self.net.now().saturating_duration_since(now);
        if took > SLOW_TURN {
            self.tell(Event::SlowTurn { took }, now);
        }
    }

    /// The peer of this id, for as long as it is known.
    fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
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
    /// Also when a handler panics: nobody waits for a loop that is gone. After a halt this changes nothing.
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

/// A seed that differs between processes and between loops of one: the hash keys of the standard library are random.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
