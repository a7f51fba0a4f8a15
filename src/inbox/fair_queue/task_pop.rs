//! A task that takes items, and is woken when there may be one.
//!
//! Nothing here blocks, and nothing is taken for a task that is not there to get it.

use std::{collections::VecDeque, task::Waker};

use super::{Inbox, Nothing, Popped};
use crate::{
    inbox::shares::{Entry, State},
    sync::{Ticket, atomic::Ordering, lock, release, wake},
};

/// The place of one future among the tasks that wait for an item.
pub(crate) struct TaskPop<'a, P: Entry> {
    inbox: &'a Inbox<P>,
    ticket: Ticket,
}

impl<P: Entry> Inbox<P> {
    /// A place for a future, which has not begun to wait.
    pub(crate) fn task_pop(&self) -> TaskPop<'_, P> {
        TaskPop {
            inbox: self,
            ticket: Ticket::default(),
        }
    }
}

impl<P: Entry> TaskPop<'_, P> {
    /// Takes the oldest item. If there is none, has `waker` woken when there may be one; with `None` the task does not wait.
    pub(crate) fn pop(&mut self, waker: Option<Waker>) -> Result<Popped<P::Item>, Nothing> {
        self.take(waker, State::take)
    }

    /// Moves everything into `into`, which must be empty, and returns the number of items. Else as [`pop`](Self::pop).
    pub(crate) fn pop_all(
        &mut self,
        into: &mut VecDeque<P>,
        waker: Option<Waker>,
    ) -> Result<Popped<usize>, Nothing> {
        self.take(waker, |state| state.take_all(into))
    }

    fn take<T>(
        &mut self,
        waker: Option<Waker>,
        take: impl FnOnce(&mut State<P>) -> Option<T>,
    ) -> Result<Popped<T>, Nothing> {
        let mut state = lock(&self.inbox.state);
        if let Some(taken) = take(&mut state) {
            let own = state.tasks.leave(&mut self.ticket);
            let popped = self.inbox.finish(state, taken);
            release(own);
            return Ok(popped);
        }
        if state.closed {
            return Err(Nothing::Ever);
        }
        // Stored under the lock, so that it cannot overwrite the `true` of a later push.
        self.inbox.maybe_nonempty.store(false, Ordering::Relaxed);
        if let Some(waker) = waker {
            let replaced = state.tasks.enter(&mut self.ticket, waker);
            drop(state);
            release(replaced);
        }
        Err(Nothing::Yet)
    }
}

impl<P: Entry> Drop for TaskPop<'_, P> {
    fn drop(&mut self) {
        if !self.ticket.is_used() {
            return;
        }
        let mut state = lock(&self.inbox.state);
        let own = state.tasks.leave(&mut self.ticket);
        // Without a waker, this task was woken for an item that it has not taken: another one is woken for it.
        let is_owed = own.is_none() && state.counts.waiting > 0;
        let next = state.tasks.take(usize::from(is_owed));
        drop(state);
        release(own);
        wake(next);
    }
}
