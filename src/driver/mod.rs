//! The loop and the operating system under it: the only folder that knows sockets, a clock and log lines.
//!
//! The rules are in `proto`; here they are asked and obeyed.

mod doors;
mod event_loop;
mod journal;
mod links;
mod mio_net;
mod net;
mod platform;
mod pump;
mod resolver;
mod routes;

pub use event_loop::EventLoop;
pub use mio_net::{MioNet, MioStream};
pub use net::{Found, Net, Ready, Stream, Waker};
