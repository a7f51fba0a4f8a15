//! The loop of a manager that spins: its own thread turns it, or a thread that waits for a message and spins.
//!
//! Nothing here decides how long a receiver waits.
//!
//! A message that the loop's thread reads for a receiver that spins crosses from one spinning thread to another. If both have one
//! processor, this takes as long as the message itself. So the receiver borrows the loop, and turns it until a message is there.

use std::{
    fmt, io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::inbox_handler::InboxHandler;
use crate::{
    event_loop::EventLoop,
    handle::Handle,
    inbox::Nothing,
    shared::StandIn,
    sync::{Held, Loan, Mutex, lock},
};

pub(super) struct LentLoop {
    loan: Loan<EventLoop<InboxHandler>>,
    /// Receivers that block. While there are any, only the loop's thread turns the loop: a receiver that left with a message would
    /// leave them without theirs.
    blocked: AtomicUsize,
    /// Why a turn of a receiver has failed. The loop's thread returns it.
    failure: Mutex<Option<io::Error>>,
}

impl LentLoop {
    pub(super) fn new() -> Self {
        Self {
            loan: Loan::new(),
            blocked: AtomicUsize::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Has the loop's thread take the loop if no thread turns it. Returns whether that is so.
    pub(super) fn recall(&self) -> bool {
        self.loan.recall()
    }

    /// Runs the loop on its own thread, except while receivers turn it. Returns when it has ended, and all of it is dropped.
    pub(super) fn run(&self, event_loop: EventLoop<InboxHandler>) -> io::Result<()> {
        let handle = event_loop.handle().clone();
        let mut held = self.loan.bring(event_loop);
        loop {
            // One turn at least, for what the loop was recalled for.
            if !held.round(None, &|| false)? {
                return Ok(());
            }
            if self.loan.is_wanted() {
                self.give_back(held, &handle);
                match self.loan.take() {
                    Some(taken) => held = taken,
                    None => return lock(&self.failure).take().map_or(Ok(()), Err),
                }
            }
        }
    }

    /// Calls `pop`, which blocks.
    pub(super) fn block<T>(&self, pop: impl FnOnce() -> T) -> T {
        // Relaxed: the lock in `recall` orders this. Either `recall` finds the loop that a receiver has given back, or that receiver
        // gives it back later, and then sees the count.
        self.blocked.fetch_add(1, Ordering::Relaxed);
        self.recall();
        let popped = pop();
        self.blocked.fetch_sub(1, Ordering::Relaxed);
        popped
    }

    fn give_back(&self, held: Held<'_, EventLoop<InboxHandler>>, handle: &Handle) {
        held.give_back();
        // After that: a thread that notifies from now on recalls the loop, and so does this call if one has notified before.
        handle.shared().wake_flag.rearm();
    }

    fn borrow<'a>(&'a self, handle: &'a Handle) -> Option<Turns<'a>> {
        // Relaxed: see `end`.
        if self.blocked.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let held = self.loan.borrow(|| handle.wake())?;
        let stand_in = handle.shared().stand_in();
        Some(Turns {
            held,
            stand_in,
            lent_loop: self,
            handle,
        })
    }
}

/// Calls `pop` whenever `is_ready` returns `true`, until it finds something or the time has come. Turns the loop meanwhile if there is
/// one to borrow, unless another receiver does.
pub(super) fn spin<T>(
    lent_loop: Option<&LentLoop>,
    handle: &Handle,
    until: Instant,
    is_ready: &dyn Fn() -> bool,
    mut pop: impl FnMut() -> Result<T, Nothing>,
) -> Result<T, Nothing> {
    // A forked process shares the sockets, and must not read from them.
    let lent_loop = lent_loop.filter(|_| handle.shared().is_here());
    let mut turns: Option<Turns<'_>> = None;
    let popped = loop {
        // One load, and no lock: a thread that takes the lock again and again keeps the loop from it.
        if is_ready() {
            match pop() {
                Err(Nothing::Yet) => {}
                other => break other,
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Err(Nothing::Yet);
        }
        turns = match turns.or_else(|| lent_loop?.borrow(handle)) {
            Some(turns) => turns.turn(left, is_ready),
            None => {
                // The thread that turns the loop may share this processor, and is what this thread waits for.
                thread::yield_now();
                None
            }
        };
    };
    if let Some(turns) = turns {
        turns.end();
    }
    popped
}

impl fmt::Debug for LentLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentLoop").finish_non_exhaustive()
    }
}

/// The loop while a receiver turns it. Dropping it ends the loop: so does a panic, of a logger for example.
struct Turns<'a> {
    // Dropped in this order: what is dropped with the loop may call the manager, and must find itself on the loop's thread.
    held: Held<'a, EventLoop<InboxHandler>>,
    stand_in: StandIn<'a>,
    lent_loop: &'a LentLoop,
    handle: &'a Handle,
}

impl Turns<'_> {
    /// Runs one turn, which waits until something is ready or due, but does not block. Returns `None` once the loop has ended.
    fn turn(mut self, timeout: Duration, is_over: &dyn Fn() -> bool) -> Option<Self> {
        match self.held.round(Some(timeout), is_over) {
            Ok(true) => Some(self),
            Ok(false) => None,
            Err(error) => {
                *lock(&self.lent_loop.failure) = Some(error);
                None
            }
        }
    }

    /// Gives the loop back.
    fn end(self) {
        let Self {
            held,
            stand_in,
            lent_loop,
            handle,
        } = self;
        // First, since the next thread that has the loop says so itself.
        drop(stand_in);
        lent_loop.give_back(held, handle);
        // Also if `borrow` has seen none. Relaxed: see `block`.
        if lent_loop.blocked.load(Ordering::Relaxed) > 0 {
            lent_loop.recall();
        }
    }
}
