//! Threads and tasks that wait for room in an outbox or in the inbox.
//!
//! Nothing here knows how much room there is. The caller passes a function that checks it.
//!
//! Invariants:
//!
//! - A waiter is counted before it checks for room, and until it waits no more. A thread that makes room reads the count after that.
//!   Both do so around the lock under which room is made, so that one of them sees the other.
//! - From its last check to its blocking, or until its waker is in the list, a waiter holds `room_lock`. A thread that notifies takes
//!   this lock in between, so that its notification comes before the check or after the waiter blocks.
//! - `room_lock` is taken before the lock under which room is made. So `notify` is called without that lock.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    held_locks::assert_none_held,
    primitives::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        block_on, lock, release, wake,
    },
    tasks::{Tasks, Ticket},
};

#[derive(Debug)]
pub(crate) struct Waiters {
    /// The number of threads in [`wait`](Self::wait) and of futures of [`wait_async`](Self::wait_async). If there are none,
    /// [`notify`](Self::notify) costs one load.
    count: AtomicUsize,
    /// Lock of the condition variable. A waiter holds it from its last check of `has_room` until it blocks, so that no
    /// notification is lost in between.
    room_lock: Mutex<Tasks>,
    room: Condvar,
}

/// A future that waits.
struct TaskWait<'a> {
    waiters: &'a Waiters,
    ticket: Ticket,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            room_lock: Mutex::new(Tasks::default()),
            room: Condvar::new(),
        }
    }

    /// Blocks until `has_room` returns `true` or the deadline has passed (`None`: no deadline). Returns whether there is room.
    /// `has_room` must take the lock under which room is made.
    pub(crate) fn wait(&self, deadline: Option<Instant>, has_room: impl Fn() -> bool) -> bool {
        // Relaxed: the lock that `has_room` takes orders this. A thread that makes room after the check takes that lock after this
        // thread, and so sees the count in `notify`.
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
            // The lock is released while this thread blocks. There may be room now, or another thread has used it already, or
            // nothing has changed but the time: the loop starts again.
            guard = block_on(&self.room, guard, left);
        };
        drop(guard);
        // Relaxed: a thread that still reads the old count takes a lock and notifies nobody, which does no harm.
        self.count.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// Waits as a task until `check` returns a value, and returns it. `check` must take the lock under which room is made.
    pub(crate) async fn wait_async<T>(&self, check: impl Fn() -> Option<T>) -> T {
        let mut wait = TaskWait::new(self);
        poll_fn(|cx| wait.poll(cx.waker(), &check)).await
    }

    /// Wakes the waiters, since there is room. Called after the lock under which room was made is released.
    #[inline]
    pub(crate) fn notify(&self) {
        assert_none_held();
        // Relaxed: see `wait`.
        if self.count.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // A waiter that has found no room holds this lock until it blocks. So after this it is blocked, and can be notified.
        // All of them: if one were woken and did not use the room, the others would go on waiting although there is room.
        let tasks = lock(&self.room_lock).take(usize::MAX);
        self.room.notify_all();
        wake(tasks);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl<'a> TaskWait<'a> {
    fn new(waiters: &'a Waiters) -> Self {
        // Relaxed: as in `wait`.
        waiters.count.fetch_add(1, Ordering::Relaxed);
        Self {
            waiters,
            ticket: Ticket::default(),
        }
    }

    fn poll<T>(&mut self, waker: &Waker, check: impl Fn() -> Option<T>) -> Poll<T> {
        // Before the lock is taken: this runs code of an executor.
        let waker = waker.clone();
        let mut tasks = lock(&self.waiters.room_lock);
        if let Some(found) = check() {
            return Poll::Ready(found);
        }
        let replaced = tasks.enter(&mut self.ticket, waker);
        drop(tasks);
        release(replaced);
        Poll::Pending
    }
}

impl Drop for TaskWait<'_> {
    fn drop(&mut self) {
        if self.ticket.is_used() {
            let waker = lock(&self.waiters.room_lock).leave(&mut self.ticket);
            release(waker);
        }
        // Relaxed: as in `wait`.
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::fixture::Signal;

    #[test]
    fn task_is_woken_once_and_leaves_no_waker_when_dropped() {
        let waiters = Waiters::new();
        let (signal, waker) = Signal::new();
        let mut wait = TaskWait::new(&waiters);
        let no_room = || None::<()>;
        assert!(wait.poll(&waker, no_room).is_pending());
        assert!(wait.poll(&waker, no_room).is_pending());
        let tasks = || lock(&waiters.room_lock).len();
        assert_eq!((waiters.count(), tasks()), (1, 1));
        waiters.notify();
        waiters.notify();
        assert_eq!((signal.take(), tasks()), (1, 0));
        assert!(wait.poll(&waker, no_room).is_pending());
        drop(wait);
        assert_eq!((waiters.count(), tasks()), (0, 0));
        waiters.notify();
        assert_eq!(signal.take(), 0);
        assert_eq!(
            TaskWait::new(&waiters).poll(&waker, || Some(7)),
            Poll::Ready(7)
        );
    }
}
