//! Who halts: the owner, twice, two threads at once, somebody who has a handle only, and a handler inside its loop.
//!
//! Nothing here knows what is going on meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::scene::{OWN, Subject};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Owner,
    OwnerTwice,
    TwoThreads,
    /// Of a loop that the application turns.
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

    /// Whether there is a manager, or a loop in the application's hands.
    pub(crate) fn has_a_manager(self) -> bool {
        !matches!(self, Self::Handle | Self::Handler)
    }

    /// Comes back when the loop has ended, and says how long that took.
    pub(crate) fn halt(self, subject: Subject) -> Duration {
        let mut start = Instant::now();
        match subject {
            Subject::Manager(manager) => match self {
                Self::TwoThreads => thread::scope(|scope| {
                    let other = Arc::clone(&manager);
                    scope.spawn(move || {
                        other.halt();
                        // Whichever of the two comes second may rely on it as well.
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
                asked,
            } => {
                if self == Self::Handler {
                    stop.store(true, Ordering::Release);
                    // A frame for those who get none.
                    handle.to_send(OWN, "halt").unwrap();
                    start = asked.recv().unwrap();
                } else {
                    handle.request_halt();
                }
                thread.join().unwrap();
            }
        }
        start.elapsed()
    }
}
