//! Threads that wait for room in an outbox.
//!
//! Nothing here knows how much room there is: the outbox is asked.

use std::time::{Duration, Instant};

use super::primitives::{
    Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
    lock, sleep,
};

#[derive(Debug)]
pub(crate) struct Waiters {
    /// Threads in [`wait`](Self::wait): nobody is notified when nobody waits.
    count: AtomicUsize,
    /// Lock of the condition variable. A waiter holds it from its last look for room until it blocks, so that no
    /// notification is lost in between.
    room_lock: Mutex<()>,
    room: Condvar,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            room_lock: Mutex::new(()),
            room: Condvar::new(),
        }
    }

    /// Blocks until `has_room` or the deadline has passed (`None`: no deadline). Returns whether there is room.
    /// `has_room` takes the lock under which room is made, and looks.
    pub(crate) fn wait(&self, deadline: Option<Instant>, has_room: impl Fn() -> bool) -> bool {
        // Relaxed: the lock in `has_room` orders this. Whoever makes room after that look has the lock after this thread, and
        // so sees the count.
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut guard = lock(&self.room_lock);
        let found = loop {
            if has_room() {
                break true;
            }
            let left = match deadline {
                None => None,
                Some(at) => match at.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => break false,
                    left => Some(left),
                },
            };
            guard = sleep(&self.room, guard, left);
        };
        drop(guard);
        self.count.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// There is room. Called after the lock under which it was made is released.
    #[inline]
    pub(crate) fn notify(&self) {
        // Relaxed: see `wait`.
        if self.count.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // A waiter that has found no room blocks before it gives this lock up.
        drop(lock(&self.room_lock));
        // All of them: one that wakes up need not use the room, and then the others would wait beside it.
        self.room.notify_all();
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
