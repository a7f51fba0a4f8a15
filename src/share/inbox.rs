//! A bounded queue that drops its oldest: received messages, or events, on their way to the application.
//!
//! A push never waits. ZooKeeper's `CircularBlockingQueue` (ZOOKEEPER-3340) is the model of the rule.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    release,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        lock, sleep,
    },
};

/// What is put into an inbox at a time: items that came together, at least one.
pub(crate) trait Parcel {
    type Item;

    /// How many are left in it.
    fn items(&self) -> usize;

    /// Takes the oldest of them.
    fn take(&mut self) -> Self::Item;

    /// Drops this many of the oldest, but not all.
    fn shed(&mut self, items: usize);

    /// The memory that it holds, beside its place in the queue: the same until the last item goes.
    fn held(&self) -> usize;
}

#[derive(Debug)]
pub(crate) struct Inbox<P> {
    state: Mutex<State<P>>,
    arrived: Condvar,
    room: Room,
    /// False exactly when the queue is empty and open, give or take a moment: a thread that spins looks here, since one
    /// that takes the lock again and again keeps everybody else from it.
    stirred: AtomicBool,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) items: usize,
    /// The newest parcel stays even if it alone is larger.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct State<P> {
    queue: VecDeque<P>,
    /// The memory that these hold.
    held: usize,
    counts: Counts,
    /// Threads in `pop`: nobody is notified when nobody sleeps.
    sleepers: usize,
    /// True exactly when nothing can be pushed any more.
    closed: bool,
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

impl<P: Parcel> Inbox<P> {
    pub(crate) fn new(room: Room) -> Self {
        assert!(room.items > 0, "an inbox holds at least one item");
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                held: 0,
                counts: Counts::default(),
                sleepers: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            room,
            stirred: AtomicBool::new(false),
        }
    }

    /// Puts one parcel; the oldest items go if there is no room. Returns whether it was taken: a closed inbox takes
    /// nothing.
    pub(crate) fn push(&self, parcel: P) -> bool {
        self.push_all([parcel])
    }

    /// Puts all of `parcels` under one lock and with one wake.
    pub(crate) fn push_all(&self, parcels: impl IntoIterator<Item = P>) -> bool {
        // Freed after the lock: the last owner of a payload runs the allocator, or code of the application.
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        let mut pushed = 0;
        for parcel in parcels {
            pushed += parcel.items();
            state.admit(parcel, self.room, &mut gone);
        }
        self.stirred.store(true, Ordering::Relaxed);
        // As many threads as there are items for: of a pool of receivers the others sleep on.
        let wake = state.sleepers.min(pushed);
        drop(state);
        for _ in 0..wake {
            self.arrived.notify_one();
        }
        gone.into_iter().for_each(release);
        true
    }

    /// Takes the oldest item. A closed inbox is emptied first.
    pub(crate) fn pop(&self, wait: Wait) -> Result<P::Item, Nothing> {
        self.take(wait, State::take)
    }

    /// Moves everything into `into`, which must be empty, and returns the number of items, at least one.
    pub(crate) fn pop_all(&self, into: &mut VecDeque<P>, wait: Wait) -> Result<usize, Nothing> {
        self.take(wait, |state| state.take_all(into))
    }

    /// Whether it is worth asking, at the price of a load. A push may be seen a moment late, and never not at all.
    pub(crate) fn is_stirred(&self) -> bool {
        // Relaxed: who sees it takes the lock, which orders the rest.
        self.stirred.load(Ordering::Relaxed)
    }

    fn take<T>(
        &self,
        wait: Wait,
        mut take: impl FnMut(&mut State<P>) -> Option<T>,
    ) -> Result<T, Nothing> {
        let mut state = lock(&self.state);
        loop {
            if let Some(taken) = take(&mut state) {
                return Ok(taken);
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
                self.stirred.store(false, Ordering::Relaxed);
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
        self.stirred.store(true, Ordering::Relaxed);
        self.arrived.notify_all();
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }
}

impl<P: Parcel> State<P> {
    /// Queues `parcel`; what has no room goes, the oldest first, whole parcels into `gone`.
    fn admit(&mut self, parcel: P, room: Room, gone: &mut Vec<P>) {
        let items = parcel.items() as u64;
        self.counts.pushed += items;
        self.counts.waiting += items;
        self.held += parcel.held();
        self.queue.push_back(parcel);
        while let Some(excess @ 1..) = self.counts.waiting.checked_sub(room.items as u64) {
            let oldest = self.queue.front_mut().expect("what waits is queued");
            if oldest.items() as u64 <= excess {
                self.drop_oldest(gone);
            } else {
                oldest.shed(excess as usize);
                self.counts.dropped += excess;
                self.counts.waiting -= excess;
            }
        }
        // A parcel gives back its memory only as a whole.
        while self.held > room.bytes && self.queue.len() > 1 {
            self.drop_oldest(gone);
        }
    }

    fn drop_oldest(&mut self, gone: &mut Vec<P>) {
        let oldest = self.queue.pop_front().expect("what waits is queued");
        let items = oldest.items() as u64;
        self.held -= oldest.held();
        self.counts.dropped += items;
        self.counts.waiting -= items;
        gone.push(oldest);
    }

    fn take(&mut self) -> Option<P::Item> {
        let oldest = self.queue.front_mut()?;
        // Before its last item goes, and its memory with it.
        let held = oldest.held();
        let item = oldest.take();
        if oldest.items() == 0 {
            self.queue.pop_front();
            self.held -= held;
        }
        self.counts.taken += 1;
        self.counts.waiting -= 1;
        Some(item)
    }

    fn take_all(&mut self, into: &mut VecDeque<P>) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        debug_assert!(into.is_empty(), "what is in it would become the queue");
        std::mem::swap(&mut self.queue, into);
        self.held = 0;
        let taken = std::mem::take(&mut self.counts.waiting);
        self.counts.taken += taken;
        Some(taken as usize)
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
impl Parcel for std::ops::Range<u8> {
    type Item = u8;

    fn items(&self) -> usize {
        self.len()
    }

    fn take(&mut self) -> u8 {
        self.next().expect("a parcel holds something")
    }

    fn shed(&mut self, items: usize) {
        self.start += items as u8;
    }

    /// As a run does: all of it until the last goes.
    fn held(&self) -> usize {
        usize::from(self.end)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn loom_a_sleeper_is_woken_by_a_push_and_by_the_end() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new(Room::for_items(1)));
            let sleeper = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    let mut taken = 0;
                    while inbox.pop(Wait::Forever).is_ok() {
                        taken += 1;
                    }
                    taken
                })
            };
            inbox.push(1..2);
            inbox.push(2..4);
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

    /// `TestCircularBlockingQueue` of the original: of three offers to a queue of two, the last two are taken.
    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let inbox = Inbox::new(Room::for_items(2));
        for n in 1..=3 {
            assert!(inbox.push(n..n + 1));
        }
        assert_eq!(
            (
                inbox.pop(Wait::No),
                inbox.pop(Wait::No),
                inbox.pop(Wait::No)
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
        let inbox = Arc::new(Inbox::new(Room::for_items(2)));
        let sleepers = [(); 2].map(|()| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.pop(Wait::Forever))
        });
        while lock(&inbox.state).sleepers < sleepers.len() {
            thread::yield_now();
        }
        inbox.push(1..3);
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
    fn a_parcel_larger_than_the_room_leaves_its_newest() {
        let inbox = Inbox::new(Room::for_items(2));
        inbox.push(0..1);
        inbox.push_all([1..3, 3..6]);
        assert_eq!((inbox.pop(Wait::No), inbox.pop(Wait::No)), (Ok(4), Ok(5)));
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
    fn the_oldest_parcel_goes_when_the_memory_is_used_up_and_the_newest_never_does() {
        let inbox = Inbox::new(Room {
            items: 100,
            bytes: 10,
        });
        inbox.push_all([0..2, 2..4, 4..6]);
        assert_eq!(inbox.counts().dropped, 2, "12 bytes are held by three");
        assert_eq!((inbox.pop(Wait::No), inbox.pop(Wait::No)), (Ok(2), Ok(3)));
        // What was taken holds nothing.
        inbox.push(0..4);
        assert_eq!(inbox.counts().dropped, 2);
        inbox.push(50..60);
        assert_eq!((inbox.counts().dropped, inbox.counts().waiting), (8, 10));
        let mut taken = VecDeque::new();
        assert_eq!(inbox.pop_all(&mut taken, Wait::No), Ok(10));
        inbox.push_all([0..4, 0..5]);
        assert_eq!(inbox.counts().waiting, 9, "all was taken");
        let counts = inbox.counts();
        assert_eq!(
            counts.pushed,
            counts.taken + counts.dropped + counts.waiting
        );
    }

    #[test]
    fn everything_is_taken_at_once() {
        let inbox = Inbox::new(Room::for_items(4));
        let mut taken = VecDeque::new();
        assert_eq!(inbox.pop_all(&mut taken, Wait::No), Err(Nothing::Yet));
        inbox.push_all([0..3, 3..5]);
        assert_eq!(inbox.pop(Wait::No), Ok(1));
        assert_eq!(inbox.pop_all(&mut taken, Wait::Forever), Ok(3));
        assert_eq!(taken, [2..3, 3..5]);
        assert_eq!(inbox.pop(Wait::No), Err(Nothing::Yet));
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
        let inbox = Arc::new(Inbox::new(Room::for_items(2)));
        let taker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.pop(Wait::Forever))
        };
        inbox.push(7..8);
        assert_eq!(taker.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_closed_inbox_is_emptied_and_then_says_so() {
        let inbox = Inbox::new(Room::for_items(2));
        inbox.push(1..2);
        inbox.close();
        assert!(!inbox.push(2..3));
        assert_eq!(inbox.pop(Wait::Forever), Ok(1));
        assert_eq!(inbox.pop(Wait::Forever), Err(Nothing::Ever));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let inbox = Inbox::<std::ops::Range<u8>>::new(Room::for_items(1));
        assert_eq!(inbox.pop(Wait::Until(Instant::now())), Err(Nothing::Yet));
    }
}
