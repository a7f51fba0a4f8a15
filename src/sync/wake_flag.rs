//! Wakes the loop at most once each time it blocks, and not at all while it runs.
//!
//! This file holds no work. A thread puts its work where the loop looks ([`Pending`], an outbox, an inbox), and then notifies.
//!
//! Invariants:
//!
//! - A thread that notifies after it has put work is followed by a [`take_notified`](WakeFlag::take_notified) that sees the
//!   work. Both are read-modify-write operations on one atomic, so that one of them comes first: either the loop's swap reads
//!   the notification and acquires the work, or the notification comes later and the flag says so until the next turn.
//! - The loop blocks only after it has changed the flag from `RUNNING` to `BLOCKED`. If a notification came before, this exchange
//!   fails, and the loop does not block.
//! - Only the thread whose notification finds `BLOCKED` makes the system call.

use std::fmt;

use super::primitives::{
    Mutex,
    atomic::{AtomicU8, Ordering},
    lock,
};

/// An atomic flag in front of the system call that wakes the loop. To notify a loop that runs costs one atomic swap and no
/// system call.
///
/// ```text
///   Blocked <--prepare_to_block-- Running --notify--> Notified --take_notified--> Running
///     |  `------mark_running------->^                    ^
///     `--------notify, which wakes ----------------------'
/// ```
pub(crate) struct WakeFlag {
    state: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The loop blocks, or is about to block.
const BLOCKED: u8 = 0;
/// The loop looks for work before it blocks.
const RUNNING: u8 = 1;
/// The loop runs, and a thread has notified it since it last looked for work.
const NOTIFIED: u8 = 2;

impl WakeFlag {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            state: AtomicU8::new(BLOCKED),
            wake: Box::new(wake),
        }
    }

    /// Makes sure that the loop looks once more at all work that was put before this call.
    pub(crate) fn notify(&self) {
        // AcqRel: releases the work to `take_notified`, which reads this value or a later one.
        // Of several threads that notify, the loop reads the value of the last one only. Each swap continues the release
        // sequences of those before it, so that the loop acquires the work of all.
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == BLOCKED {
            (self.wake)();
        }
    }

    /// Whether a thread has notified. Costs one load. Used by a loop that spins.
    pub(crate) fn is_notified(&self) -> bool {
        // Relaxed: `take_notified` orders the work.
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Whether to notify now would make the system call. Costs one load.
    pub(crate) fn is_blocked(&self) -> bool {
        // Relaxed: the answer may be out of date at once.
        self.state.load(Ordering::Relaxed) == BLOCKED
    }

    /// The loop does not block any more. A notification stays.
    pub(crate) fn mark_running(&self) {
        // Relaxed: the loop looks at no work before `take_notified`.
        // It fails if a thread has notified, or if the loop has not blocked: then the flag stays as it is.
        let _ = self
            .state
            .compare_exchange(BLOCKED, RUNNING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns whether a thread has notified, and takes the notification. The loop calls it before it looks at the work, never
    /// after: a notification in between must bring it back.
    pub(crate) fn take_notified(&self) -> bool {
        // AcqRel, and a swap where a store would do: as a read-modify-write it reads the swap of `notify`, and so acquires the
        // work that was put before.
        self.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
    }

    /// Returns whether the loop may block: no thread has notified since it looked. A thread that notifies from now on wakes it.
    pub(crate) fn prepare_to_block(&self) -> bool {
        // Relaxed: the answer is in the flag alone.
        // `Err(BLOCKED)` is an earlier call of this function, after which no thread has notified.
        self.state
            .compare_exchange(RUNNING, BLOCKED, Ordering::Relaxed, Ordering::Relaxed)
            != Err(NOTIFIED)
    }

    /// The turn ends, and another program decides when the next one begins. If there is work already, that program is woken at
    /// once.
    pub(crate) fn rearm(&self) {
        if !self.prepare_to_block() {
            (self.wake)();
        }
    }
}

impl fmt::Debug for WakeFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeFlag").finish_non_exhaustive()
    }
}

/// Requests to the loop, in the order in which they were made. The callers bound their number.
#[derive(Debug)]
pub(crate) struct Pending<T>(Mutex<Vec<T>>);

impl<T> Pending<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn push(&self, request: T) {
        lock(&self.0).push(request);
    }

    /// Moves all requests into `into`, whose buffer is used for the next ones.
    pub(crate) fn take_all(&self, into: &mut Vec<T>) {
        // Swapped and not moved one by one: threads that push wait for three words only, and both buffers are kept.
        into.clear();
        std::mem::swap(&mut *lock(&self.0), into);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    #[test]
    fn loom_every_request_is_seen_after_its_wake() {
        loom::model(|| {
            let wakes = Arc::new(AtomicUsize::new(0));
            let requests = Arc::new(Pending::new());
            let counted = Arc::clone(&wakes);
            let flag = Arc::new(WakeFlag::new(move || {
                counted.fetch_add(1, Ordering::AcqRel);
            }));
            let threads: Vec<_> = (0..2)
                .map(|n| {
                    let (flag, requests) = (Arc::clone(&flag), Arc::clone(&requests));
                    thread::spawn(move || {
                        requests.push(n);
                        flag.notify();
                    })
                })
                .collect();
            // The loop. When it may block, it looks for work again only after a wake was counted.
            let (mut read, mut room, mut seen) = (0, Vec::new(), 0);
            while read < 2 {
                if flag.prepare_to_block() {
                    while wakes.load(Ordering::Acquire) == seen {
                        thread::yield_now();
                    }
                    seen = wakes.load(Ordering::Acquire);
                }
                flag.mark_running();
                flag.take_notified();
                requests.take_all(&mut room);
                read += room.len();
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use super::*;

    #[test]
    fn only_a_blocked_loop_is_woken() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let flag = WakeFlag::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (0..1000).for_each(|_| flag.notify());
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "once each time it blocks");
        flag.mark_running();
        assert!(flag.take_notified());
        assert!(!flag.take_notified());
        flag.notify();
        assert!(
            flag.is_notified() && !flag.prepare_to_block(),
            "it looks once more"
        );
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "it is awake");
        flag.rearm();
        assert_eq!(wakes.load(Ordering::Relaxed), 2, "nobody turns it now");
        assert!(flag.take_notified() && flag.prepare_to_block());
        flag.notify();
        assert_eq!(wakes.load(Ordering::Relaxed), 3);
    }
}
