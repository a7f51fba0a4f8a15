//! Who has how much of a bounded queue, and whose oldest items are dropped when it is full.
//!
//! Nothing here locks or waits.
//!
//! Invariants, between two changes:
//!
//! - `counts.pushed == taken + dropped + waiting`, and `waiting` is the number of items in `queue`.
//! - The items of an owner in `owners`, and what they hold, are the sums over its entries in `queue`. Owners without items are not in
//!   it, so that its length is the number of those that share the room.
//! - The front entry of `queue` has an item. Entries behind it may have lost all of theirs; `empty` counts them.
//! - Entry `n` of `queue` has the number `base + n`, and no entry of an owner has a smaller number than its `first`.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use crate::sync::Tasks;

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

/// How much may wait in an inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) items: usize,
    /// The newest entry is kept even if it alone is larger.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(super) struct State<P: Entry> {
    /// Entries whose items were all dropped are still in it, without items, and are skipped.
    pub(super) queue: VecDeque<P>,
    /// The number of entries without items.
    pub(super) empty: usize,
    /// The number of entries that were removed from the front of the queue.
    pub(super) base: u64,
    /// What each owner has in the queue, sorted by owner. An owner that has nothing is not in it.
    pub(super) owners: Vec<(P::Owner, Usage)>,
    /// The memory that the entries hold.
    pub(super) held: usize,
    pub(super) counts: Counts,
    /// Items dropped since the last [`take_dropped`](super::fair_queue::Inbox::take_dropped), by owner.
    pub(super) dropped: BTreeMap<P::Owner, u64>,
    /// Set when an owner was refused room. The loop is woken as soon as no more items, or no more bytes, than this wait.
    pub(super) wake_at: Option<Room>,
    /// The number of threads that block in `pop`. If there are none, a push notifies none.
    pub(super) waiting_threads: usize,
    /// The tasks that wait for an item.
    pub(super) tasks: Tasks,
    /// Those of them that also wait for something else: see `Inbox::pop_or`.
    pub(super) elsewhere: usize,
    /// True exactly when nothing can be pushed any more.
    pub(super) closed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) items: u64,
    pub(super) held: usize,
    /// No entry of this owner has a smaller number. Entries are numbered from the first one that was ever pushed.
    pub(super) first: u64,
}

/// What happened to the items: `pushed == taken + dropped + waiting` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) pushed: u64,
    pub(crate) taken: u64,
    pub(crate) dropped: u64,
    pub(crate) waiting: u64,
}

impl<P: Entry> State<P> {
    #[inline]
    pub(super) fn add(&mut self, entry: P) {
        let (items, held) = (entry.items() as u64, entry.held());
        let nth = self.base + self.queue.len() as u64;
        match self.find(entry.owner()) {
            Ok(at) => {
                let (_, usage) = &mut self.owners[at];
                usage.items += items;
                usage.held += held;
            }
            Err(at) => {
                // Nothing of this owner is in the queue, so that its first entry is the new one.
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
    pub(super) fn make_room(&mut self, room: Room, gone: &mut Vec<P>) {
        while let Some(excess @ 1..) = self.counts.waiting.checked_sub(room.items as u64) {
            let most = self.owners.iter().max_by_key(|(_, usage)| usage.items);
            let Some(&(owner, usage)) = most else {
                return;
            };
            // Only down to its share, so that several owners that flood the inbox keep the same number each.
            let share = room.items / self.owners.len();
            // It has more than its share, since more waits than there is room for. `max(1)`, so that this loop ends even if
            // that were wrong.
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
    pub(super) fn largest_but_newest(&mut self) -> Option<usize> {
        let newest = self.queue.back()?;
        let (newest_owner, newest_held) = (newest.owner(), newest.held());
        let beside = |(owner, usage): &(P::Owner, Usage)| {
            // What is left if the newest entry stays. An owner that has nothing else cannot free any memory.
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
    pub(super) fn oldest_of(&mut self, owner: P::Owner) -> Option<usize> {
        let at = self.find(owner).ok()?;
        let (_, usage) = self.owners.get_mut(at)?;
        let from = usage.first.saturating_sub(self.base) as usize;
        let is_its = |entry: &P| entry.items() > 0 && entry.owner() == owner;
        let index = from
            + self
                .queue
                .range(from.min(self.queue.len())..)
                .position(is_its)?;
        // The next search of this owner starts here, so that entries of others are passed over once and not for each item.
        usage.first = self.base + index as u64;
        Some(index)
    }

    /// Drops up to `items` items of this entry, the oldest first.
    pub(super) fn drop_some(&mut self, index: usize, items: u64, gone: &mut Vec<P>) {
        let Some(entry) = self.queue.get_mut(index) else {
            return;
        };
        let (owner, all) = (entry.owner(), entry.items() as u64);
        let (items, held) = if items < all {
            entry.drop_oldest(items as usize);
            (items, 0)
        } else {
            // The entry keeps its place: to remove it from the middle would move all behind it, and change their numbers.
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
    #[inline]
    pub(super) fn subtract(&mut self, owner: P::Owner, items: u64, held: usize) {
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
    pub(super) fn find(&self, owner: P::Owner) -> Result<usize, usize> {
        self.owners
            .binary_search_by_key(&owner, |(owner, _)| *owner)
    }

    /// Removes entries without items: those in front, and all of them if they are more than half. Afterwards the front entry, if
    /// there is one, has an item.
    #[inline]
    pub(super) fn skip_empty(&mut self) {
        while self.queue.front().is_some_and(|entry| entry.items() == 0) {
            self.queue.pop_front();
            self.base += 1;
            self.empty -= 1;
        }
        if self.empty > self.queue.len() / 2 {
            // At least half of the queue goes, so that the cost for each entry that was emptied is constant.
            self.queue.retain(|entry| entry.items() > 0);
            self.empty = 0;
            // The numbers of the entries have changed. No entry has a smaller one than `base`.
            for (_, usage) in &mut self.owners {
                usage.first = self.base;
            }
        }
    }

    #[inline(always)] // Once for `pop` and once for `pop_or`: as a function it costs 40 instructions a message.
    pub(super) fn take(&mut self) -> Option<P::Item> {
        let oldest = self.queue.front_mut()?;
        // Read before the last item is taken, after which the entry holds no memory.
        let (owner, mut held) = (oldest.owner(), oldest.held());
        let item = oldest.take();
        // An entry frees its memory as a whole, with the last item.
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

    #[inline]
    pub(super) fn take_all(&mut self, into: &mut VecDeque<P>) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        debug_assert!(into.is_empty(), "what is in it would become the queue");
        self.base += self.queue.len() as u64;
        // Swapped: the caller holds the lock for as long as that takes, and the queue goes on with the buffer of `into`.
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
    #[inline]
    pub(super) fn has_room(&self, owner: P::Owner, room: Room) -> bool {
        let found = self.find(owner).ok().and_then(|at| self.owners.get(at));
        let usage = found.map(|(_, usage)| *usage).unwrap_or_default();
        let free = (room.items as u64).saturating_sub(self.counts.waiting);
        usage.items < free && usage.held < room.bytes.saturating_sub(self.held)
    }

    /// Whether the loop must be woken. True once for each refusal.
    #[inline]
    pub(super) fn wakes(&mut self) -> bool {
        // Either limit may have refused the owner. If the other one is met first, the loop is refused again, and leaves another
        // note.
        let is_time = |at: Room| self.counts.waiting <= at.items as u64 || self.held <= at.bytes;
        self.wake_at.take_if(|at| is_time(*at)).is_some()
    }
}
