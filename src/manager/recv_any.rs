//! Takes a message or an event, whichever is there, with one call.
//!
//! Nothing here decides which messages or events are kept.

use std::{sync::atomic::Ordering, time::Duration};

use super::{CnxManager, received::Received};
use crate::{
    error::RecvError,
    inbox::{Nothing, Wait},
};

impl CnxManager {
    /// Takes the oldest received message or the oldest event. Blocks until there is one of them. If both are there, messages and
    /// events are returned in turn, so that neither holds up the other.
    ///
    /// Between a message and an event there is no order: the numbers of the links ([`Message::link`](crate::Message::link),
    /// [`Event::Up`](crate::Event::Up), [`Event::Down`](crate::Event::Down)) tell which messages came before and after a reconnect. A [`Handler`](crate::Handler) has such an order.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if neither a message nor an event is left and none can arrive any more.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use quorum_cnx::{CnxManager, Received, RecvError};
    ///
    /// fn serve(manager: &CnxManager) -> Result<(), RecvError> {
    ///     loop {
    ///         match manager.recv_any()? {
    ///             Received::Message(message) => println!("{message:?}"),
    ///             Received::Event(event) => println!("{event}"),
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// ```
    pub fn recv_any(&self) -> Result<Received, RecvError> {
        self.take_any(Wait::Forever)
    }

    /// Does what [`recv_any`](Self::recv_any) does, but blocks for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Timeout`], or [`RecvError::Halted`] if neither a message nor an event is left and none can arrive any more.
    pub fn recv_any_timeout(&self, timeout: Duration) -> Result<Received, RecvError> {
        self.take_any(Wait::at_most(timeout))
    }

    fn take_any(&self, wait: Wait) -> Result<Received, RecvError> {
        let inbox = &self.handle.shared().inbox;
        let may_be_ready = || inbox.may_have_items() || self.events.may_be_ready();
        self.spin_and_wait_for(wait, may_be_ready, |wait| self.pop_any(wait))
    }

    fn pop_any(&self, wait: Wait) -> Result<Received, Nothing> {
        // Relaxed: it is a matter of fairness only.
        if self.is_event_next.swap(false, Ordering::Relaxed) {
            if let Ok(event) = self.events.pop(Wait::No) {
                return Ok(Received::Event(event));
            }
        }
        loop {
            let popped = self
                .handle
                .shared()
                .inbox
                .pop_or(wait, || self.events.are_ready());
            match popped.map(|popped| self.made_room(popped)) {
                Ok(Some(message)) => {
                    self.is_event_next.store(true, Ordering::Relaxed);
                    return Ok(Received::Message(message.into_message()));
                }
                Ok(None) => match self.events.pop(Wait::No) {
                    // Another thread has taken it.
                    Err(Nothing::Yet) => {}
                    event => return event.map(Received::Event),
                },
                Err(Nothing::Yet) => return Err(Nothing::Yet),
                // No message can arrive any more. Events may.
                Err(Nothing::Ever) => return self.events.pop(wait).map(Received::Event),
            }
        }
    }
}
