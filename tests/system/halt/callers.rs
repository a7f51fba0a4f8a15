//! The ways to halt: the owner, the owner twice, two threads at once, a handle, and a handler inside its loop.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::SendError;
use support::many::OWN;

use crate::setup::Subject;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Owner,
    OwnerTwice,
    TwoThreads,
    /// A handle of a loop that the application turns.
    Handle,
    Handler,
}

pub(crate) const CALLERS: [Caller; 5] = [
    Caller::Owner,
    Caller::OwnerTwice,
    Caller::TwoThreads,
    Caller::Handle,
    Caller::Handler,
];

impl Caller {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::OwnerTwice => "twice",
            Self::TwoThreads => "two threads",
            Self::Handle => "handle",
            Self::Handler => "handler",
        }
    }

    /// Whether it halts a manager. Otherwise it halts a loop that the application turns.
    pub(crate) fn has_a_manager(self) -> bool {
        !matches!(self, Self::Handle | Self::Handler)
    }

    /// Halts, waits until the loop has ended, and returns how long that took.
    pub(crate) fn halt(self, subject: Subject) -> Duration {
        let mut start = Instant::now();
        match subject {
            Subject::Manager(manager) => match self {
                Self::TwoThreads => thread::scope(|scope| {
                    let other = Arc::clone(&manager);
                    scope.spawn(move || {
                        other.halt();
                        // The call that comes second gives the same guarantee.
                        assert!(other.is_halted() && other.listening().is_empty());
                    });
                    manager.halt();
                    assert!(manager.is_halted() && manager.listening().is_empty());
                }),
                Self::OwnerTwice => {
                    manager.halt();
                    manager.halt();
                }
                _ => manager.halt(),
            },
            Subject::Loop {
                handle,
                thread,
                stop,
                requested_at,
            } => {
                if self == Self::Handler {
                    stop.store(true, Ordering::Release);
                    // A frame to itself, since other frames may never come. The loop may have halted already, at a frame of a peer.
                    let sent = handle.to_send(OWN, "halt");
                    assert!(matches!(sent, Ok(_) | Err(SendError::Halted)), "{sent:?}");
                    start = requested_at.recv().unwrap();
                } else {
                    handle.request_halt();
                }
                thread.join().unwrap();
            }
        }
        start.elapsed()
    }
}
