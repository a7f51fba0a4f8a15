//! Received messages, and events, on their way to the application.
//!
//! Nothing here knows the operating system or the rules: what is received is put in on the loop's thread and taken out on any.

mod batch;
mod burst;
mod fair_queue;
mod single;
mod source;
mod spares;

pub use batch::{Batch, BatchIter, MessageRef};
pub(crate) use burst::{Burst, Packer};
pub use fair_queue::InboxFull;
pub(crate) use fair_queue::{Inbox, Nothing, Parcel, Popped, Refused, Room, Wait};
pub(crate) use single::Single;
pub(crate) use source::{Owner, Source};
pub(crate) use spares::Spares;
