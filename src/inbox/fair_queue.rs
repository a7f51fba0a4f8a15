//! A bounded queue of received messages, or events, whose room is shared among the owners of its entries.
//!
//! A push never waits. If there is no room, the owner that holds most loses its oldest items, so that an owner
//! with no more than its share loses nothing because of what another one sends. Or nothing is dropped: then the loop asks [`has_room_for`](Inbox::has_room_for) before it reads more.
//! ZooKeeper's `CircularBlockingQueue` (ZOOKEEPER-3340) is the model of the first rule, without the shares.
//!
//! Invariants:
//!
//! - `pushed == taken + dropped + waiting` whenever the lock is free.
//! - The atomic flags only save the lock. They are stored under it (but for `close`; see there), so that the stores are in the order
//!   of the changes. Every access is relaxed, since a value that is a moment old does no harm: a thread that acts on a flag takes
//!   the lock first, or is the loop, which makes the changes of `tight` that matter to it.
//! - A thread that finds nothing counts itself among the waiting threads under the lock that it then releases by blocking. A push under the lock
//!   thus sees it, and notifies it. A task that finds nothing leaves its waker under the same lock.
//! - Items wake threads and tasks independently of each other: as many of each as there are items, if so many wait. So neither kind
//!   waits while the other one has been woken in its place.
//! - Whenever a task waits in the list, at least as many others that were woken have not looked since as items wait. A task that is
//!   woken takes an item or finds none, or is dropped and wakes another one (`task_pop.rs`).
//! - A link is refused room under the lock, and a note is left there of when to wake the loop. A thread that takes items later sees
//!   the note, and wakes the loop.
//! - No payload is dropped, no thread is notified and no task is woken under the lock.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use super::shares::{Counts, Entry, Room, State};
use crate::sync::{
    Condvar, Guard, Mutex, MutexGuard, Tasks, Waiters,
    atomic::{AtomicBool, Ordering},
    block_on, lock, release, wake,
};

pub(super) mod task_pop;

#[derive(Debug)]
pub(crate) struct Inbox<P: Entry> {
    state: Mutex<State<P>>,
    arrived: Condvar,
    waiters: Waiters,
    room: Room,
    full: InboxFull,
    /// False only if the queue is empty and open; a push may be seen a moment late. A thread that spins reads this, since a
    /// thread that takes the lock again and again keeps all others from it.
    maybe_nonempty: AtomicBool,
    /// False only if every owner has room. The loop reads it before each read of a link.
    tight: AtomicBool,
    /// True exactly when items were dropped since the last [`take_dropped`](Inbox::take_dropped).
    untold: AtomicBool,
}

/// What happens to received messages when the inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboxFull {
    /// The oldest messages of the peer that has most of them in the inbox are dropped, counted and
    /// [reported](crate::Event::Dropped). A peer that has no more than its share of the inbox loses nothing, however much others
    /// send. All peers that are not configured have one share together.
    DropOldest,
    /// Nothing is dropped. A peer that has as much in the inbox as is left free is not read until the application has taken half
    /// of what waits, so that TCP slows that peer. The inbox may exceed its limits by what one turn reads
    /// of one peer (up to 1 MiB), and by one message of each thread that sends to the own sid.
    PushBack,
}

/// How long to wait for an item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    No,
    Until(Instant),
    Forever,
}

impl Wait {
    /// The deadline. `None`: do not wait. `Some(None)`: wait without a deadline.
    pub(crate) fn deadline(self) -> Option<Option<Instant>> {
        match self {
            Self::No => None,
            Self::Until(at) => Some(Some(at)),
            Self::Forever => Some(None),
        }
    }

    /// Waits for at most `timeout`. A timeout beyond the range of the clock means for ever.
    pub(crate) fn at_most(timeout: Duration) -> Self {
        Instant::now()
            .checked_add(timeout)
            .map_or(Self::Forever, Self::Until)
    }
}

/// Why `pop` has returned no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    Yet,
    Ever,
}

/// The result of a `pop`.
#[must_use = "the loop may wait for the room"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Popped<T> {
    pub(crate) taken: T,
    /// True exactly when the caller must wake the loop, which was refused room before.
    pub(crate) wakes: bool,
}

impl<P: Entry> Inbox<P> {
    pub(crate) fn new(room: Room, full: InboxFull) -> Self {
        assert!(room.items > 0, "an inbox holds at least one item");
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                empty: 0,
                base: 0,
                owners: Vec::new(),
                held: 0,
                counts: Counts::default(),
                dropped: BTreeMap::new(),
                wake_at: None,
                waiting_threads: 0,
                tasks: Tasks::default(),
                elsewhere: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            waiters: Waiters::new(),
            room,
            full,
            maybe_nonempty: AtomicBool::new(false),
            tight: AtomicBool::new(false),
            untold: AtomicBool::new(false),
        }
    }

    /// Puts one entry. See [`push_all`](Self::push_all).
    pub(crate) fn push(&self, entry: P) -> Result<bool, Refused> {
        self.push_all([entry])
    }

    /// Puts all of `entries` under one lock. Returns whether items were dropped for the first time since the last
    /// [`take_dropped`](Self::take_dropped).
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`]: a closed inbox takes nothing.
    pub(crate) fn push_all(&self, entries: impl IntoIterator<Item = P>) -> Result<bool, Refused> {
        // Dropped after the lock is released: dropping the last owner of a payload runs the allocator, or code of the application.
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Refused::Closed);
        }
        let mut pushed = 0;
        for entry in entries {
            pushed += entry.items();
            state.add(entry);
            let is_over =
                state.counts.waiting > self.room.items as u64 || state.held > self.room.bytes;
            if is_over && self.full == InboxFull::DropOldest {
                state.make_room(self.room, &mut gone);
            }
        }
        // Relaxed, as all accesses to the flags: the lock orders the stores.
        self.maybe_nonempty.store(true, Ordering::Relaxed);
        let has_dropped = !state.dropped.is_empty() && !self.untold.swap(true, Ordering::Relaxed);
        self.publish(&state);
        // Two loads if nobody waits: this is done for every frame that is sent to the own sid.
        if state.waiting_threads > 0 || !state.tasks.is_empty() {
            self.wake_for(pushed, state);
        } else {
            drop(state);
        }
        if !gone.is_empty() {
            gone.into_iter().for_each(release);
        }
        Ok(has_dropped)
    }

    /// Wakes threads and tasks for so many new items.
    #[cold]
    fn wake_for(&self, pushed: usize, mut state: Guard<MutexGuard<'_, State<P>>>) {
        // No more threads, and no more tasks, are woken than there are new items. The others of a pool of receivers go on waiting.
        let threads = state.waiting_threads.min(pushed);
        let tasks = state.tasks.take(pushed);
        drop(state);
        // After the lock is released, for which the woken threads would wait. A thread that has counted itself blocks already:
        // it gives the lock up in no other way.
        for _ in 0..threads {
            self.arrived.notify_one();
        }
        wake(tasks);
    }

    /// Puts one entry if its owner has room for it. Another thread may take the room between the check and the push. So the limits
    /// can be exceeded by one entry for each thread that calls this at the same time.
    ///
    /// # Errors
    ///
    /// [`Refused`], if the entry was not taken.
    pub(crate) fn offer(&self, entry: P) -> Result<bool, Refused> {
        if !self.has_room(entry.owner()) {
            return Err(Refused::Full);
        }
        self.push(entry)
    }

    /// Whether the loop may read more from this owner: not if the owner has as much in the inbox as is left free. So an owner that
    /// floods the inbox leaves room for others, and these leave room for one more. After `false`, the loop is woken once half of
    /// what waits has been taken.
    #[inline]
    pub(crate) fn has_room_for(&self, owner: impl FnOnce() -> P::Owner) -> bool {
        // Relaxed: the loop calls this, and it has made all pushes that can set `tight` itself, except those of loopback frames.
        !self.tight.load(Ordering::Relaxed) || self.has_room_in_turn(owner())
    }

    #[cold]
    fn has_room_in_turn(&self, owner: P::Owner) -> bool {
        // `tight` may be a moment old. The answer, and the note that it leaves, are made under the lock.
        let mut state = lock(&self.state);
        let has_room = state.has_room(owner, self.room);
        if !has_room && state.wake_at.is_none() {
            state.wake_at = Some(Room {
                items: state.counts.waiting as usize / 2,
                bytes: state.held / 2,
            });
        }
        has_room
    }

    /// Whether this owner has room. Used by threads that push with [`offer`](Self::offer).
    pub(crate) fn has_room(&self, owner: P::Owner) -> bool {
        self.full == InboxFull::DropOldest || {
            let state = lock(&self.state);
            state.closed || state.has_room(owner, self.room)
        }
    }

    /// Blocks until this owner has room or the deadline has passed (`None`: no deadline). Returns whether there is room.
    pub(crate) fn wait_for_room(&self, owner: P::Owner, deadline: Option<Instant>) -> bool {
        self.waiters.wait(deadline, || self.has_room(owner))
    }

    /// Waits as a task until this owner has room.
    pub(crate) async fn wait_for_room_async(&self, owner: P::Owner) {
        let has_room = || self.has_room(owner).then_some(());
        self.waiters.wait_async(has_room).await;
    }

    /// Takes the oldest item. After `close`, the items that are left can still be taken.
    pub(crate) fn pop(&self, wait: Wait) -> Result<Popped<P::Item>, Nothing> {
        self.take(wait, State::take)
    }

    /// Takes the oldest item. Or returns `None` if there is none and `elsewhere` returns `true`: what the caller also waits for has
    /// arrived there. The thread that makes it so must call [`look_elsewhere`](Self::look_elsewhere) afterwards.
    pub(crate) fn pop_or(
        &self,
        wait: Wait,
        elsewhere: impl Fn() -> bool,
    ) -> Result<Popped<Option<P::Item>>, Nothing> {
        let is_blocking = wait.deadline().is_some();
        if is_blocking {
            lock(&self.state).elsewhere += 1;
        }
        let popped = self.take(wait, |state| match state.take() {
            Some(item) => Some(Some(item)),
            None => elsewhere().then_some(None),
        });
        if is_blocking {
            lock(&self.state).elsewhere -= 1;
        }
        popped
    }

    /// Has the threads in [`pop_or`](Self::pop_or) look again at what else they wait for.
    pub(crate) fn look_elsewhere(&self) {
        // A thread that has found nothing elsewhere holds this lock until it blocks. So after this it is blocked, and can be
        // notified, or it has seen what the caller has made so.
        let is_waited_for = lock(&self.state).elsewhere > 0;
        if is_waited_for {
            // All of them: `notify_one` could choose a thread that waits for an item only.
            self.arrived.notify_all();
        }
    }

    /// Moves everything into `into`, which must be empty, and returns the number of items, at least one.
    pub(crate) fn pop_all(
        &self,
        into: &mut VecDeque<P>,
        wait: Wait,
    ) -> Result<Popped<usize>, Nothing> {
        self.take(wait, |state| state.take_all(into))
    }

    /// Whether a `pop` may find an item. Costs one load. A push may be seen a moment late, but it is always seen.
    pub(crate) fn may_have_items(&self) -> bool {
        // Relaxed: a thread that reads `true` then takes the lock, which orders the rest.
        self.maybe_nonempty.load(Ordering::Relaxed)
    }

    /// Whether a `pop` returns at once: with an item, or because none can arrive any more.
    pub(crate) fn is_ready(&self) -> bool {
        let state = lock(&self.state);
        let is_ready = state.counts.waiting > 0 || state.closed;
        if !is_ready {
            // Under the lock, as in `take`: a thread that spins then reads this flag only.
            self.maybe_nonempty.store(false, Ordering::Relaxed);
        }
        is_ready
    }

    /// Whether items were dropped since the last [`take_dropped`](Self::take_dropped).
    pub(crate) fn has_dropped(&self) -> bool {
        // Relaxed: `take_dropped` takes the lock.
        self.untold.load(Ordering::Relaxed)
    }

    /// Returns the number of items that were dropped since the last call, by owner.
    pub(crate) fn take_dropped(&self) -> BTreeMap<P::Owner, u64> {
        let mut state = lock(&self.state);
        self.untold.store(false, Ordering::Relaxed);
        mem::take(&mut state.dropped)
    }

    fn take<T>(
        &self,
        wait: Wait,
        mut take: impl FnMut(&mut State<P>) -> Option<T>,
    ) -> Result<Popped<T>, Nothing> {
        let mut state = lock(&self.state);
        loop {
            if let Some(taken) = take(&mut state) {
                return Ok(self.finish(state, taken));
            }
            if state.closed {
                return Err(Nothing::Ever);
            }
            let left = match wait {
                Wait::Forever => None,
                Wait::Until(at) => Some(at.saturating_duration_since(Instant::now())),
                Wait::No => Some(Duration::ZERO),
            };
            if left == Some(Duration::ZERO) {
                // Stored under the lock, so that it cannot overwrite the `true` of a later push.
                self.maybe_nonempty.store(false, Ordering::Relaxed);
                return Err(Nothing::Yet);
            }
            state.waiting_threads += 1;
            // The lock is released while this thread blocks. Another thread may have taken the item for which this one is
            // woken, or the inbox may be closed: both are looked at again.
            state = block_on(&self.arrived, state, left);
            state.waiting_threads -= 1;
        }
    }

    /// Ends a `take` that has taken something.
    #[inline]
    fn finish<T>(&self, mut state: Guard<MutexGuard<'_, State<P>>>, taken: T) -> Popped<T> {
        // Under the lock under which the loop was refused: it has left its note, or it finds the room that is made here.
        let wakes = state.wakes();
        self.publish(&state);
        drop(state);
        // Without the lock: a waiter takes it while it holds its own; see `Waiters`.
        self.waiters.notify();
        Popped { taken, wakes }
    }

    /// Closes the inbox: nothing can be pushed any more, and all waiting threads and tasks are woken. What is queued can still be
    /// taken.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let tasks = state.tasks.take(usize::MAX);
        drop(state);
        // Not under the lock. `false` is stored under it, while the inbox is open, and so before this: a thread that spins sees
        // the end.
        self.maybe_nonempty.store(true, Ordering::Relaxed);
        self.arrived.notify_all();
        wake(tasks);
        self.waiters.notify();
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Updates `tight`. An owner can have as much as is left free only if at least half of the room is used.
    fn publish(&self, state: &State<P>) {
        if self.full == InboxFull::PushBack {
            let items = state.counts.waiting as usize;
            // With `DropOldest` every owner always has room: `tight` stays `false`.
            let is_tight = items >= self.room.items / 2 || state.held >= self.room.bytes / 2;
            self.tight.store(is_tight, Ordering::Relaxed);
        }
    }
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests;
