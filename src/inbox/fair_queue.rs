//! A bounded queue of received messages, or events, whose room is shared among the owners of its entries.
//!
//! A push never waits. If there is no room, the owner that holds most loses its oldest items, so that no owner loses items because
//! of what another one sends. Or nothing is dropped: then the loop asks [`has_room_for`](Inbox::has_room_for) before it reads more.
//! ZooKeeper's `CircularBlockingQueue` (ZOOKEEPER-3340) is the model of the first rule, without the shares.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use crate::sync::{
    Condvar, Mutex, Waiters,
    atomic::{AtomicBool, Ordering},
    lock, release, sleep,
};

/// What is put into an inbox at a time: one item or several, which arrived together from one owner.
pub(crate) trait Entry {
    type Item;

    /// The owner whose share of the room an entry uses.
    type Owner: Copy + Ord + std::fmt::Debug;

    fn owner(&self) -> Self::Owner;

    /// The number of items left in it.
    fn items(&self) -> usize;

    /// Takes the oldest item.
    fn take(&mut self) -> Self::Item;

    /// Drops this many of the oldest items. At least one is left.
    fn drop_oldest(&mut self, items: usize);

    /// The memory that it holds, beside its place in the queue. It stays the same until the last item is taken.
    fn held(&self) -> usize;

    /// Makes an entry of the same owner without items.
    fn emptied(&self) -> Self;
}

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

/// How much may wait in an inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) items: usize,
    /// The newest entry is kept even if it alone is larger.
    pub(crate) bytes: usize,
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
    /// of what waits, so that TCP slows that peer. The inbox may exceed its limits by one read (256 KiB), and by one message of
    /// each thread that sends to the own sid.
    PushBack,
}

#[derive(Debug)]
struct State<P: Entry> {
    /// Entries whose items were all dropped are still in it, without items, and are skipped.
    queue: VecDeque<P>,
    /// The number of entries without items.
    empty: usize,
    /// The number of entries that were removed from the front of the queue.
    base: u64,
    /// What each owner has in the queue, sorted by owner. An owner that has nothing is not in it.
    owners: Vec<(P::Owner, Usage)>,
    /// The memory that the entries hold.
    held: usize,
    counts: Counts,
    /// Items dropped since the last [`take_dropped`](Inbox::take_dropped), by owner.
    dropped: BTreeMap<P::Owner, u64>,
    /// Set when an owner was refused room. The loop is woken as soon as no more items, or no more bytes, than this wait.
    wake_at: Option<Room>,
    /// The number of threads that block in `pop`. If there are none, a push notifies none.
    sleepers: usize,
    /// True exactly when nothing can be pushed any more.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    items: u64,
    held: usize,
    /// No entry of this owner has a smaller number. Entries are numbered from the first one that was ever pushed.
    first: u64,
}

/// What happened to the items: `pushed == taken + dropped + waiting` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) pushed: u64,
    pub(crate) taken: u64,
    pub(crate) dropped: u64,
    pub(crate) waiting: u64,
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
                sleepers: 0,
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
        self.maybe_nonempty.store(true, Ordering::Relaxed);
        let has_dropped = !state.dropped.is_empty() && !self.untold.swap(true, Ordering::Relaxed);
        self.publish(&state);
        // No more threads are woken than there are new items. The others of a pool of receivers go on blocking.
        let wake = state.sleepers.min(pushed);
        drop(state);
        for _ in 0..wake {
            self.arrived.notify_one();
        }
        if !gone.is_empty() {
            gone.into_iter().for_each(release);
        }
        Ok(has_dropped)
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

    /// Takes the oldest item. After `close`, the items that are left can still be taken.
    pub(crate) fn pop(&self, wait: Wait) -> Result<Popped<P::Item>, Nothing> {
        self.take(wait, State::take)
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
                let wakes = state.wakes();
                self.publish(&state);
                drop(state);
                self.waiters.notify();
                return Ok(Popped { taken, wakes });
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
            state.sleepers += 1;
            state = sleep(&self.arrived, state, left);
            state.sleepers -= 1;
        }
    }

    /// Closes the inbox: nothing can be pushed any more, and all waiting threads are woken. What is queued can still be taken.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.maybe_nonempty.store(true, Ordering::Relaxed);
        self.arrived.notify_all();
        self.waiters.notify();
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Updates `tight`. An owner can have as much as is left free only if at least half of the room is used.
    fn publish(&self, state: &State<P>) {
        if self.full == InboxFull::PushBack {
            let items = state.counts.waiting as usize;
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

impl<P: Entry> State<P> {
    fn add(&mut self, entry: P) {
        let (items, held) = (entry.items() as u64, entry.held());
        let nth = self.base + self.queue.len() as u64;
        match self.find(entry.owner()) {
            Ok(at) => {
                let (_, usage) = &mut self.owners[at];
                usage.items += items;
                usage.held += held;
            }
            Err(at) => {
                let first = nth;
                let usage = Usage { items, held, first };
                self.owners.insert(at, (entry.owner(), usage));
            }
        }
        self.counts.pushed += items;
        self.counts.waiting += items;
        self.held += held;
        self.queue.push_back(entry);
    }

    /// Drops the oldest items of the owner that holds most, until the rest fits. Whole entries are moved into `gone`.
    fn make_room(&mut self, room: Room, gone: &mut Vec<P>) {
        while let Some(excess @ 1..) = self.counts.waiting.checked_sub(room.items as u64) {
            let most = self.owners.iter().max_by_key(|(_, usage)| usage.items);
            let Some(&(owner, usage)) = most else {
                return;
            };
            // Only down to its share, so that several owners that flood the inbox keep the same number each.
            let share = room.items / self.owners.len();
            let over = usage.items.saturating_sub(share as u64).max(1);
            let Some(index) = self.oldest_of(owner) else {
                return;
            };
            self.drop_some(index, excess.min(over), gone);
        }
        // Only whole entries are dropped here, since an entry frees its memory only as a whole.
        while self.held > room.bytes {
            let Some(index) = self.largest_but_newest() else {
                return;
            };
            self.drop_some(index, u64::MAX, gone);
        }
    }

    /// The index of the oldest entry of the owner that holds most memory. The newest entry of the queue does not count: it is kept.
    fn largest_but_newest(&mut self) -> Option<usize> {
        let newest = self.queue.back()?;
        let (newest_owner, newest_held) = (newest.owner(), newest.held());
        let beside = |(owner, usage): &(P::Owner, Usage)| {
            let own = if *owner == newest_owner {
                newest_held
            } else {
                0
            };
            (usage.held - own, *owner)
        };
        let (held, owner) = self.owners.iter().map(beside).max()?;
        if held == 0 {
            return None;
        }
        self.oldest_of(owner)
    }

    /// The index of the oldest entry of this owner.
    fn oldest_of(&mut self, owner: P::Owner) -> Option<usize> {
        let at = self.find(owner).ok()?;
        let (_, usage) = self.owners.get_mut(at)?;
        let from = usage.first.saturating_sub(self.base) as usize;
        let is_its = |entry: &P| entry.items() > 0 && entry.owner() == owner;
        let index = from
            + self
                .queue
                .range(from.min(self.queue.len())..)
                .position(is_its)?;
        usage.first = self.base + index as u64;
        Some(index)
    }

    /// Drops up to `items` items of this entry, the oldest first.
    fn drop_some(&mut self, index: usize, items: u64, gone: &mut Vec<P>) {
        let Some(entry) = self.queue.get_mut(index) else {
            return;
        };
        let (owner, all) = (entry.owner(), entry.items() as u64);
        let (items, held) = if items < all {
            entry.drop_oldest(items as usize);
            (items, 0)
        } else {
            let held = entry.held();
            let emptied = entry.emptied();
            gone.push(mem::replace(entry, emptied));
            self.empty += 1;
            (all, held)
        };
        self.counts.dropped += items;
        self.counts.waiting -= items;
        *self.dropped.entry(owner).or_default() += items;
        self.subtract(owner, items, held);
        self.skip_empty();
    }

    /// Takes this off what an owner has.
    fn subtract(&mut self, owner: P::Owner, items: u64, held: usize) {
        self.held -= held;
        let Ok(at) = self.find(owner) else {
            return;
        };
        let (_, usage) = &mut self.owners[at];
        usage.items -= items;
        usage.held -= held;
        if usage.items == 0 {
            self.owners.remove(at);
        }
    }

    /// The index of an owner in `owners`, or the index at which to insert it.
    #[inline]
    fn find(&self, owner: P::Owner) -> Result<usize, usize> {
        self.owners
            .binary_search_by_key(&owner, |(owner, _)| *owner)
    }

    /// Removes entries without items: those in front, and all of them if they are more than half. Afterwards the front entry, if
    /// there is one, has an item.
    fn skip_empty(&mut self) {
        while self.queue.front().is_some_and(|entry| entry.items() == 0) {
            self.queue.pop_front();
            self.base += 1;
            self.empty -= 1;
        }
        if self.empty > self.queue.len() / 2 {
            self.queue.retain(|entry| entry.items() > 0);
            self.empty = 0;
            for (_, usage) in &mut self.owners {
                usage.first = self.base;
            }
        }
    }

    fn take(&mut self) -> Option<P::Item> {
        let oldest = self.queue.front_mut()?;
        // Read before the last item is taken, after which the entry holds no memory.
        let (owner, mut held) = (oldest.owner(), oldest.held());
        let item = oldest.take();
        let is_last = oldest.items() == 0;
        if is_last {
            self.queue.pop_front();
            self.base += 1;
        } else {
            held = 0;
        }
        self.counts.taken += 1;
        self.counts.waiting -= 1;
        self.subtract(owner, 1, held);
        if is_last && self.empty > 0 {
            self.skip_empty();
        }
        Some(item)
    }

    fn take_all(&mut self, into: &mut VecDeque<P>) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        debug_assert!(into.is_empty(), "what is in it would become the queue");
        self.base += self.queue.len() as u64;
        mem::swap(&mut self.queue, into);
        if mem::take(&mut self.empty) > 0 {
            into.retain(|entry| entry.items() > 0);
        }
        self.owners.clear();
        self.held = 0;
        let taken = mem::take(&mut self.counts.waiting);
        self.counts.taken += taken;
        Some(taken as usize)
    }

    /// Whether this owner has less in the queue than is left free.
    fn has_room(&self, owner: P::Owner, room: Room) -> bool {
        let found = self.find(owner).ok().and_then(|at| self.owners.get(at));
        let usage = found.map(|(_, usage)| *usage).unwrap_or_default();
        let free = (room.items as u64).saturating_sub(self.counts.waiting);
        usage.items < free && usage.held < room.bytes.saturating_sub(self.held)
    }

    /// Whether the loop must be woken. True once for each refusal.
    fn wakes(&mut self) -> bool {
        let is_time = |at: Room| self.counts.waiting <= at.items as u64 || self.held <= at.bytes;
        self.wake_at.take_if(|at| is_time(*at)).is_some()
    }
}

#[cfg(test)]
impl Room {
    fn for_items(items: usize) -> Self {
        let bytes = usize::MAX;
        Self { items, bytes }
    }
}

/// An entry of consecutive numbers, for the tests.
#[cfg(test)]
impl Entry for std::ops::Range<u8> {
    type Item = u8;
    type Owner = ();

    fn owner(&self) {}

    fn emptied(&self) -> Self {
        0..0
    }

    fn items(&self) -> usize {
        self.len()
    }

    fn take(&mut self) -> u8 {
        self.next().expect("an entry holds something")
    }

    fn drop_oldest(&mut self, items: usize) {
        self.start += items as u8;
    }

    /// Like a run: all of the memory is held until the last item is taken.
    fn held(&self) -> usize {
        usize::from(self.end)
    }
}

/// An entry of several owners, for the tests: `(owner, first item, number of items)`.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Of(char, u64, usize);

#[cfg(test)]
impl Entry for Of {
    type Item = (char, u64);
    type Owner = char;

    fn owner(&self) -> char {
        self.0
    }

    fn items(&self) -> usize {
        self.2
    }

    fn take(&mut self) -> (char, u64) {
        self.drop_oldest(1);
        (self.0, self.1 - 1)
    }

    fn drop_oldest(&mut self, items: usize) {
        self.1 += items as u64;
        self.2 -= items;
    }

    fn held(&self) -> usize {
        // The same until the last item is taken.
        usize::from(self.2 > 0) * 8
    }

    fn emptied(&self) -> Self {
        Self(self.0, self.1, 0)
    }
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests;
