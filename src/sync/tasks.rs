//! Tasks that wait: the wakers of futures, in the order in which these began to wait.
//!
//! Nothing here locks or wakes. The owner of a [`Tasks`] keeps it under its lock.
//!
//! Invariants:
//!
//! - A future has at most one waker in the list, with the number of its [`Ticket`]. It removes the waker when it is done or
//!   dropped. So there are never more wakers than futures that wait.
//! - The numbers ascend from the front to the back, so that a waker is found by a binary search.
//! - A waker that is taken out of the list is woken, or it is dropped by its own future. It is cloned, woken and dropped without the
//!   lock of the owner, since that runs code of an executor.

use std::{collections::VecDeque, mem, task::Waker};

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    waiting: VecDeque<(u64, Waker)>,
    /// The last number that was given to a ticket.
    last: u64,
}

/// The number of a future in a list of tasks; 0 if it does not wait.
#[derive(Debug, Default)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Whether the future has begun to wait, and has not left the list itself. It may have been woken.
    pub(crate) fn is_used(&self) -> bool {
        self.0 != 0
    }
}

impl Tasks {
    /// Has this waker woken once. A future that was woken, or waits for the first time, gets the last place. Returns the waker that is
    /// no longer needed, to be dropped without the lock.
    #[must_use = "dropped without the lock"]
    pub(crate) fn enter(&mut self, ticket: &mut Ticket, waker: Waker) -> Option<Waker> {
        if let Some((_, old)) = self
            .find(ticket)
            .and_then(|index| self.waiting.get_mut(index))
        {
            return Some(mem::replace(old, waker));
        }
        self.last += 1;
        ticket.0 = self.last;
        self.waiting.push_back((self.last, waker));
        None
    }

    /// The future does not wait any more. Returns its waker, to be dropped without the lock; `None` if it was woken or has not waited.
    #[must_use = "dropped without the lock"]
    pub(crate) fn leave(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let index = self.find(ticket);
        *ticket = Ticket::default();
        let (_, waker) = self.waiting.remove(index?)?;
        Some(waker)
    }

    /// Takes up to `count` wakers, those that wait longest. The caller wakes them without the lock.
    #[must_use = "they are to be woken"]
    pub(crate) fn take(&mut self, count: usize) -> Vec<Waker> {
        let count = count.min(self.waiting.len());
        self.waiting
            .drain(..count)
            .map(|(_, waker)| waker)
            .collect()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn find(&self, ticket: &Ticket) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket.0, |(number, _)| *number)
            .ok()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
