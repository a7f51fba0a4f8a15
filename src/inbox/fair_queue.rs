//! A bounded queue that shares its room among those who fill it: received messages, or events, on their way to the application.
//!
//! A push never waits. Without room, the owner that holds most loses its oldest items, so that nobody is dropped for what
//! another one sends. Or nothing is dropped: then the loop asks [`has_room_for`](Inbox::has_room_for) before it reads more.
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

/// What is put into an inbox at a time: items that came together from one owner, at least one.
pub(crate) trait Entry {
    type Item;

    /// In whose share of the room it is.
    type Owner: Copy + Ord + std::fmt::Debug;

    fn owner(&self) -> Self::Owner;

    /// How many are left in it.
    fn items(&self) -> usize;

    /// Takes the oldest of them.
    fn take(&mut self) -> Self::Item;

    /// Drops this many of the oldest, but not all.
    fn drop_oldest(&mut self, items: usize);

    /// The memory that it holds, beside its place in the queue: the same until the last item goes.
    fn held(&self) -> usize;

    /// An entry of the same owner without an item.
    fn emptied(&self) -> Self;
}

#[derive(Debug)]
pub(crate) struct Inbox<P: Entry> {
    state: Mutex<State<P>>,
    arrived: Condvar,
    waiters: Waiters,
    room: Room,
    full: InboxFull,
    /// False exactly when the queue is empty and open, give or take a moment: a thread that spins looks here, since one
    /// that takes the lock again and again keeps everybody else from it.
    maybe_nonempty: AtomicBool,
    /// False only if every owner has room: the loop looks here before each read.
    tight: AtomicBool,
    /// True exactly when items were dropped that nobody was told of.
    untold: AtomicBool,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) items: usize,
    /// The newest entry stays even if it alone is larger.
    pub(crate) bytes: usize,
}

/// What becomes of received messages when the inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboxFull {
    /// The oldest messages of the peer that has most of them in the inbox are dropped, counted and
    /// [reported](crate::Event::Dropped). A peer that has no more than its share of the inbox loses nothing, however much
    /// others send. Those who are not configured are one peer in this.
    DropOldest,
    /// Nothing is dropped. A peer that has as much in the inbox as is left free is not read until the application has taken
    /// half of what waits, so that TCP slows that peer. The inbox may become larger by one read (256 KiB), and by a message of
    /// each thread that sends to this server itself.
    PushBack,
}

#[derive(Debug)]
struct State<P: Entry> {
    /// Entries without an item are skipped; they stand where all of an entry was dropped.
    queue: VecDeque<P>,
    /// How many these are.
    empty: usize,
    /// Entries that have left the front of the queue.
    base: u64,
    /// What each owner has in the queue, sorted by owner; nobody who has nothing.
    owners: Vec<(P::Owner, Usage)>,
    /// The memory that the entries hold.
    held: usize,
    counts: Counts,
    /// Items dropped since somebody was told, by owner.
    dropped: BTreeMap<P::Owner, u64>,
    /// What may wait at most for the loop to be woken, since somebody was refused room.
    wake_at: Option<Room>,
    /// Threads in `pop`: nobody is notified when nobody sleeps.
    sleepers: usize,
    /// True exactly when nothing can be pushed any more.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    items: u64,
    held: usize,
    /// No entry of this owner stands before this one, counted since the beginning.
    first: u64,
}

/// What became of the items: `pushed == taken + dropped + waiting` at any time.
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
    /// Until when to wait, if at all: `Some(None)` is for ever.
    pub(crate) fn deadline(self) -> Option<Option<Instant>> {
        match self {
            Self::No => None,
            Self::Until(at) => Some(Some(at)),
            Self::Forever => Some(None),
        }
    }

    /// A time that no clock reaches is for ever.
    pub(crate) fn at_most(timeout: Duration) -> Self {
        Instant::now()
            .checked_add(timeout)
            .map_or(Self::Forever, Self::Until)
    }
}

/// Why `pop` came back without an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    Yet,
    Ever,
}

/// What was taken.
#[must_use = "the loop may wait for the room"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Popped<T> {
    pub(crate) taken: T,
    /// The loop was refused room and is to look again.
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

    /// Puts all of `entries` under one lock and with one wake. Returns whether items were dropped for the first time since
    /// [`take_dropped`](Self::take_dropped).
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`]: a closed inbox takes nothing.
    pub(crate) fn push_all(&self, entries: impl IntoIterator<Item = P>) -> Result<bool, Refused> {
        // Freed after the lock: the last owner of a payload runs the allocator, or code of the application.
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
        // As many threads as there are items for: of a pool of receivers the others sleep on.
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

    /// Puts one entry if its owner has room for it. Another thread may take the room in between: as much more may wait as
    /// threads offer at a time.
    ///
    /// # Errors
    ///
    /// [`Refused`], if it was not taken.
    pub(crate) fn offer(&self, entry: P) -> Result<bool, Refused> {
        if !self.has_room(entry.owner()) {
            return Err(Refused::Full);
        }
        self.push(entry)
    }

    /// Whether more of this owner is to be pushed: not if it has as much as is left free. So an owner that floods the inbox
    /// leaves room for others, and they for one more. After `false`, what is taken wakes the loop once half of it is gone.
    #[inline]
    pub(crate) fn has_room_for(&self, owner: impl FnOnce() -> P::Owner) -> bool {
        // Relaxed: the loop, which asks, has pushed all that can make it tight, but for loopback.
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

    /// Whether this owner has room. For a thread that pushes by [`offer`](Self::offer).
    pub(crate) fn has_room(&self, owner: P::Owner) -> bool {
        self.full == InboxFull::DropOldest || {
            let state = lock(&self.state);
            state.closed || state.has_room(owner, self.room)
        }
    }

    /// Blocks until this owner has room or the deadline has passed (`None`: no deadline). Returns whether there is.
    pub(crate) fn wait_for_room(&self, owner: P::Owner, deadline: Option<Instant>) -> bool {
        self.waiters.wait(deadline, || self.has_room(owner))
    }

    /// Takes the oldest item. A closed inbox is emptied first.
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

    /// Whether it is worth asking, at the price of a load. A push may be seen a moment late, and never not at all.
    pub(crate) fn may_have_items(&self) -> bool {
        // Relaxed: who sees it takes the lock, which orders the rest.
        self.maybe_nonempty.load(Ordering::Relaxed)
    }

    /// Whether items were dropped of which [`take_dropped`](Self::take_dropped) has not told.
    pub(crate) fn has_dropped(&self) -> bool {
        // Relaxed: `take_dropped` takes the lock.
        self.untold.load(Ordering::Relaxed)
    }

    /// How many items were dropped since the last call, by owner.
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
                // Under the lock, so that it cannot hide a push.
                self.maybe_nonempty.store(false, Ordering::Relaxed);
                return Err(Nothing::Yet);
            }
            state.sleepers += 1;
            state = sleep(&self.arrived, state, left);
            state.sleepers -= 1;
        }
    }

    /// Nothing comes any more: wakes everybody. What is queued can still be taken.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.maybe_nonempty.store(true, Ordering::Relaxed);
        self.arrived.notify_all();
        self.waiters.notify();
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// An owner has as much as is left only if at least half of the room is used.
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

    /// Drops the oldest items of whoever holds most, until the rest has room. Whole entries go into `gone`.
    fn make_room(&mut self, room: Room, gone: &mut Vec<P>) {
        while let Some(excess @ 1..) = self.counts.waiting.checked_sub(room.items as u64) {
            let most = self.owners.iter().max_by_key(|(_, usage)| usage.items);
            let Some(&(owner, usage)) = most else {
                return;
            };
            // Down to its share, so that of several that flood the inbox each keeps as much.
            let share = room.items / self.owners.len();
            let over = usage.items.saturating_sub(share as u64).max(1);
            let Some(index) = self.oldest_of(owner) else {
                return;
            };
            self.drop_some(index, excess.min(over), gone);
        }
        // An entry gives back its memory only as a whole.
        while self.held > room.bytes {
            let Some(index) = self.largest_but_newest() else {
                return;
            };
            self.drop_some(index, u64::MAX, gone);
        }
    }

    /// Where the oldest entry stands of the owner that holds most memory beside the newest entry, which stays.
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

    /// Where the oldest entry of this owner stands.
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

    /// Drops up to so many items of this entry.
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

    /// An owner has so much less.
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

    /// Where an owner stands, or is to be put.
    #[inline]
    fn find(&self, owner: P::Owner) -> Result<usize, usize> {
        self.owners
            .binary_search_by_key(&owner, |(owner, _)| *owner)
    }

    /// The entry in front has an item, and those without are fewer than those with one.
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
        // Before its last item goes, and its memory with it.
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

    /// Whether this owner has less than is left free.
    fn has_room(&self, owner: P::Owner, room: Room) -> bool {
        let found = self.find(owner).ok().and_then(|at| self.owners.get(at));
        let usage = found.map(|(_, usage)| *usage).unwrap_or_default();
        let free = (room.items as u64).saturating_sub(self.counts.waiting);
        usage.items < free && usage.held < room.bytes.saturating_sub(self.held)
    }

    /// Whether the loop is to be woken, which it is once.
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

/// Numbers, for the tests.
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

    /// As a run does: all of it until the last goes.
    fn held(&self) -> usize {
        usize::from(self.end)
    }
}

/// Items of several owners, for the tests: `(owner, first item, items)`. An item takes a byte.
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
        // The same until the last item goes.
        usize::from(self.2 > 0) * 8
    }

    fn emptied(&self) -> Self {
        Self(self.0, self.1, 0)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    fn pop(inbox: &Inbox<std::ops::Range<u8>>, wait: Wait) -> Result<u8, Nothing> {
        inbox.pop(wait).map(|popped| popped.taken)
    }

    #[test]
    fn loom_room_that_the_loop_was_refused_wakes_it() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::PushBack));
            inbox.push(Of('a', 0, 2)).unwrap();
            let application = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    let one = inbox.pop(Wait::No).unwrap();
                    let other = inbox.pop(Wait::No).unwrap();
                    one.wakes || other.wakes
                })
            };
            let has_room = inbox.has_room_for(|| 'a');
            let wakes = application.join().unwrap();
            assert!(has_room || wakes, "the loop waits for ever");
            assert!(inbox.has_room_for(|| 'a'));
        });
    }

    #[test]
    fn loom_a_sleeper_is_woken_by_a_push_and_by_the_end() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::DropOldest));
            let sleeper = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    let mut taken = 0;
                    while pop(&inbox, Wait::Forever).is_ok() {
                        taken += 1;
                    }
                    taken
                })
            };
            inbox.push(1..2).unwrap();
            inbox.push(2..4).unwrap();
            inbox.close();
            let taken = sleeper.join().unwrap();
            let counts = inbox.counts();
            assert_eq!(counts.taken, taken);
            assert_eq!(
                counts.pushed,
                counts.taken + counts.dropped + counts.waiting
            );
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    fn pop(inbox: &Inbox<std::ops::Range<u8>>, wait: Wait) -> Result<u8, Nothing> {
        inbox.pop(wait).map(|popped| popped.taken)
    }

    fn pop_all(
        inbox: &Inbox<std::ops::Range<u8>>,
        into: &mut VecDeque<std::ops::Range<u8>>,
        wait: Wait,
    ) -> Result<usize, Nothing> {
        inbox.pop_all(into, wait).map(|popped| popped.taken)
    }

    /// `TestCircularBlockingQueue` of the original: of three offers to a queue of two, the last two are taken.
    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
        for n in 1..=3 {
            assert_eq!(inbox.push(n..n + 1), Ok(n == 3));
        }
        assert_eq!(
            (
                pop(&inbox, Wait::No),
                pop(&inbox, Wait::No),
                pop(&inbox, Wait::No)
            ),
            (Ok(2), Ok(3), Err(Nothing::Yet))
        );
        assert_eq!(
            inbox.counts(),
            Counts {
                pushed: 3,
                taken: 2,
                dropped: 1,
                waiting: 0
            }
        );
    }

    #[test]
    fn all_who_wait_are_woken_by_what_comes_at_once() {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
        let sleepers = [(); 2].map(|()| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || pop(&inbox, Wait::Forever))
        });
        while lock(&inbox.state).sleepers < sleepers.len() {
            thread::yield_now();
        }
        inbox.push(1..3).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !sleepers.iter().all(thread::JoinHandle::is_finished) {
            assert!(Instant::now() < deadline, "somebody sleeps on");
            thread::yield_now();
        }
        let taken: Vec<_> = sleepers.map(|sleeper| sleeper.join().unwrap()).into();
        assert!(
            taken.contains(&Ok(1)) && taken.contains(&Ok(2)),
            "{taken:?}"
        );
    }

    #[test]
    fn an_entry_larger_than_the_room_leaves_its_newest() {
        let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
        inbox.push(0..1).unwrap();
        inbox.push_all([1..3, 3..6]).unwrap();
        assert_eq!(
            (pop(&inbox, Wait::No), pop(&inbox, Wait::No)),
            (Ok(4), Ok(5))
        );
        assert_eq!(
            inbox.counts(),
            Counts {
                pushed: 6,
                taken: 2,
                dropped: 4,
                waiting: 0
            }
        );
    }

    #[test]
    fn the_oldest_entry_is_dropped_when_memory_is_full() {
        let room = Room {
            items: 100,
            bytes: 10,
        };
        let inbox = Inbox::new(room, InboxFull::DropOldest);
        inbox.push_all([0..2, 2..4, 4..6]).unwrap();
        assert_eq!(inbox.counts().dropped, 2, "12 bytes are held by three");
        assert_eq!(
            (pop(&inbox, Wait::No), pop(&inbox, Wait::No)),
            (Ok(2), Ok(3))
        );
        // What was taken holds nothing.
        inbox.push(0..4).unwrap();
        assert_eq!(inbox.counts().dropped, 2);
        inbox.push(50..60).unwrap();
        assert_eq!((inbox.counts().dropped, inbox.counts().waiting), (8, 10));
        let mut taken = VecDeque::new();
        assert_eq!(pop_all(&inbox, &mut taken, Wait::No), Ok(10));
        inbox.push_all([0..4, 0..5]).unwrap();
        assert_eq!(inbox.counts().waiting, 9, "all was taken");
        let counts = inbox.counts();
        assert_eq!(
            counts.pushed,
            counts.taken + counts.dropped + counts.waiting
        );
    }

    #[test]
    fn everything_is_taken_at_once() {
        let inbox = Inbox::new(Room::for_items(4), InboxFull::DropOldest);
        let mut taken = VecDeque::new();
        assert_eq!(pop_all(&inbox, &mut taken, Wait::No), Err(Nothing::Yet));
        inbox.push_all([0..3, 3..5]).unwrap();
        assert_eq!(pop(&inbox, Wait::No), Ok(1));
        assert_eq!(pop_all(&inbox, &mut taken, Wait::Forever), Ok(3));
        assert_eq!(taken, [2..3, 3..5]);
        assert_eq!(pop(&inbox, Wait::No), Err(Nothing::Yet));
        assert_eq!(
            inbox.counts(),
            Counts {
                pushed: 5,
                taken: 4,
                dropped: 1,
                waiting: 0
            }
        );
    }

    #[test]
    fn a_taker_waits_for_an_offer() {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
        let taker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || pop(&inbox, Wait::Forever))
        };
        inbox.push(7..8).unwrap();
        assert_eq!(taker.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_closed_inbox_is_emptied_and_then_says_so() {
        let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
        inbox.push(1..2).unwrap();
        inbox.close();
        assert_eq!(inbox.push(2..3), Err(Refused::Closed));
        assert_eq!(pop(&inbox, Wait::Forever), Ok(1));
        assert_eq!(pop(&inbox, Wait::Forever), Err(Nothing::Ever));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let inbox = Inbox::<std::ops::Range<u8>>::new(Room::for_items(1), InboxFull::DropOldest);
        assert_eq!(pop(&inbox, Wait::Until(Instant::now())), Err(Nothing::Yet));
    }

    fn all(inbox: &Inbox<Of>) -> Vec<(char, u64)> {
        std::iter::from_fn(|| inbox.pop(Wait::No).ok())
            .map(|popped| popped.taken)
            .collect()
    }

    #[test]
    fn an_owner_that_floods_drops_its_own_items() {
        let inbox = Inbox::new(Room::for_items(10), InboxFull::DropOldest);
        inbox.push(Of('q', 0, 1)).unwrap();
        for n in 0..100 {
            inbox.push(Of('f', 1000 * n, 1000)).unwrap();
            if n % 40 == 1 {
                inbox.push(Of('q', n, 1)).unwrap();
            }
        }
        let quiet: Vec<_> = [0, 1, 41, 81].map(|n| ('q', n)).into();
        let (of_quiet, of_flood): (Vec<_>, Vec<_>) = all(&inbox)
            .into_iter()
            .partition(|(owner, _)| *owner == 'q');
        assert_eq!(of_quiet, quiet);
        let newest: Vec<_> = (99_994..100_000).map(|n| ('f', n)).collect();
        assert_eq!(of_flood, newest);
        assert!(inbox.has_dropped());
        assert_eq!(inbox.take_dropped(), BTreeMap::from([('f', 99_994)]));
        assert!(!inbox.has_dropped() && inbox.take_dropped().is_empty());
    }

    #[test]
    fn owners_that_flood_keep_equal_shares() {
        let inbox = Inbox::new(Room::for_items(100), InboxFull::DropOldest);
        for n in 0..10 {
            for owner in ['a', 'b'] {
                inbox.push(Of(owner, 650 * n, 650)).unwrap();
            }
        }
        let of_a = all(&inbox)
            .iter()
            .filter(|(owner, _)| *owner == 'a')
            .count();
        assert_eq!((of_a, inbox.counts().taken), (50, 100));
    }

    #[test]
    fn memory_is_taken_from_the_owner_that_holds_most() {
        let room = Room {
            items: 1000,
            bytes: 80,
        };
        let inbox = Inbox::new(room, InboxFull::DropOldest);
        inbox.push(Of('q', 0, 3)).unwrap();
        for n in 0..1000 {
            inbox.push(Of('f', n, 1)).unwrap();
        }
        let (quiet, rest) = (all(&inbox), inbox.counts());
        assert_eq!(quiet[..3], [('q', 0), ('q', 1), ('q', 2)]);
        assert_eq!((quiet.len(), rest.dropped), (12, 991));
        // Where entries were dropped nothing is left behind.
        assert!(lock(&inbox.state).queue.is_empty());
    }

    #[test]
    fn nothing_is_dropped_when_peers_are_slowed() {
        let inbox = Inbox::new(Room::for_items(10), InboxFull::PushBack);
        let mut n = 0;
        while inbox.has_room_for(|| 'f') {
            inbox.push(Of('f', n, 1)).unwrap();
            n += 1;
        }
        assert_eq!(n, 5, "it has as much as is left");
        assert!(inbox.has_room_for(|| 'q'), "another one has room");
        inbox.push(Of('q', 0, 1)).unwrap();
        // Half of what waited when it was refused.
        let wakes: Vec<_> = (0..5).map(|_| inbox.pop(Wait::No).unwrap().wakes).collect();
        assert_eq!(wakes, [false, false, false, true, false]);
        assert!(inbox.has_room_for(|| 'f'));
        // A read that has begun is taken whole.
        inbox.push(Of('f', n, 1000)).unwrap();
        assert!(!inbox.has_room_for(|| 'f') && !inbox.has_room_for(|| 'q'));
        assert_eq!(inbox.offer(Of('q', 1, 1)), Err(Refused::Full));
        let mut into = VecDeque::new();
        let popped = inbox.pop_all(&mut into, Wait::No).unwrap();
        assert_eq!((popped.taken, popped.wakes), (1001, true));
        assert_eq!(inbox.counts().dropped, 0);
        assert_eq!(inbox.offer(Of('q', 1, 1)), Ok(false));
    }

    #[test]
    fn a_thread_that_waits_for_room_is_told() {
        let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::PushBack));
        inbox.push(Of('a', 0, 1)).unwrap();
        let waiter = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.wait_for_room('a', None))
        };
        while inbox.waiters.count() == 0 {
            thread::yield_now();
        }
        assert_eq!(inbox.pop(Wait::No).unwrap().taken, ('a', 0));
        assert!(waiter.join().unwrap());
    }

    proptest::proptest! {
        /// Any pushes and pops of any owners: each owner's items come in order, the sums hold, and an owner loses nothing that
        /// fits its share.
        #[test]
        fn an_inbox_shares_its_room(
            steps in proptest::collection::vec((0_u8..5, 0_u8..4, 1_usize..30), 1..200),
            items in 1_usize..40,
            bytes in 8_usize..200,
        ) {
            let inbox = Inbox::new(Room { items, bytes }, InboxFull::DropOldest);
            let mut pushed = BTreeMap::<char, u64>::new();
            let mut came = BTreeMap::<char, u64>::new();
            let mut see = |item: (char, u64)| {
                let next = came.entry(item.0).or_default();
                assert!(item.1 >= *next, "out of order");
                *next = item.1 + 1;
            };
            for (what, owner, count) in steps {
                let owner = char::from(b'a' + owner);
                match what {
                    0..=2 => {
                        let next = pushed.entry(owner).or_default();
                        inbox.push(Of(owner, *next, count)).unwrap();
                        *next += count as u64;
                    }
                    3 => {
                        for _ in 0..count {
                            let Ok(popped) = inbox.pop(Wait::No) else { break };
                            see(popped.taken);
                        }
                    }
                    _ => {
                        let mut into = VecDeque::new();
                        let _ = inbox.pop_all(&mut into, Wait::No);
                        for mut entry in into {
                            while entry.items() > 0 {
                                see(entry.take());
                            }
                        }
                    }
                }
                let state = lock(&inbox.state);
                let live = || state.queue.iter().filter(|entry| entry.items() > 0);
                let Counts { pushed, taken, dropped, waiting } = state.counts;
                assert_eq!(pushed, taken + dropped + waiting);
                assert_eq!(waiting, live().map(|entry| entry.items() as u64).sum::<u64>());
                assert_eq!(state.held, live().map(Entry::held).sum::<usize>());
                assert_eq!(state.queue.len(), live().count() + state.empty);
                assert!(waiting <= items as u64);
                assert!(state.held <= bytes || live().count() == 1);
                for (owner, usage) in &state.owners {
                    let own = || live().filter(|entry| entry.owner() == *owner);
                    assert_eq!(usage.items, own().map(|entry| entry.items() as u64).sum::<u64>());
                    assert_eq!(usage.held, own().map(Entry::held).sum::<usize>());
                }
                assert!(state.queue.front().is_none_or(|entry| entry.items() > 0));
            }
        }
    }
}
