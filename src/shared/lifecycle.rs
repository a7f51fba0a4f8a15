//! How far the loop has come, where it listens, and which thread turns it.
//!
//! Nothing here ends the loop: it is asked to, and says when it has.

use std::{
    net::SocketAddr,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::ThreadId,
};

use crate::proto::Address;

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
pub(crate) struct HaltOrder(pub(super) AtomicBool);

impl HaltOrder {
    #[inline]
    pub(crate) fn is_given(&self) -> bool {
        // Relaxed: it orders nothing. The loop acts on it after `take_notified`, which orders the rest.
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Lifecycle {
    state: Mutex<State>,
    ended: Condvar,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                life: Life::Running,
                listening: Vec::new(),
                loop_thread: None,
            }),
            ended: Condvar::new(),
        }
    }

    pub(super) fn life(&self) -> Life {
        self.lock().life
    }

    pub(super) fn set_loop_thread(&self, thread: ThreadId) {
        self.lock().loop_thread = Some(thread);
    }

    pub(super) fn is_loop_thread(&self, thread: ThreadId) -> bool {
        self.lock().loop_thread == Some(thread)
    }

    pub(super) fn set_listening(&self, listening: Vec<Listening>) {
        self.lock().listening = listening;
    }

    pub(super) fn listening(&self) -> Vec<Listening> {
        self.lock().listening.clone()
    }

    /// Returns whether it ends by this call, and not before.
    pub(super) fn end(&self, life: Life) -> bool {
        let mut state = self.lock();
        if state.life != Life::Running {
            return false;
        }
        state.life = life;
        state.listening.clear();
        true
    }

    /// Wakes all who wait for the end.
    pub(super) fn tell_of_the_end(&self) {
        self.ended.notify_all();
    }

    pub(super) fn wait_for_end(&self) {
        let mut state = self.lock();
        while state.life == Life::Running {
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Also when a thread has panicked with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
