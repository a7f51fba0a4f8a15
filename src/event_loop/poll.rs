//! Waits until something is ready or due, by blocking or by spinning.
//!
//! Nothing in this file reads or writes a socket itself. A loop that spins calls `read_hot`, which reads the link that was active last.

use std::{io, mem, thread, time::Duration};

use super::EventLoop;
use crate::{
    config::Idle,
    handler::Handler,
    net::{Net, Ready},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn poll(
        &mut self,
        timeout: Option<Duration>,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        self.ready.clear();
        let loop_thread = thread::current().id();
        if self.loop_thread.replace(loop_thread) != Some(loop_thread) {
            self.handle.shared().turns_here();
        }
        let due = self.timeout();
        let mut timeout = match (timeout, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // From here on a notification makes no system call. One that comes is seen by the loop below, or by `prepare_to_block`.
        self.handle.shared().wake_flag.mark_running();
        if let Idle::Spin { for_at_most } = self.options.idle {
            let start = self.net.now();
            loop {
                if self.read_hot() {
                    return Ok(());
                }
                self.net.wait(Some(Duration::ZERO), &mut self.ready)?;
                let spun = self.net.now().saturating_duration_since(start);
                if !self.ready.is_empty()
                    || self.handle.shared().wake_flag.is_notified()
                    || timeout.is_some_and(|timeout| spun >= timeout)
                    || is_over()
                {
                    return Ok(());
                }
                if spun >= for_at_most {
                    // The time spent spinning is part of the timeout.
                    timeout = timeout.map(|timeout| timeout.saturating_sub(spun));
                    break;
                }
                thread::yield_now();
            }
        }
        // Not for a poll that does not block: a sender would make a system call for a loop that looks at once.
        if timeout != Some(Duration::ZERO) && !self.handle.shared().wake_flag.prepare_to_block() {
            timeout = Some(Duration::ZERO);
        }
        let waited = self.net.wait(timeout, &mut self.ready);
        // Not `take_notified`: the notification stays until `handle_requests` looks for the work.
        self.handle.shared().wake_flag.mark_running();
        waited
    }

    pub(super) fn note(&mut self) {
        self.woken = false;
        for ready in self.ready.drain(..) {
            let Ready::Connection {
                token,
                readable,
                writable,
                ended,
            } = ready
            else {
                match ready {
                    Ready::Listener(listener) => self.listeners.on_acceptable(listener),
                    Ready::Worn(token) => {
                        if let Some(peer) = self.connections.peer_at(token) {
                            self.renewals.add(peer);
                        }
                    }
                    _ => {
                        self.woken = true;
                        self.handle.shared().counters.wakeups.add(1);
                    }
                }
                continue;
            };
            // The connection at this place is the one that is meant: a socket is unwatched before its place is free.
            let Some((key, connection)) = self.connections.at(token) else {
                continue;
            };
            // The kernel reports the end with one edge, perhaps long before what came first is read.
            connection.ended |= ended;
            if readable && !mem::replace(&mut connection.busy, true) {
                self.busy.push(key);
            }
            if writable {
                self.writable.push(key);
            }
        }
    }

    /// Whether this turn has read frames of the hot link and knows of nothing else to do. An application that runs the turns itself
    /// acts only after the turn, so the rest of it, even one look at the clock, would delay the application.
    pub(super) fn is_done(&self) -> bool {
        self.hot_turns > 0
            && self.hot.is_some()
            && !self.has_more()
            && !self.handle.shared().wake_flag.is_notified()
    }

    /// Whether a link or a listener is known to have more than was taken.
    pub(super) fn has_more(&self) -> bool {
        !self.busy.is_empty() || self.listeners.has_pending()
    }
}
