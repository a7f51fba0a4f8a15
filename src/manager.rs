//! The connection manager as an application holds it: start, send, receive, ask, halt.
//!
//! Nothing here waits for the network, except for the calls whose name says that they receive or halt.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    batch::{Batch, Burst, Owner, Packer, Single, Source},
    config::{Config, Idle},
    driver::EventLoop,
    error::{RecvError, SendError},
    handler::{Event, Frame, Handler, Message},
    limits::{EVENTS_MAX, INBOX_SPARE_BYTES},
    process::Home,
    proto::Sid,
    share::{Inbox, InboxFull, Nothing, Popped, Room, Spares, Wait},
    shared::{Life, Listening, Shared, asked},
    stats::{Queue, Stats},
};

/// What became of a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// The kernel has all of it.
    Written,
    /// It waits in the slot or has begun to leave. It may still be replaced by a newer one if it has not begun. In a
    /// [queue](crate::Outbox::Queue) it waits for those in front of it, or has left with them, and is never replaced.
    Queued,
    /// It waits in the slot, where it has replaced an older frame, which is never sent.
    Superseded,
    /// It is in the own inbox.
    Loopback,
}

/// The way to a loop from any thread; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The own sid.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.shared.own
    }

    /// Holds out `frame` to `sid` as the latest message. Never waits for the network: the frame is written on this
    /// thread if the socket takes it, else it waits in the peer's one slot, where a newer frame replaces it. With
    /// [`Outbox::Queue`](crate::Outbox::Queue) it goes behind those that wait, and leaves together with others.
    ///
    /// A frame for a peer that is not linked waits for the link; with [`Dial::OnDemand`](crate::Dial::OnDemand) the
    /// peer is dialed for it. A frame for the own sid goes to the own inbox.
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken. A frame for the own sid is refused with [`SendError::Full`] if the inbox is
    /// full and drops nothing ([`InboxFull::PushBack`]).
    pub fn to_send(&self, sid: Sid, frame: impl Into<Bytes>) -> Result<Sent, SendError> {
        self.shared.to_send(sid, frame.into())
    }

    /// The same for bytes that the caller keeps: they are copied. In a queue this costs less than a `Bytes` does.
    ///
    /// # Errors
    ///
    /// Those of [`to_send`](Self::to_send).
    pub fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<Sent, SendError> {
        self.shared.to_send_slice(sid, frame)
    }

    /// Puts many frames at once; they are copied. Returns how many were taken, from the first on: with
    /// [`Outbox::Queue`](crate::Outbox::Queue) fewer than given if the rest has no room. What is more than
    /// [leaves together](crate::limits::QUEUE_RUN_BYTES) is put in parts, between which frames of other threads may come. With
    /// [`Outbox::Latest`](crate::Outbox::Latest) it is the same as one [`to_send`](Self::to_send) after the other.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if there is no room for the first one; else those of [`to_send`](Self::to_send), for any of the
    /// frames. Nothing was taken then.
    pub fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        self.shared.to_send_all(sid, frames)
    }

    /// Waits until a frame for `sid` would replace none and be taken: until the slot is free, or at least half of the
    /// [queue](crate::Outbox::Queue). Returns whether it is, or `false` when the time has passed. For the own sid: until the
    /// inbox takes a message and drops none. On the loop's own thread, for which it would wait, it does not wait; until an
    /// [`EventLoop`] is turned by another thread, the one that has made it counts as that.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`]. A loop that has halted has room, and [`to_send`](Self::to_send) says that it has halted.
    pub fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        self.shared.wait_for_room(sid, timeout)
    }

    /// Discards the frames that wait for `sid`, and returns how many they were; [`Outgoing::discarded`] counts them. For a queue
    /// whose peer was away for so long that what waits for it is of no use any more. What is just being written, at most
    /// [`TURN_BYTES`](crate::limits::TURN_BYTES), is not discarded while there is a link.
    ///
    /// [`Outgoing::discarded`]: crate::Outgoing::discarded
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        self.shared.discard(sid)
    }

    /// Has the loop look again at what it waits for, a [handler that was not ready](Handler::is_ready) for instance.
    pub fn wake(&self) {
        self.shared.bell.ring();
    }

    /// Asks for a link to `sid`, if there is none and none is underway.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn connect_one(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, asked::LINK)
    }

    /// Asks for a link to every peer.
    pub fn connect_all(&self) {
        for peer in self.shared.peers() {
            // Refused only where there is no loop.
            let _ = self.shared.ask(&peer, asked::LINK);
        }
    }

    /// Dials `sid` also when it is linked; the new connection replaces the old one, and the last frame goes over it
    /// once more. A larger sid is asked by a knock to do the same, which it ignores for a link that is younger than
    /// [`KNOCK_CROSSING`](crate::limits::KNOCK_CROSSING).
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn initiate_connection(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, asked::INITIATE)
    }

    fn ask(&self, sid: Sid, what: u8) -> Result<(), SendError> {
        if self.shared.life() != Life::Running {
            return Err(SendError::Halted);
        }
        let peer = self.shared.find(sid).ok_or(SendError::UnknownPeer(sid))?;
        self.shared.ask(&peer, what)
    }

    /// Whether nothing waits for any peer: every accepted frame was written, replaced or discarded.
    #[must_use]
    pub fn have_delivered(&self) -> bool {
        self.shared
            .peers()
            .iter()
            .all(|peer| peer.outbox.is_empty())
    }

    /// Whether `sid` is linked.
    #[must_use]
    pub fn connected_to_peer(&self, sid: Sid) -> bool {
        self.shared
            .find(sid)
            .is_some_and(|peer| peer.linked.load(Ordering::Acquire))
    }

    /// Who is linked, by sid. Its length is what `getThreadCount() / 2` of the original counts.
    #[must_use]
    pub fn linked_peers(&self) -> Vec<Sid> {
        let linked = |peer: &Arc<crate::shared::Peer>| peer.linked.load(Ordering::Acquire);
        self.shared
            .peers()
            .iter()
            .filter(|peer| linked(peer))
            .map(|peer| peer.sid)
            .collect()
    }

    /// What each listening socket is doing. Empty once halted.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        self.shared.listening()
    }

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Drops every link and goes on: peers come back by the rules of [`Dial`](crate::Dial).
    pub fn soft_halt(&self) {
        self.shared.order(&self.shared.drop_links);
    }

    /// Asks the loop to halt, without waiting for it. From now on no frame is taken, and none that comes is handed over.
    pub fn request_halt(&self) {
        self.shared.request_halt();
    }

    /// Whether the loop has ended, by request or not.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.shared.life() != Life::Running
    }

    /// Whether the loop has ended without being asked to: an error of the system, or a panic of a handler.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.shared.life() == Life::Died
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Handle {
    /// Without the peers and what waits for them: a payload is nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("sid", &self.sid())
            .finish_non_exhaustive()
    }
}

/// The connection manager of one server, with the loop on a thread of its own.
///
/// It dereferences to its [`Handle`], which can send and ask; the manager itself receives and halts. Dropping it halts
/// it.
pub struct CnxManager {
    handle: Handle,
    events: Events,
    idle: Idle,
    /// Of batches, for bursts.
    spares: Arc<Spares>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CnxManager {
    /// Opens the listening sockets and starts the loop.
    ///
    /// A listening socket that cannot be opened is no error: the loop tries again, and tells by
    /// [`Event::ListenFailed`] and [`Handle::listening`].
    ///
    /// # Errors
    ///
    /// When the system gives no event queue or no thread, or a listening socket that was handed over cannot be used.
    pub fn start(config: Config) -> io::Result<Self> {
        let inbox = Inbox::new(config.knobs.inbox_room(), config.knobs.inbox_full);
        let inbox = Arc::new(inbox);
        let room = Room {
            items: EVENTS_MAX,
            bytes: usize::MAX,
        };
        let events = Events {
            inbox: Arc::new(Inbox::new(room, InboxFull::DropOldest)),
            home: Home::here(),
        };
        let idle = config.knobs.idle;
        let spares = Arc::new(Spares::new(INBOX_SPARE_BYTES));
        let handler = Post {
            inbox: Arc::clone(&inbox),
            packer: Packer::new(Arc::clone(&spares)),
            source: None,
            servers: config.members.iter().map(|server| server.sid).collect(),
            spins: idle != Idle::Block,
            events: events.clone(),
        };
        let name = format!("quorum-cnx-{}", config.own);
        let mut event_loop = EventLoop::with_inbox(config, handler, inbox, false)?;
        let handle = event_loop.handle().clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = event_loop.run() {
                log::error!(target: "quorum_cnx::loop", "the loop ends, nothing is sent or received any more: {error}");
            }
        })?;
        // The thread that has started it may halt it, or wait for room, before the loop's first turn.
        handle.shared.set_loop_thread(thread.thread().id());
        Ok(Self {
            handle,
            events,
            idle,
            spares,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A handle to give to other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes the oldest received message; waits for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv(&self) -> Result<Message, RecvError> {
        self.take(Wait::Forever)
    }

    /// Takes the oldest received message; waits for one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message, RecvError> {
        self.take(Wait::at_most(timeout))
    }

    /// Takes the oldest received message, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`] when there is none now, or [`RecvError::Halted`] when none can come.
    pub fn try_recv(&self) -> Result<Message, RecvError> {
        self.take(Wait::No)
    }

    /// Takes all received messages at once, in place of those in `batch`; waits for at least one. Returns their number.
    /// Where many come, this is much faster than one by one, most of all with the same `batch` again and again: what it holds
    /// is given back to the loop to be filled anew.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] when nothing is left and nothing can come; `batch` is empty then.
    pub fn recv_all(&self, batch: &mut Batch) -> Result<usize, RecvError> {
        self.take_all(batch, Wait::Forever)
    }

    /// The same, but waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] when nothing is left and nothing can come; `batch` is empty then.
    pub fn recv_all_timeout(
        &self,
        batch: &mut Batch,
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.take_all(batch, Wait::at_most(timeout))
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`] when there is none now, or [`RecvError::Halted`] when none can come; `batch` is empty then.
    pub fn try_recv_all(&self, batch: &mut Batch) -> Result<usize, RecvError> {
        self.take_all(batch, Wait::No)
    }

    fn take(&self, wait: Wait) -> Result<Message, RecvError> {
        let inbox = &self.handle.shared.inbox;
        let popped = self.spin_and_wait(wait, |wait| inbox.pop(wait))?;
        Ok(self.made_room(popped).into_message())
    }

    fn take_all(&self, batch: &mut Batch, wait: Wait) -> Result<usize, RecvError> {
        let inbox = &self.handle.shared.inbox;
        batch.fill(&self.spares, |bursts| {
            let popped = self.spin_and_wait(wait, |wait| inbox.pop_all(bursts, wait))?;
            Ok(self.made_room(popped))
        })
    }

    /// Asks the inbox again and again for a while, if it is to spin, before it waits.
    fn spin_and_wait<T>(
        &self,
        wait: Wait,
        mut pop: impl FnMut(Wait) -> Result<T, Nothing>,
    ) -> Result<T, RecvError> {
        let Some(deadline) = wait.deadline() else {
            return pop(Wait::No).map_err(of_nothing);
        };
        if let Idle::Spin { for_at_most } = self.idle {
            let mut until = Instant::now() + for_at_most;
            if let Some(deadline) = deadline {
                until = until.min(deadline);
            }
            while Instant::now() < until {
                if self.handle.shared.inbox.is_stirred() {
                    match pop(Wait::No) {
                        Err(Nothing::Yet) => {}
                        other => return other.map_err(of_nothing),
                    }
                }
                thread::yield_now();
            }
        }
        match pop(Wait::No) {
            Err(Nothing::Yet) => {}
            other => return other.map_err(of_nothing),
        }
        // In a forked process nothing comes: then this closes the inbox.
        let _ = self.handle.shared.life();
        pop(wait).map_err(of_nothing)
    }

    /// The loop may wait for room in the inbox.
    fn made_room<T>(&self, popped: Popped<T>) -> T {
        if popped.wakes {
            self.handle.wake();
        }
        popped.taken
    }

    /// What happens to the mesh.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// All counters, those of the event queue included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            events: Queue::of(&self.events.inbox),
            ..self.handle.stats()
        }
    }

    /// Halts: returns when the loop's thread has ended and all sockets are closed, the listening ones included, so that
    /// the port is free. What waits in the slots is discarded; what was received can still be taken. Needs nobody's
    /// cooperation. Called on the loop's own thread, it asks only, as [`Handle::request_halt`] does.
    pub fn halt(&self) {
        self.handle.request_halt();
        if self.handle.shared.is_loop_thread(thread::current().id()) {
            return;
        }
        self.handle.shared.wait_for_end();
        if !self.handle.shared.is_here() {
            // A copy of the handle, whose thread is in another process.
            return;
        }
        // Two callers may come here; the second waits for the lock until the first has joined.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic of the loop was reported when it happened, and is visible in `has_died`.
            let _ = thread.join();
        }
    }
}

impl std::ops::Deref for CnxManager {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for CnxManager {
    fn drop(&mut self) {
        self.halt();
    }
}

impl fmt::Debug for CnxManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CnxManager")
            .field("sid", &self.sid())
            .finish_non_exhaustive()
    }
}

/// The events of a manager, oldest first; when 1024 wait, the oldest goes.
#[derive(Clone, Debug)]
pub struct Events {
    inbox: Arc<Inbox<Single<Event>>>,
    home: Home,
}

impl Events {
    fn pop(&self, wait: Wait) -> Result<Event, RecvError> {
        if wait.deadline().is_some() && !self.home.is_here() {
            // Nothing comes in a forked process.
            return Err(RecvError::Halted);
        }
        // Nobody waits for room: there is always some for the newest.
        let popped = self.inbox.pop(wait).map_err(of_nothing)?;
        Ok(popped.taken)
    }

    /// Takes the oldest event; waits for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv(&self) -> Result<Event, RecvError> {
        self.pop(Wait::Forever)
    }

    /// Takes the oldest event; waits for one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvError> {
        self.pop(Wait::at_most(timeout))
    }

    /// Takes the oldest event, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`] when there is none now, or [`RecvError::Halted`] when none can come.
    pub fn try_recv(&self) -> Result<Event, RecvError> {
        self.pop(Wait::No)
    }
}

/// The handler of a manager: posts what comes into the inbox, a burst at a time.
struct Post {
    inbox: Arc<Inbox<Burst>>,
    packer: Packer,
    /// Where the burst comes from.
    source: Option<Source>,
    /// The members, sorted.
    servers: Vec<Sid>,
    spins: bool,
    events: Events,
}

impl Post {
    /// In whose share of the inbox and of the events this peer is.
    fn owner(&self, sid: Sid) -> Owner {
        self.source(sid, 0).owner()
    }

    fn source(&self, from: Sid, link: u64) -> Source {
        Source {
            from,
            is_server: self.servers.binary_search(&from).is_ok(),
            link,
        }
    }

    /// In whose share an event is. What unknown peers bring about cannot push out what is about members.
    fn owner_of(&self, event: &Event) -> Owner {
        match event {
            Event::Up { sid, .. }
            | Event::Down { sid, .. }
            | Event::Flapping { sid }
            | Event::DialFailed { sid, .. } => self.owner(*sid),
            // The sid is the word of whoever is rejected.
            Event::Rejected { .. } | Event::AcceptFailed { .. } => Owner::Others,
            Event::Listening { .. }
            | Event::ListenFailed { .. }
            | Event::ListenerLost { .. }
            | Event::Dropped { .. }
            | Event::SlowTurn { .. }
            | Event::Halted => Owner::Own,
        }
    }
}

impl Handler for Post {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        let source = match self.source {
            Some(source) => source,
            None => {
                let source = self.source(from, frame.link());
                *self.source.insert(source)
            }
        };
        self.packer.add(source, frame);
    }

    fn is_ready(&mut self, from: Sid) -> bool {
        self.inbox.has_room_for(|| self.owner(from))
    }

    fn on_burst_end(&mut self, _: &Handle) {
        if let Some(source) = self.source.take() {
            // Not taken once the loop has ended, when nobody reads any more either. What was dropped is reported in this turn.
            let _ = self.inbox.push_all(self.packer.pack(source));
            if self.spins {
                // Who waits for it may share this processor.
                thread::yield_now();
            }
        }
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        let owner = self.owner_of(event);
        // Dropped events are counted, and the next ones say how the mesh is.
        let _ = self.events.inbox.push(Single::new(owner, event.clone()));
    }
}

impl Drop for Post {
    /// The loop has ended, if only by a panic: nobody may wait for an event that cannot come.
    fn drop(&mut self) {
        self.events.inbox.close();
    }
}

fn of_nothing(nothing: Nothing) -> RecvError {
    match nothing {
        Nothing::Yet => RecvError::Timeout,
        Nothing::Ever => RecvError::Halted,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{config::Outbox, process::FORKED};

    #[test]
    fn a_forked_process_has_no_loop() {
        for outbox in [Outbox::Latest, Outbox::QUEUE] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let own = listener.local_addr().unwrap().to_string();
            let config = Config::builder(Sid(1))
                .server(Sid(1), &own)
                .server(Sid(2), "127.0.0.1:1")
                .outbox(outbox)
                .listener(listener);
            let manager = CnxManager::start(config.build().unwrap()).unwrap();
            // As the memory of the child is: a copy of the parent's.
            FORKED.set(true);
            assert_eq!(manager.to_send(Sid(2), "x"), Err(SendError::Halted));
            assert_eq!(manager.to_send(Sid(2), "x"), Err(SendError::Halted));
            assert_eq!(manager.connect_one(Sid(2)), Err(SendError::Halted));
            assert!(manager.is_halted() && !manager.has_died());
            assert_eq!(manager.recv(), Err(RecvError::Halted));
            let timeout = Duration::MAX;
            let told = manager.events().recv_timeout(timeout);
            assert_eq!(told, Err(RecvError::Halted));
            assert_eq!(manager.wait_for_room(Sid(2), timeout), Ok(true));
            manager.halt();
            FORKED.set(false);
            // Here there is a thread to be joined, after all.
            manager.handle.request_halt();
        }
    }
}
