//! Received messages and events that wait for the application. The loop's thread puts them in, a thread that sends to the own sid puts its
//! frame in, and any thread takes them out.
//!
//! Nothing here knows the operating system or the rules.

mod batch;
mod buffer_pool;
mod chunk;
mod fair_queue;
#[cfg(test)]
mod fixture;
mod shares;
mod single;
mod source;

pub use batch::{Batch, BatchIter, MessageRef};
pub(crate) use buffer_pool::BufferPool;
pub(crate) use chunk::{Chunk, ChunkBuilder};
pub use fair_queue::InboxFull;
pub(crate) use fair_queue::{Inbox, Nothing, Popped, Refused, Wait, task_pop::TaskPop};
pub(crate) use shares::{Entry, Room};
pub(crate) use single::Single;
pub(crate) use source::{Owner, Source};
