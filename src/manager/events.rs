//! The events of a manager, as the application takes them.
//!
//! Nothing here drops an event, except the queue beneath when it is full.

use std::{sync::Arc, task::Waker, time::Duration};

use super::recv_stream::{RecvStream, pop_or_wait, receive};
use crate::{
    error::{RecvError, TryRecvError},
    event::Event,
    inbox::{Inbox, InboxFull, Nothing, Owner, Room, Single, TaskPop, Wait},
    limits::EVENTS_MAX,
    shared::{Home, QueueStats},
};

/// The events of a manager, oldest first. At most 1024 wait. One more drops the oldest event of the peer that most of them are
/// about.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{CnxManager, Config, Event, Sid};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").build()?;
/// let manager = CnxManager::start(config)?;
/// if let Event::Listening { addr, .. } = manager.events().recv()? {
///     println!("peers can dial {addr}");
/// }
/// # Ok(())
/// # }
/// ```
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

    /// Adds an event. An older event that is dropped for it is only counted: later events show the state of the mesh.
    pub(super) fn push(&self, owner: Owner, event: Event) {
        let _ = self.inbox.push(Single::new(owner, event));
    }

    /// Ends the queue: no event is added any more, and waiting threads return.
    pub(super) fn close(&self) {
        self.inbox.close();
    }

    pub(super) fn stats(&self) -> QueueStats {
        QueueStats::of(&self.inbox)
    }

    /// Whether an event waits, or none can arrive any more.
    pub(super) fn are_ready(&self) -> bool {
        self.inbox.is_ready()
    }

    /// Whether an event may wait. Costs one load.
    pub(super) fn may_be_ready(&self) -> bool {
        self.inbox.may_have_items()
    }

    pub(super) fn pop(&self, wait: Wait) -> Result<Event, Nothing> {
        if wait.deadline().is_some() && !self.home.is_here() {
            // No event arrives in a forked process.
            return Err(Nothing::Ever);
        }
        // `wakes` is not needed. The loop never waits for room here, since a full queue drops its oldest events.
        let popped = self.inbox.pop(wait)?;
        Ok(popped.taken)
    }

    /// A place for a task that waits for an event.
    pub(super) fn task_pop(&self) -> TaskPop<'_, Single<Event>> {
        self.inbox.task_pop()
    }

    /// Ends the queue in a forked process, where no event arrives. What is in it can still be taken.
    pub(super) fn end_if_forked(&self) {
        if !self.home.is_here() {
            self.inbox.close();
        }
    }

    /// Takes the oldest event. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no event is left and none can arrive any more.
    pub fn recv(&self) -> Result<Event, RecvError> {
        Ok(self.pop(Wait::Forever)?)
    }

    /// Takes the oldest event. Blocks until there is one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] if no event is left and none can arrive any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvError> {
        Ok(self.pop(Wait::at_most(timeout))?)
    }

    /// Takes the oldest event, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] if there is none now, or [`TryRecvError::Halted`] if none can arrive any more.
    pub fn try_recv(&self) -> Result<Event, TryRecvError> {
        self.pop(Wait::No)
            .map_err(|nothing| RecvError::from(nothing).into())
    }

    /// Does what [`recv`](Self::recv) does in a task. Dropping the future loses no event.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no event is left and none can arrive any more.
    pub async fn recv_async(&self) -> Result<Event, RecvError> {
        receive(self.pop_in_task()).await
    }

    /// The events as a stream, which other tasks and threads may share.
    #[must_use]
    pub fn stream(&self) -> RecvStream<'_, Event> {
        RecvStream::new(self.pop_in_task())
    }

    fn pop_in_task(&self) -> impl FnMut(&Waker) -> Result<Event, Nothing> + Send {
        let mut task = self.task_pop();
        move |waker| {
            let end_if_forked = || self.end_if_forked();
            pop_or_wait(waker, end_if_forked, |waker| Ok(task.pop(waker)?.taken))
        }
    }
}

impl From<Nothing> for RecvError {
    fn from(nothing: Nothing) -> Self {
        match nothing {
            Nothing::Yet => Self::Timeout,
            Nothing::Ever => Self::Halted,
        }
    }
}
