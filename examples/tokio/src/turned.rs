//! An event loop on the thread of the runtime: there is no other thread, and a handler answers within the turn that has read the frame.
//!
//! Nothing here blocks.

use std::{io, time::Duration};

use quorum_cnx::{EventLoop, Handler};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task, time,
};

/// Turns the loop until it has halted ([`Handle::request_halt`](quorum_cnx::Handle::request_halt)), and returns it with its handler. Between
/// two turns, calls `after` for what is done once for all frames of a turn, for instance a write to a disk.
///
/// Dropping the future drops the loop, which closes all its sockets.
///
/// # Errors
///
/// Those of [`EventLoop::turn`], or if the runtime cannot watch the descriptor of the loop.
#[allow(
    deprecated,
    reason = "newer versions of tokio offer an unsafe function instead, whose conditions a loop meets: its descriptor stays the same"
)]
pub async fn turn<H: Handler>(
    event_loop: EventLoop<H>,
    mut after: impl FnMut(&mut H),
) -> io::Result<EventLoop<H>> {
    let mut watched = AsyncFd::with_interest(event_loop, Interest::READABLE)?;
    loop {
        let timeout = watched.get_ref().timeout().unwrap_or(Duration::MAX);
        if timeout.is_zero() {
            // More is to be done at once. The runtime is edge-triggered: it may not say so. Other tasks run in between.
            task::yield_now().await;
        } else if let Ok(ready) = time::timeout(timeout, watched.readable()).await {
            // Before the turn: what becomes ready meanwhile is reported again.
            ready?.clear_ready();
        }
        let event_loop = watched.get_mut();
        if !event_loop.turn(Some(Duration::ZERO))? {
            return Ok(watched.into_inner());
        }
        after(event_loop.handler_mut());
    }
}
