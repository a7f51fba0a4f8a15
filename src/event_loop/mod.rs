//! The turn: who is ready, what comes in, what goes out, what follows from it, what is buried.
//!
//! The rules of who keeps which connection are not here; the roster decides, and this obeys.

mod accept;
mod actions;
mod connect;
mod connections;
mod end;
mod endpoints;
mod event_log;
mod handshake;
mod listeners;
mod poll;
mod read;
mod read_stream;
mod requests;
mod start;
mod write;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Options},
    event::Event,
    handle::Handle,
    handler::Handler,
    inbox::{Chunk, Inbox},
    limits::{DROPPED_SENDERS_MAX, DROPS_TOLD_EVERY, EVENTS_PER_TURN, SLOW_TURN},
    net::{MioNet, Net, Ready},
    proto::{Action, Address, Brought, ConnectionKey, PeerId, Roster},
    shared::{Life, Peer},
};
use connections::Connections;
use endpoints::{Endpoints, LookupOwner};
use event_log::EventLog;
use listeners::{ListenerAction, Listeners};

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
    options: Options,
    own_addresses: Vec<Address>,
    roster: Roster,
    endpoints: Endpoints,
    connections: Connections<N::Stream>,
    listeners: Listeners,
    event_log: EventLog,
    /// The peers that the roster has announced, until it parts with them.
    peers: BTreeMap<PeerId, Arc<Peer>>,
    /// The read buffer that all links share.
    read_buffer: Box<[u8]>,
    ready: Vec<Ready>,
    /// Connections to be read, in the order in which they became readable.
    busy: Vec<ConnectionKey>,
    /// Connections that are not read for as long as the handler is not ready for them.
    paused: BTreeSet<ConnectionKey>,
    /// When dropped messages may be reported again.
    drops_due: Instant,
    /// The link that has brought frames last: a loop that spins looks there first.
    hot: Option<ConnectionKey>,
    /// Turns in a row that found something there, and did not ask who else is ready.
    hot_turns: u32,
    /// Connections whose socket has room again, or whose connect has ended.
    writable: Vec<ConnectionKey>,
    /// What the roster wants done, carried out in one place.
    todo: Vec<Action>,
    requests: Vec<Arc<Peer>>,
    listener_actions: Vec<ListenerAction>,
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
        let net = MioNet::new(&config.options)?;
        Self::on_net(config, handler, net)
    }

    pub(crate) fn with_inbox(
        config: Config,
        handler: H,
        inbox: Arc<Inbox<Chunk>>,
        inbox_is_for_the_loop: bool,
    ) -> io::Result<Self> {
        let net = MioNet::new(&config.options)?;
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
        let options = &config.options;
        let inbox = Arc::new(Inbox::new(options.inbox_room(), options.inbox_full));
        Self::build(config, handler, net, inbox, true)
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
            self.connections.deadline(),
            self.endpoints.deadline(),
            self.listeners.deadline(),
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
        self.handle.shared().wake_flag.rearm();
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

        // Wait.
        if let Err(error) = self.poll(timeout) {
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
            self.listeners.on_looked(now);
        }

        // In: connections first, so that a member's initial message is read before its place is needed.
        self.accept(now);
        self.read(now);

        // Out.
        self.answer(now);
        self.write(now);

        // Decide, then do.
        self.decide(now);

        // Reap: no place in the slab is given again inside a turn.
        self.reap();
        self.finish(now);
        self.turning = false;
        Ok(!self.halting)
    }

    /// Gives up what is overdue, opens listeners, asks the roster, and carries out what it wants.
    pub(super) fn decide(&mut self, now: Instant) {
        while let Some(key) = self.connections.overdue(now) {
            self.on_overdue(key, now);
        }
        while let Some((peer, step)) = self.endpoints.overdue(now) {
            self.step(peer, step, now);
        }
        self.listeners
            .tick(&mut self.net, now, &mut self.listener_actions);
        if let Some(listening) = self.listeners.changed() {
            self.handle.shared().set_listening(listening);
        }
        let mut listener_actions = mem::take(&mut self.listener_actions);
        for action in listener_actions.drain(..) {
            match action {
                ListenerAction::Emit(event) => self.tell(event, now),
                ListenerAction::Lookup(listener, host) => {
                    let lookup_id = self.endpoints.lookup_id(LookupOwner::Listener(listener));
                    self.net.lookup(lookup_id, &host);
                }
            }
        }
        self.listener_actions = listener_actions;
        self.tell_drops(now);
        let (links, endpoints, paused) = (&mut self.connections, &self.endpoints, &self.paused);
        let brought = |id, link| match (endpoints.is_asking(id), paused.contains(&link)) {
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
            self.apply(action, now);
        }
        self.todo.clear();
    }

    /// When dropped messages are to be reported, if some are.
    pub(super) fn drops_due(&self) -> Option<Instant> {
        let has_dropped = self.handle.shared().inbox.has_dropped();
        has_dropped.then_some(self.drops_due)
    }

    /// Reports messages that the inbox has dropped.
    pub(super) fn tell_drops(&mut self, now: Instant) {
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

    pub(super) fn finish(&mut self, now: Instant) {
        let shared = self.handle.shared();
        shared.counters.turns.add(1);
        shared
            .counters
            .connections
            .set(self.connections.len() as u64);
        shared
            .counters
            .pending
            .set(self.connections.pending() as u64);
        if self.halting {
            self.shut_down(now);
            return;
        }
        let took = self.net.now().saturating_duration_since(now);
        if took > SLOW_TURN {
            self.tell(Event::SlowTurn { took }, now);
        }
    }

    /// The peer of this id, for as long as it is known.
    pub(super) fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
    }

    /// Counts, logs and hands over what has happened.
    pub(super) fn tell(&mut self, event: Event, now: Instant) {
        let counters = &self.handle.shared().counters;
        match &event {
            Event::Down { reason, .. } => counters.downs.count(reason.name()),
            Event::Rejected { reason, .. } => counters.rejected.count(reason.name()),
            _ => {}
        }
        self.event_log.write(&event, now);
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
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
