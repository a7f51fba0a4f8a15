//! The event loop. One turn waits, accepts, reads, writes, asks the roster, applies its actions, and removes closed connections.
//!
//! Nothing here decides which connection is kept: the roster does.

mod accept;
mod actions;
mod answer;
mod connect;
mod connections;
mod controls;
mod end;
mod endpoints;
mod event_log;
mod handshake;
mod leaves;
mod listeners;
mod members;
mod pings;
mod poll;
mod read;
mod read_stream;
mod renewals;
mod requests;
mod start;
#[cfg(feature = "tls")]
mod tls;
mod write;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Options},
    event::Event,
    handle::Handle,
    handler::Handler,
    inbox::{BufferPool, Chunk, Inbox},
    limits::{DROPPED_SENDERS_MAX, DROPS_TOLD_EVERY, EVENTS_PER_TURN, SLOW_TURN},
    net::{MioNet, Net, Ready, SystemNet, on_system},
    proto::{Action, Address, Brought, ConnectionKey, PeerId, Roster},
    shared::{Life, Peer},
    sync::assert_none_held,
};
use connections::Connections;
use endpoints::{Endpoints, LookupOwner};
use event_log::EventLog;
use leaves::Leaves;
use listeners::{ListenerAction, Listeners};
use renewals::Renewals;

/// The event loop, run by a thread of the application. The handler is called on that thread for each decoded frame.
///
/// [`run`](Self::run) runs the loop until it halts. [`turn`](Self::turn) runs one turn, for an application with an event loop of
/// its own: the `EventLoop` is [`AsFd`], which is readable when a turn has something to do. [`timeout`](Self::timeout) says when a
/// turn is due without that.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Sid};
///
/// /// Answers each frame on the thread of the loop, and halts after ten.
/// struct Echo(u32);
///
/// impl Handler for Echo {
///     fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
///         self.0 += 1;
///         if self.0 == 10 {
///             handle.request_halt();
///         } else {
///             // Never blocks. An error means that the answer is not sent.
///             let _ = handle.to_send(from, frame.into_bytes());
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A mesh of one server: it sends to itself.
/// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").build()?;
/// let mut event_loop = EventLoop::new(config, Echo(0))?;
/// event_loop.handle().to_send(Sid(1), "hello")?;
/// event_loop.run()?;
/// assert_eq!(event_loop.handler().0, 10);
/// # Ok(())
/// # }
/// ```
pub struct EventLoop<H: Handler, N: Net = SystemNet> {
    net: N,
    handler: H,
    handle: Handle,
    options: Options,
    own_addresses: Vec<Address>,
    roster: Roster,
    endpoints: Endpoints,
    connections: Connections<N::Stream>,
    renewals: Renewals,
    leaves: Leaves,
    #[cfg(feature = "tls")]
    expiry: tls::Expiry,
    listeners: Listeners,
    event_log: EventLog,
    /// All known peers. One that is not a member is here from [`Action::PeerAdded`] to [`Action::PeerRemoved`].
    peers: BTreeMap<PeerId, Arc<Peer>>,
    /// The read buffer that all links share.
    read_buffer: Box<[u8]>,
    /// Buffers of long frames that the application has read.
    pool: Arc<BufferPool>,
    ready: Vec<Ready>,
    /// Connections to read, in the order in which they became readable.
    busy: Vec<ConnectionKey>,
    /// Connections whose handshake can be continued in this turn.
    handshakes: Vec<ConnectionKey>,
    /// Links that are not read while the handler is not ready for their frames.
    paused: BTreeSet<ConnectionKey>,
    /// When dropped messages may be reported again.
    drops_due: Instant,
    /// The link that brought frames last. A loop that spins reads it first.
    hot: Option<ConnectionKey>,
    /// The link that delivered frames in a turn that has not read the clock.
    read_untimed: Option<ConnectionKey>,
    /// Turns in a row that found something on the hot link and did not ask the kernel for other events.
    hot_turns: u32,
    /// Connections whose socket is writable again, or whose connect has ended.
    writable: Vec<ConnectionKey>,
    /// Actions of the roster, which [`apply`](Self::apply) carries out.
    todo: Vec<Action>,
    requests: Vec<Arc<Peer>>,
    /// Peers whose queues have spare buffers. Each is here once, since its queue does not ask again before.
    releases: Vec<PeerId>,
    /// When buffers of those and of the pool are freed, if they were not used since the last look. `None` while there are none. The
    /// application may return some to the pool later, which stay until the next turn notes it.
    release_due: Option<Instant>,
    listener_actions: Vec<ListenerAction>,
    /// True exactly when the waker was used for this turn, and the loop has not yet yielded to the senders.
    woken: bool,
    /// The thread that ran the last turn.
    loop_thread: Option<ThreadId>,
    /// True exactly when the kernel may hold more events: the last turn took as many as one turn may, or did not ask for any. The
    /// next turn is then due at once, since an outer loop that is edge-triggered, as mio is, has already used its edge.
    maybe_more_events: bool,
    /// True exactly when the loop was asked to halt.
    halting: bool,
    /// True exactly when the loop halts once all peers have left.
    shutting_down: bool,
    /// True exactly when a turn has begun and has not ended.
    turning: bool,
}

impl<H: Handler> EventLoop<H> {
    /// Opens the listening sockets and starts to dial. The handler receives the events of both before this returns. A frame to the
    /// own sid is delivered to the handler.
    ///
    /// It is no error if a listening socket cannot be opened: the loop emits [`Event::ListenFailed`] and tries again.
    ///
    /// # Errors
    ///
    /// If the system provides no event queue, does not have the configured congestion control, or cannot use a listening socket
    /// that was handed over.
    pub fn new(config: Config, handler: H) -> io::Result<Self> {
        let net = on_system(MioNet::new(&config.options)?);
        Self::on(config, handler, net)
    }

    pub(crate) fn with_inbox(
        config: Config,
        handler: H,
        net: SystemNet,
        inbox: Arc<Inbox<Chunk>>,
        pool: Arc<BufferPool>,
    ) -> io::Result<Self> {
        Self::build(config, handler, net, inbox, false, pool)
    }
}

impl<H: Handler> AsFd for EventLoop<H> {
    /// Readable (level-triggered) when a turn has something to do. An application that watches it edge-triggered must also run
    /// turns for as long as [`timeout`](EventLoop::timeout) is zero.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

impl<H: Handler> AsRawFd for EventLoop<H> {
    /// The same, for registries that take a raw descriptor. It is valid as long as the `EventLoop`.
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// The same on another network: see [`simulation`](crate::simulation).
    ///
    /// If no [`seed`](crate::ConfigBuilder::seed) is configured, the own sid is the seed, so that a test does the same each time.
    ///
    /// # Errors
    ///
    /// If the network cannot use a listening socket that was handed over.
    #[cfg(feature = "simulation")]
    #[cfg_attr(docsrs, doc(cfg(feature = "simulation")))]
    pub fn with_net(mut config: Config, handler: H, mut net: N) -> io::Result<Self> {
        net.set_dead_after(config.options.peer_dead_after);
        config.options.seed.get_or_insert(config.own.0 as u64);
        Self::on(config, handler, net)
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn net(&self) -> &N {
        &self.net
    }

    fn on(config: Config, handler: H, net: N) -> io::Result<Self> {
        let options = &config.options;
        let inbox = Arc::new(Inbox::new(options.inbox_room(), options.inbox_full));
        // The handler keeps the buffers of frames for as long as it likes: there is none to use again.
        let pool = Arc::new(BufferPool::new(0));
        Self::build(config, handler, net, inbox, true, pool)
    }

    /// The handle of this loop, which any thread may use.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The handler.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The handler, to be changed between two turns.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Runs turns until the loop has halted.
    ///
    /// # Errors
    ///
    /// The errors of [`turn`](Self::turn).
    pub fn run(&mut self) -> io::Result<()> {
        while self.round(None, &|| false)? {}
        Ok(())
    }

    /// How long a turn may wait until something is due. `None`: without limit.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if self.maybe_more_events || self.has_more() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.roster.deadline(),
            self.connections.deadline(),
            self.endpoints.deadline(),
            self.listeners.deadline(),
            self.renewals.deadline(),
            self.leaves.deadline(),
            #[cfg(feature = "tls")]
            self.expiry.deadline(),
            self.drops_due(),
            self.release_due,
        ];
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(self.net.now()))
    }

    /// Runs one turn: waits until something is ready or due, but at most `timeout` (`None`: no further limit), and does what there
    /// is to do. Returns `false` once the loop has halted.
    ///
    /// # Errors
    ///
    /// If the system's event queue fails, or if an earlier turn was interrupted by such a failure or by a panic of the handler. The
    /// loop is then dead, and every handle reports it.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let goes_on = self.round(timeout, &|| false)?;
        // It is unknown when the next turn begins. Work that was left for it during this turn must make it due.
        self.handle.shared().wake_flag.rearm();
        Ok(goes_on)
    }

    /// Runs one turn, of a caller that runs the next one soon. A loop that spins also stops waiting when `is_over` returns `true`.
    pub(crate) fn round(
        &mut self,
        timeout: Option<Duration>,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        if self.turning {
            // The work of that turn is lost, for example links that were to be read.
            self.handle.shared().end(Life::Died);
            return Err(io::Error::other("an earlier turn was cut off"));
        }
        if self.halting {
            return Ok(false);
        }
        // It stays true if the handler panics or the poll fails below, so that no later turn goes on with what is half done.
        self.turning = true;

        // Wait.
        if let Err(error) = self.poll(timeout, is_over) {
            self.handle.shared().end(Life::Died);
            return Err(error);
        }
        // Other connections may be ready as well.
        self.maybe_more_events = self.hot_turns > 0 || self.ready.len() >= EVENTS_PER_TURN;
        if self.is_done() {
            self.handle.shared().counters.turns.add(1);
            self.turning = false;
            return Ok(true);
        }
        // One look at the clock for the whole turn: what is decided in it is decided at one time.
        let now = self.net.now();

        // Note what is ready.
        self.note();
        if !self.maybe_more_events {
            self.listeners.on_looked(now);
        }

        // In: accept before reading, so that an initial message is read in this turn, before another connection needs its place.
        self.accept(now);
        self.read(now);

        // Out.
        self.handle_requests(now);
        if !self.writable.is_empty() {
            self.write(now);
        }
        if !self.handshakes.is_empty() {
            self.continue_handshakes(now);
        }

        // Decide, then do.
        self.decide(now);

        // Remove the closed connections: a place in the slab is not reused during a turn.
        if self.connections.has_closed() {
            self.reap();
        }
        self.finish(now);
        self.turning = false;
        Ok(!self.halting)
    }

    /// Ends what is overdue, opens listeners, asks the roster, and applies its actions.
    pub(super) fn decide(&mut self, now: Instant) {
        while let Some(key) = self.connections.overdue(now) {
            self.on_overdue(key, now);
        }
        while let Some((peer, step)) = self.endpoints.overdue(now) {
            self.step(peer, step, now);
        }
        self.release_unused(now);
        self.listeners
            .tick(&mut self.net, now, &mut self.listener_actions);
        if self.listeners.take_changed() {
            let listening = self.listeners.listening();
            self.handle.shared().set_listening(listening);
        }
        if !self.listener_actions.is_empty() {
            self.apply_listener_actions(now);
        }
        self.tell_drops(now);
        #[cfg(feature = "tls")]
        self.tell_expiry(now);
        let (connections, endpoints, paused) =
            (&mut self.connections, &self.endpoints, &self.paused);
        // Called for the few links that are in doubt only.
        let brought = |id, link| match (endpoints.is_asking(id), paused.contains(&link)) {
            (true, _) => Brought::Unclear,
            // The application has paused this link, which may have brought more.
            (_, true) => Brought::More,
            (false, false) => connections.brought(link),
        };
        self.roster.tick(now, brought, &mut self.todo);
        if !self.renewals.is_empty() {
            self.renew_links(now);
        }
        // Not in each turn: a look takes the lock of each outbox.
        if self.leaves.deadline().is_some_and(|at| at <= now) {
            self.look_at_leaves(now);
        }
        if !self.todo.is_empty() {
            self.apply_all(now);
        }
        if self.shutting_down && self.leaves.is_empty() {
            self.handle.request_halt();
        }
    }

    fn apply_listener_actions(&mut self, now: Instant) {
        // Taken out, since `tell` needs all of `self`; put back below, so that the buffer is used again.
        let mut listener_actions = mem::take(&mut self.listener_actions);
        for action in listener_actions.drain(..) {
            match action {
                ListenerAction::Emit(event) => self.tell(event, now),
                ListenerAction::ForgetLookup(index) => self.endpoints.forget_own(index),
                ListenerAction::Lookup(index, host) => {
                    let lookup_id = self.endpoints.lookup_id(LookupOwner::OwnAddress(index));
                    self.net.lookup(lookup_id, &host);
                }
            }
        }
        self.listener_actions = listener_actions;
    }

    /// Applies all actions of the roster.
    pub(super) fn apply_all(&mut self, now: Instant) {
        // Applying an action may add others: a dial can fail at once.
        let mut next = 0;
        while let Some(action) = self.todo.get(next).cloned() {
            next += 1;
            self.apply(action, now);
        }
        self.todo.clear();
    }

    /// When dropped messages are due to be reported, if there are any.
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
        for (owner, count) in &dropped {
            if let Some(peer) = self.handle.shared().find(owner.sid()) {
                peer.counters.dropped.add(*count);
            }
        }
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
        shared.counters.turn_times.add(took);
        if took > SLOW_TURN {
            // After `shut_down` is ruled out: no event follows `Halted`.
            self.tell(Event::SlowTurn { took }, now);
        }
    }

    /// The peer with this id, if it is known.
    pub(super) fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
    }

    /// Counts an event, logs it, and passes it to the handler.
    pub(super) fn tell(&mut self, event: Event, now: Instant) {
        assert_none_held();
        let counters = &self.handle.shared().counters;
        match &event {
            Event::Down { reason, .. } => counters.downs.count(reason.kind()),
            Event::Rejected { reason, .. } => counters.rejected.count(reason.kind()),
            _ => {}
        }
        // The log first: a handler that panics in `on_event` does not keep the line from it.
        self.event_log.write(&event, now);
        self.handler.on_event(&event, &self.handle);
    }
}

impl<H: Handler, N: Net> Drop for EventLoop<H, N> {
    /// Ends the loop for all who wait for it, also when a handler panics. After a halt this changes nothing.
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
