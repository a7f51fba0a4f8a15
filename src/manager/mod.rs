//! The connection manager as an application holds it: start, send, receive, ask, halt.
//!
//! Nothing here waits for the network, except for the calls whose name says that they receive or halt.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Idle},
    error::RecvError,
    event_loop::EventLoop,
    handle::Handle,
    inbox::{Batch, BufferPool, Inbox, Nothing, Popped, Wait},
    limits::BUFFER_POOL_BYTES,
    message::Message,
    shared::Stats,
};

mod events;
mod inbox_handler;

pub use events::Events;

use events::of_nothing;
use inbox_handler::InboxHandler;

/// The connection manager of one server, with the loop on a thread of its own.
///
/// It dereferences to its [`Handle`], which can send and ask; the manager itself receives and halts. Dropping it halts
/// it.
pub struct CnxManager {
    handle: Handle,
    events: Events,
    idle: Idle,
    /// Of batches, for chunks.
    pool: Arc<BufferPool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CnxManager {
    /// Opens the listening sockets and starts the loop.
    ///
    /// A listening socket that cannot be opened is no error: the loop tries again, and tells by
    /// [`Event::ListenFailed`](crate::Event::ListenFailed) and [`Handle::listening`].
    ///
    /// # Errors
    ///
    /// When the system gives no event queue or no thread, or a listening socket that was handed over cannot be used.
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
        let name = format!("quorum-cnx-{}", config.own);
        let mut event_loop = EventLoop::with_inbox(config, handler, inbox, false)?;
        let handle = event_loop.handle().clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = event_loop.run() {
                log::error!(target: "quorum_cnx::loop", "the loop ends, nothing is sent or received any more: {error}");
            }
        })?;
        // The thread that has started it may halt it, or wait for room, before the loop's first turn.
        handle.shared().set_loop_thread(thread.thread().id());
        Ok(Self {
            handle,
            events,
            idle,
            pool,
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
                if self.handle.shared().inbox.may_have_items() {
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
        let _ = self.handle.shared().life();
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
            events: self.events.stats(),
            ..self.handle.stats()
        }
    }

    /// Halts: returns when the loop's thread has ended and all sockets are closed, the listening ones included, so that
    /// the port is free. What waits in the slots is discarded; what was received can still be taken. Needs nobody's
    /// cooperation. Called on the loop's own thread, it asks only, as [`Handle::request_halt`] does.
    pub fn halt(&self) {
        self.handle.request_halt();
        if self.handle.shared().is_loop_thread(thread::current().id()) {
            return;
        }
        self.handle.shared().wait_for_end();
        if !self.handle.shared().is_here() {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Outbox, SendError, Sid, shared::FORKED};

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
