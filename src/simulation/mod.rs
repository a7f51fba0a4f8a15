//! What an [`EventLoop`](crate::EventLoop) needs of an operating system, for networks other than the real one.
//!
//! Nothing here is used by the library itself.

pub use crate::{
    net::{Found, Net, Ready, Stream, Waker},
    outbox::Wire,
};
