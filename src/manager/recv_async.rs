//! Receives in a task: the calls of the manager that wait, as futures and as a stream.
//!
//! Nothing here blocks, and nothing depends on an executor.

use std::{sync::atomic::Ordering, task::Waker};

use super::{
    CnxManager,
    received::Received,
    recv_stream::{RecvStream, pop_or_wait, receive},
};
use crate::{
    error::RecvError,
    inbox::{Batch, Nothing},
    message::Message,
};

impl CnxManager {
    /// Does what [`recv`](Self::recv) does in a task, without blocking a thread and without spinning ([`Idle::Spin`](crate::Idle)).
    ///
    /// The future can be dropped at any time, as `select!` does: a message leaves the inbox only when it is returned. If several tasks
    /// or threads receive, each message goes to one of them.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no message is left and none can arrive any more.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn f(manager: &quorum_cnx::CnxManager) {
    /// while let Ok(message) = manager.recv_async().await {
    ///     println!("{message:?}");
    /// }
    /// # }
    /// ```
    pub async fn recv_async(&self) -> Result<Message, RecvError> {
        receive(self.pop_in_task()).await
    }

    /// Does what [`recv_all`](Self::recv_all) does in a task. Dropping the future loses no message. `batch` is empty from the first
    /// poll until messages are returned.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if no message is left and none can arrive any more. `batch` is then empty.
    pub async fn recv_all_async(&self, batch: &mut Batch) -> Result<usize, RecvError> {
        let mut task = self.handle.shared().inbox.task_pop();
        receive(|waker| {
            self.pop_or_wait(waker, |waker| {
                batch.fill(&self.pool, |chunks| {
                    let popped = task.pop_all(chunks, waker)?;
                    Ok(self.made_room(popped))
                })
            })
        })
        .await
    }

    /// Does what [`recv_any`](Self::recv_any) does in a task. Dropping the future loses neither a message nor an event.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if neither a message nor an event is left and none can arrive any more.
    pub async fn recv_any_async(&self) -> Result<Received, RecvError> {
        let mut messages = self.handle.shared().inbox.task_pop();
        let mut events = self.events.task_pop();
        let mut pop = |waker: Option<Waker>| {
            // Relaxed: as in `pop_any`.
            if self.is_event_next.swap(false, Ordering::Relaxed) {
                if let Ok(popped) = events.pop(None) {
                    return Ok(Received::Event(popped.taken));
                }
            }
            let no_message = match messages.pop(waker.clone()) {
                Ok(popped) => {
                    self.is_event_next.store(true, Ordering::Relaxed);
                    let message = self.made_room(popped).into_message();
                    return Ok(Received::Message(message));
                }
                Err(nothing) => nothing,
            };
            match events.pop(waker) {
                Ok(popped) => Ok(Received::Event(popped.taken)),
                // The inbox is closed before the queue of events. If it was open a moment ago, this task waits in it and is woken.
                Err(Nothing::Ever) => Err(no_message),
                Err(Nothing::Yet) => Err(Nothing::Yet),
            }
        };
        receive(|waker| self.pop_or_wait(waker, &mut pop)).await
    }

    /// The received messages as a stream, which other tasks and threads may share.
    #[must_use]
    pub fn stream(&self) -> RecvStream<'_, Message> {
        RecvStream::new(self.pop_in_task())
    }

    fn pop_in_task(&self) -> impl FnMut(&Waker) -> Result<Message, Nothing> + Send {
        let mut task = self.handle.shared().inbox.task_pop();
        move |waker| {
            self.pop_or_wait(waker, |waker| {
                let popped = task.pop(waker)?;
                Ok(self.made_room(popped).into_message())
            })
        }
    }

    fn pop_or_wait<T>(
        &self,
        waker: &Waker,
        pop: impl FnMut(Option<Waker>) -> Result<T, Nothing>,
    ) -> Result<T, Nothing> {
        let end_if_forked = || {
            // Nothing arrives in a forked process. `life` notices that it runs in one, and closes the inbox.
            let _ = self.handle.shared().life();
            self.events.end_if_forked();
        };
        pop_or_wait(waker, end_if_forked, pop)
    }
}
