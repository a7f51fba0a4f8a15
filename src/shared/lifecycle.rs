//! Whether the loop runs or has ended, where it listens, and which thread turns it.
//!
//! Nothing here ends the loop. The loop is asked to halt, and records here that it has ended.
//!
//! Invariants:
//!
//! - `life` leaves `Running` once, and never changes again.
//! - It is changed and waited for under one lock: a thread that waits either blocks and is notified, or finds the end.
//! - Nothing else is locked under this lock.

use std::{
    mem,
    net::SocketAddr,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::ThreadId,
};

use crate::proto::Address;

/// The state of a listening socket. There is one socket for each IP address of a configured address: several for a name with
/// several IP addresses, and none if another socket already accepts the connections, as the socket of a wildcard does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listening {
    /// The socket is bound to this address.
    Open(SocketAddr),
    /// The socket is not open yet, and the loop tries again. The address is as it was configured, or an IP address of a configured
    /// name.
    Trying(Address),
    /// The tries for this configured address are used up, and none of its IP addresses is listened on.
    Lost(Address),
}

/// Whether the loop runs, or how it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// It ended on request.
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

/// Whether the loop was asked to halt. It is read for every frame and written once, so it has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct HaltOrder(pub(super) AtomicBool);

impl HaltOrder {
    #[inline]
    pub(crate) fn is_given(&self) -> bool {
        // Relaxed: no other memory depends on it. The loop acts on it after `take_notified`, which acquires what the thread that
        // asked had done before.
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

    /// Returns the thread before.
    pub(super) fn set_loop_thread(&self, thread: Option<ThreadId>) -> Option<ThreadId> {
        mem::replace(&mut self.lock().loop_thread, thread)
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

    /// Records the end. Returns whether this call was the first.
    pub(super) fn end(&self, life: Life) -> bool {
        let mut state = self.lock();
        if state.life != Life::Running {
            return false;
        }
        state.life = life;
        state.listening.clear();
        true
    }

    /// Wakes all threads that wait for the end.
    pub(super) fn tell_of_the_end(&self) {
        // Not in `end`: outboxes and inbox are closed in between. A thread that begins to wait in that time finds the end and
        // does not block.
        self.ended.notify_all();
    }

    pub(super) fn wait_for_end(&self) {
        let mut state = self.lock();
        while state.life == Life::Running {
            // The lock is released while this thread blocks. It may wake without a reason, but `life` has changed for good if it has.
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the loop has ended or this time has passed.
    #[cfg(feature = "tls")]
    pub(super) fn wait_for_end_at_most(&self, time: std::time::Duration) -> Life {
        let is_running = |state: &mut State| state.life == Life::Running;
        let waited = self.ended.wait_timeout_while(self.lock(), time, is_running);
        waited.unwrap_or_else(PoisonError::into_inner).0.life
    }

    #[cfg(test)]
    pub(super) fn hold_lock(&self) -> impl Drop + '_ {
        self.lock()
    }

    /// Locks the state, also after a thread has panicked while it held the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
