//! The connection manager as an application uses it: start, send, receive, query, halt.
//!
//! No call waits for the network, except those whose names say that they receive, wait or halt.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Idle, Outbox},
    error::{RecvError, TryRecvError},
    event_loop::EventLoop,
    handle::Handle,
    inbox::{Batch, BufferPool, Inbox, Nothing, Popped, Wait},
    limits::BUFFER_POOL_BYTES,
    message::Message,
    net::{MioNet, on_system},
    shared::Stats,
};

mod events;
mod forward;
mod inbox_handler;
mod lent_loop;
mod received;
mod recv_any;
mod recv_async;
mod recv_stream;

pub use events::Events;
pub use received::Received;
pub use recv_stream::RecvStream;

use inbox_handler::InboxHandler;
use lent_loop::LentLoop;

/// The connection manager of one server, with the loop on a thread of its own.
///
/// It sends and queries through its [`Handle`], which other threads can have as well; only the manager receives and halts. Dropping
/// the manager [halts](Self::halt) it, which waits until the loop's thread has ended.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{CnxManager, Config, RecvError, SendOutcome, Sid};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A server alone, which sends to itself. With port 0 the kernel chooses a port.
/// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").build()?;
/// let manager = CnxManager::start(config)?;
///
/// assert_eq!(manager.to_send(Sid(1), "hello")?, SendOutcome::Loopback);
/// let message = manager.recv()?;
/// assert_eq!((message.from, &message.payload[..]), (Sid(1), &b"hello"[..]));
///
/// manager.halt();
/// assert_eq!(manager.recv(), Err(RecvError::Halted));
/// # Ok(())
/// # }
/// ```
pub struct CnxManager {
    handle: Handle,
    events: Events,
    /// True exactly when the last `recv_any` has returned a message: the next one looks for an event first.
    is_event_next: AtomicBool,
    idle: Idle,
    /// The loop, if receivers turn it.
    lent_loop: Option<Arc<LentLoop>>,
    /// Buffers of batches that the application has read, for the next chunks.
    pool: Arc<BufferPool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CnxManager {
    /// Opens the listening sockets and starts the loop.
    ///
    /// A listening socket that cannot be opened is no error. The loop tries again, and reports it by
    /// [`Event::ListenFailed`](crate::Event::ListenFailed) and in [`Handle::listening`].
    ///
    /// # Errors
    ///
    /// If the system provides no event queue or no thread, if it refuses the
    /// [congestion control](crate::ConfigBuilder::congestion_control), or if a listening socket that was handed over cannot be used.
    pub fn start(config: Config) -> io::Result<Self> {
        let inbox = Inbox::new(config.options.inbox_room(), config.options.inbox_full);
        let inbox = Arc::new(inbox);
        let events = Events::new();
        let idle = config.options.idle;
        let pool = Arc::new(BufferPool::new(BUFFER_POOL_BYTES));
        let handler = InboxHandler::new(
            Arc::clone(&inbox),
            Arc::clone(&pool),
            config.members.iter().map(|server| server.sid).collect(),
            idle != Idle::Block,
            events.clone(),
        );
        let mut net = MioNet::new(&config.options)?;
        // A queue is left to the loop to write. If a receiver turned that loop, each answer would wake the loop's thread.
        let is_lent = idle != Idle::Block && config.options.outbox == Outbox::Latest;
        let lent_loop = is_lent.then(|| Arc::new(LentLoop::new()));
        if let Some(lent_loop) = lent_loop.clone() {
            net.recall_by(move || lent_loop.recall());
        }
        let name = format!("quorum-cnx-{}", config.own);
        let on_loop_start = config.options.on_loop_start.clone();
        let net = on_system(net);
        let mut event_loop = EventLoop::with_inbox(config, handler, net, inbox, Arc::clone(&pool))?;
        let handle = event_loop.handle().clone();
        let lent = lent_loop.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // A panic here drops the loop, as one in a turn does. So its end is reported.
            if let Some(start) = on_loop_start {
                (start.0)();
            }
            let ended = match lent {
                Some(lent) => lent.run(event_loop),
                None => event_loop.run(),
            };
            if let Err(error) = ended {
                log::error!(target: "quorum_cnx::loop", "the loop ends, nothing is sent or received any more: {error}");
            }
        })?;
        // Set before the loop's first turn: until then this thread may already halt the loop or wait for room.
        handle.shared().set_loop_thread(thread.thread().id());
        Ok(Self {
            handle,
            events,
            is_event_next: AtomicBool::new(true),
            idle,
            lent_loop,
            pool,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes the oldest received message. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no message is left and none can arrive any more.
    pub fn recv(&self) -> Result<Message, RecvError> {
        self.take(Wait::Forever)
    }

    /// Takes the oldest received message. Blocks until there is one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] if no message is left and none can arrive any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message, RecvError> {
        self.take(Wait::at_most(timeout))
    }

    /// Takes the oldest received message, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] if there is none now, or [`TryRecvError::Halted`] if none can arrive any more.
    pub fn try_recv(&self) -> Result<Message, TryRecvError> {
        Ok(self.take(Wait::No)?)
    }

    /// Takes all received messages at once and puts them into `batch`, in place of those that it has. Blocks until there is at
    /// least one. Returns their number.
    ///
    /// If many messages arrive, this is much faster than taking them one by one. Use the same `batch` for each call: its buffers
    /// are returned to the loop, which fills them with the next messages.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no message is left and none can arrive any more. `batch` is then empty.
    pub fn recv_all(&self, batch: &mut Batch) -> Result<usize, RecvError> {
        self.take_all(batch, Wait::Forever)
    }

    /// Does what [`recv_all`](Self::recv_all) does, but blocks for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] if no message is left and none can arrive any more. `batch` is then empty.
    pub fn recv_all_timeout(
        &self,
        batch: &mut Batch,
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.take_all(batch, Wait::at_most(timeout))
    }

    /// Does what [`recv_all`](Self::recv_all) does, but does not block.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] if there is none now, or [`TryRecvError::Halted`] if none can arrive any more. `batch` is then empty.
    pub fn try_recv_all(&self, batch: &mut Batch) -> Result<usize, TryRecvError> {
        Ok(self.take_all(batch, Wait::No)?)
    }

    fn take(&self, wait: Wait) -> Result<Message, RecvError> {
        let inbox = &self.handle.shared().inbox;
        let popped = self.spin_and_wait(wait, |wait| inbox.pop(wait))?;
        Ok(self.made_room(popped).into_message())
    }

    fn take_all(&self, batch: &mut Batch, wait: Wait) -> Result<usize, RecvError> {
        let inbox = &self.handle.shared().inbox;
        batch.fill(&self.pool, |chunks| {
            let popped = self.spin_and_wait(wait, |wait| inbox.pop_all(chunks, wait))?;
            Ok(self.made_room(popped))
        })
    }

    /// Calls `pop` and returns its result. With [`Idle::Spin`], polls the inbox for a while before it blocks.
    fn spin_and_wait<T>(
        &self,
        wait: Wait,
        pop: impl FnMut(Wait) -> Result<T, Nothing>,
    ) -> Result<T, RecvError> {
        self.spin_and_wait_for(wait, || self.handle.shared().inbox.may_have_items(), pop)
    }

    /// The same, with a cheap check whether `pop` may return something.
    fn spin_and_wait_for<T>(
        &self,
        wait: Wait,
        may_be_ready: impl Fn() -> bool,
        mut pop: impl FnMut(Wait) -> Result<T, Nothing>,
    ) -> Result<T, RecvError> {
        let Some(deadline) = wait.deadline() else {
            return pop(Wait::No).map_err(RecvError::from);
        };
        let lent_loop = self.lent_loop.as_deref();
        if let Idle::Spin { for_at_most } = self.idle {
            let spun = Instant::now() + for_at_most;
            let until = deadline.map_or(spun, |deadline| deadline.min(spun));
            let popped = lent_loop::spin(lent_loop, &self.handle, until, &may_be_ready, || {
                pop(Wait::No)
            });
            match popped {
                Err(Nothing::Yet) => {}
                other => return other.map_err(RecvError::from),
            }
        }
        match pop(Wait::No) {
            Err(Nothing::Yet) => {}
            other => return other.map_err(RecvError::from),
        }
        // No message arrives in a forked process. `life` notices that it runs in one, and closes the inbox.
        let _ = self.handle.shared().life();
        let popped = match lent_loop {
            Some(lent_loop) if deadline.is_none_or(|at| at > Instant::now()) => {
                lent_loop.block(|| pop(wait))
            }
            _ => pop(wait),
        };
        popped.map_err(RecvError::from)
    }

    /// Wakes the loop if it waits for room in the inbox.
    fn made_room<T>(&self, popped: Popped<T>) -> T {
        if popped.wakes {
            // The loop then asks for room again for all links that it has paused.
            self.handle.wake();
        }
        popped.taken
    }

    /// The queue of events, which say what happens to the mesh.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// All counters, including those of the event queue.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            events: self.events.stats(),
            ..self.handle.stats()
        }
    }

    /// Halts the loop. Returns when the loop's thread has ended and all sockets are closed, the listening sockets included, so that
    /// the port is free. This needs no cooperation from any peer.
    ///
    /// A thread that looks up a name may end later, with one descriptor of the loop: a call of `getaddrinfo(3)` cannot be given up.
    ///
    /// Frames that wait for a peer are discarded, and those that the kernel has taken may be lost: see *Shut down* in
    /// [How to](crate::how_to). Messages that were received can still be taken. On the loop's own thread this
    /// call only asks the loop to halt, as [`Handle::request_halt`] does.
    pub fn halt(&self) {
        let shared = self.handle.shared();
        self.handle.request_halt();
        if !shared.is_here() {
            // `fork(2)` has copied this manager: its thread is in another process, and so may be a thread that holds a lock.
            return;
        }
        if shared.is_loop_thread(thread::current().id()) {
            return;
        }
        shared.wait_for_end();
        // If two threads call this, the second one waits for the lock until the first has joined the loop's thread.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic of the loop was reported when it happened, and `has_died` shows it.
            let _ = thread.join();
        }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Outbox, SendError, Sid, shared::FORKED, sync::complete};

    #[test]
    fn forked_process_has_no_loop() {
        let spin = Idle::spin(Duration::from_secs(60));
        for (outbox, idle) in [
            (Outbox::Latest, Idle::Block),
            (Outbox::Latest, spin),
            (Outbox::QUEUE, Idle::Block),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let own = listener.local_addr().unwrap().to_string();
            let config = Config::builder(Sid(1))
                .server(Sid(1), &own)
                .server(Sid(2), "127.0.0.1:1")
                .outbox(outbox)
                .idle(idle)
                .listener(listener);
            let manager = CnxManager::start(config.build().unwrap()).unwrap();
            // The manager is now what a forked child has: a copy of the parent's memory.
            FORKED.set(true);
            assert_eq!(manager.to_send(Sid(2), "x"), Err(SendError::Halted));
            assert_eq!(manager.to_send(Sid(2), "x"), Err(SendError::Halted));
            assert_eq!(manager.connect_one(Sid(2)), Err(SendError::Halted));
            assert!(manager.is_halted() && !manager.has_died());
            assert_eq!(manager.recv(), Err(RecvError::Halted));
            assert_eq!(complete(manager.recv_async()), Err(RecvError::Halted));
            let timeout = Duration::MAX;
            let told = manager.events().recv_timeout(timeout);
            assert_eq!(told, Err(RecvError::Halted));
            assert_eq!(manager.wait_for_room(Sid(2), timeout), Ok(true));
            assert!(!manager.wait_linked(1, timeout));
            manager.halt();
            FORKED.set(false);
            // In the parent there is a thread to join.
            manager.handle.request_halt();
        }
    }

    #[test]
    fn halt_takes_no_lock_in_a_forked_process() {
        let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0");
        let manager = CnxManager::start(config.build().unwrap()).unwrap();
        let locked = manager.handle.shared().hold_lock();
        let (ended, end) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                FORKED.set(true);
                manager.soft_halt();
                manager.halt();
                let _ = ended.send(manager.to_send(Sid(1), "x"));
            });
            let sent = end.recv_timeout(Duration::from_secs(10));
            // Before the assertion, so that the thread ends in any case.
            drop(locked);
            assert_eq!(sent, Ok(Err(SendError::Halted)));
        });
    }

    /// Each of these may be the first call in the child.
    #[test]
    fn tasks_do_not_wait_in_a_forked_process() {
        let waits: [fn(&CnxManager); 6] = [
            |manager| assert!(complete(manager.recv_async()).is_err()),
            |manager| assert!(complete(manager.recv_all_async(&mut Batch::new())).is_err()),
            // Events that are left can be taken.
            |manager| while complete(manager.events().recv_async()).is_ok() {},
            |manager| while complete(manager.recv_any_async()).is_ok() {},
            |manager| assert!(complete(manager.wait_for_room_async(Sid(2))).is_ok()),
            |manager| assert!(!complete(manager.wait_linked_async(1))),
        ];
        for wait in waits {
            let config = Config::builder(Sid(1))
                .server(Sid(1), "127.0.0.1:0")
                .server(Sid(2), "127.0.0.1:1")
                .dial(crate::Dial::OnDemand);
            let manager = CnxManager::start(config.build().unwrap()).unwrap();
            manager.to_send(Sid(2), "fills the slot").unwrap();
            FORKED.set(true);
            wait(&manager);
            FORKED.set(false);
            manager.handle.request_halt();
        }
    }
}
