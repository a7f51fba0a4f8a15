//! The events of a manager, as the application takes them.
//!
//! Nothing here is dropped but by the queue beneath.

use std::{sync::Arc, time::Duration};

use crate::{
    error::RecvError,
    event::Event,
    inbox::{Inbox, InboxFull, Nothing, Owner, Room, Single, Wait},
    limits::EVENTS_MAX,
    shared::{Home, Queue},
};

/// The events of a manager, oldest first; when 1024 wait, the oldest goes.
#[derive(Clone, Debug)]
pub struct Events {
    inbox: Arc<Inbox<Single<Event>>>,
    home: Home,
}

impl Events {
    pub(super) fn new() -> Self {
        let room = Room {
            items: EVENTS_MAX,
            bytes: usize::MAX,
        };
        Self {
            inbox: Arc::new(Inbox::new(room, InboxFull::DropOldest)),
            home: Home::here(),
        }
    }

    /// Dropped events are counted, and the next ones say how the mesh is.
    pub(super) fn push(&self, owner: Owner, event: Event) {
        let _ = self.inbox.push(Single::new(owner, event));
    }

    /// No event can come any more.
    pub(super) fn close(&self) {
        self.inbox.close();
    }

    pub(super) fn stats(&self) -> Queue {
        Queue::of(&self.inbox)
    }

    fn pop(&self, wait: Wait) -> Result<Event, RecvError> {
        if wait.deadline().is_some() && !self.home.is_here() {
            // Nothing comes in a forked process.
            return Err(RecvError::Halted);
        }
        // Nobody waits for room: there is always some for the newest.
        let popped = self.inbox.pop(wait).map_err(of_nothing)?;
        Ok(popped.taken)
    }

    /// Takes the oldest event; waits for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv(&self) -> Result<Event, RecvError> {
        self.pop(Wait::Forever)
    }

    /// Takes the oldest event; waits for one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] when nothing is left and nothing can come.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvError> {
        self.pop(Wait::at_most(timeout))
    }

    /// Takes the oldest event, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`] when there is none now, or [`RecvError::Halted`] when none can come.
    pub fn try_recv(&self) -> Result<Event, RecvError> {
        self.pop(Wait::No)
    }
}

pub(super) fn of_nothing(nothing: Nothing) -> RecvError {
    match nothing {
        Nothing::Yet => RecvError::Timeout,
        Nothing::Ever => RecvError::Halted,
    }
}
