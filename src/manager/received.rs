//! What one call returns that waits for messages and events.
//!
//! Nothing here waits.

use crate::{event::Event, message::Message};

/// What [`CnxManager::recv_any`](crate::CnxManager::recv_any) returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A message.
    Message(Message),
    /// An event.
    Event(Event),
}
