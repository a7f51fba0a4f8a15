//! A bounded queue that drops its oldest: received messages, or events, on their way to the application.
//!
//! A push never waits. ZooKeeper's `CircularBlockingQueue` (ZOOKEEPER-3340) is the model of the rule.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, Ordering},
    lock, sleep,
};

#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    capacity: usize,
    /// False exactly when the queue is empty and open, give or take a moment: a thread that spins looks here, since one
    /// that takes the lock again and again keeps everybody else from it.
    stirred: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
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

/// Why `pop` came back without an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    Yet,
    Ever,
}

impl<T> Inbox<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "an inbox holds at least one item");
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                counts: Counts::default(),
                sleepers: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            capacity,
            stirred: AtomicBool::new(false),
        }
    }

    /// Puts one item; the oldest goes if there is no room. Returns whether it was taken: a closed inbox takes nothing.
    pub(crate) fn push(&self, item: T) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        // Freed after the lock: dropping a payload may run the allocator.
        let oldest = state.admit(item, self.capacity);
        self.stirred.store(true, Ordering::Relaxed);
        let wake = state.sleepers > 0;
        drop(state);
        drop(oldest);
        if wake {
            self.arrived.notify_one();
        }
        true
    }

    /// Puts all of `items`, which is left empty, under one lock and with one wake.
    pub(crate) fn push_all(&self, items: &mut Vec<T>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            items.clear();
            return;
        }
        // What would be dropped again within this call is never queued.
        let doomed = items.len().saturating_sub(self.capacity);
        state.counts.pushed += doomed as u64;
        state.counts.dropped += doomed as u64;
        let mut oldest = Vec::new();
        for item in items.drain(doomed..) {
            oldest.extend(state.admit(item, self.capacity));
        }
        self.stirred.store(true, Ordering::Relaxed);
        let wake = state.sleepers;
        drop(state);
        items.clear();
        drop(oldest);
        match wake {
            0 => {}
            1 => self.arrived.notify_one(),
            _ => self.arrived.notify_all(),
        }
    }

    /// Takes the oldest item without waiting.
    pub(crate) fn try_pop(&self) -> Result<T, Nothing> {
        let mut state = lock(&self.state);
        match state.take() {
            Some(item) => Ok(item),
            None if state.closed => Err(Nothing::Ever),
            None => {
                // Under the lock, so that it cannot hide a push.
                self.stirred.store(false, Ordering::Relaxed);
                Err(Nothing::Yet)
            }
        }
    }

    /// Whether it is worth asking, at the price of a load. A push may be seen a moment late, and never not at all.
    pub(crate) fn is_stirred(&self) -> bool {
        // Relaxed: who sees it takes the lock, which orders the rest.
        self.stirred.load(Ordering::Relaxed)
    }

    /// Takes the oldest item; waits for one until `deadline`, or for ever. A closed inbox is emptied first.
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Result<T, Nothing> {
        let mut state = lock(&self.state);
        loop {
            if let Some(item) = state.take() {
                return Ok(item);
            }
            if state.closed {
                return Err(Nothing::Ever);
            }
            let left = match deadline {
                None => None,
                Some(at) => match at.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => return Err(Nothing::Yet),
                    left => Some(left),
                },
            };
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
        let state = lock(&self.state);
        Counts {
            waiting: state.queue.len() as u64,
            ..state.counts
        }
    }
}

impl<T> State<T> {
    /// Queues `item` and returns the one that had to go for it.
    fn admit(&mut self, item: T, capacity: usize) -> Option<T> {
        let oldest = if self.queue.len() >= capacity {
            self.queue.pop_front()
        } else {
            None
        };
        self.counts.dropped += u64::from(oldest.is_some());
        self.counts.pushed += 1;
        self.queue.push_back(item);
        oldest
    }

    fn take(&mut self) -> Option<T> {
        let item = self.queue.pop_front()?;
        self.counts.taken += 1;
        Some(item)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn loom_a_sleeper_is_woken_by_a_push_and_by_the_end() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new(1));
            let sleeper = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    let mut taken = 0;
                    while inbox.pop(None).is_ok() {
                        taken += 1;
                    }
                    taken
                })
            };
            inbox.push(1);
            inbox.push(2);
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
        let inbox = Inbox::new(2);
        for n in 1..=3 {
            assert!(inbox.push(n));
        }
        assert_eq!(
            (inbox.try_pop(), inbox.try_pop(), inbox.try_pop()),
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
    fn a_batch_larger_than_the_room_leaves_its_newest() {
        let inbox = Inbox::new(2);
        inbox.push(0);
        let mut batch = vec![1, 2, 3, 4, 5];
        inbox.push_all(&mut batch);
        assert!(batch.is_empty());
        assert_eq!((inbox.try_pop(), inbox.try_pop()), (Ok(4), Ok(5)));
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
    fn a_taker_waits_for_an_offer() {
        let inbox = Arc::new(Inbox::new(2));
        let taker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.pop(None))
        };
        inbox.push(7);
        assert_eq!(taker.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_closed_inbox_is_emptied_and_then_says_so() {
        let inbox = Inbox::new(2);
        inbox.push(1);
        inbox.close();
        assert!(!inbox.push(2));
        assert_eq!(inbox.pop(None), Ok(1));
        assert_eq!(inbox.pop(None), Err(Nothing::Ever));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let inbox = Inbox::<u8>::new(1);
        assert_eq!(inbox.pop(Some(Instant::now())), Err(Nothing::Yet));
    }
}
