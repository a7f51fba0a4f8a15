//! Calls of a host that fail, and how often each was made.
//!
//! Nothing here happens by itself: a test says which calls fail.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

/// A call that a loop makes of its [`Net`](super::Net), or of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// [`Net::wait`](super::Net::wait). The loop cannot continue after an error of this call.
    Wait,
    /// [`Net::listen`](super::Net::listen).
    Listen,
    /// [`Net::accept`](super::Net::accept).
    Accept,
    /// [`Net::dial`](super::Net::dial).
    Dial,
    /// [`Net::watch`](super::Net::watch).
    Watch,
    /// [`Stream::read`](super::Stream::read).
    Read,
    /// [`Wire::write`](super::Wire::write).
    Write,
    /// [`Stream::shutdown`](super::Stream::shutdown) and [`Stream::abort`](super::Stream::abort).
    Shutdown,
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    next: BTreeMap<Call, VecDeque<io::Error>>,
    calls: BTreeMap<Call, u64>,
}

impl Failures {
    /// Counts a call. An error if it is to fail.
    pub(super) fn on_call(&mut self, call: Call) -> io::Result<()> {
        *self.calls.entry(call).or_default() += 1;
        let next = self.next.get_mut(&call).and_then(VecDeque::pop_front);
        next.map_or(Ok(()), Err)
    }

    pub(super) fn push(&mut self, call: Call, error: io::Error) {
        self.next.entry(call).or_default().push_back(error);
    }

    pub(super) fn clear(&mut self) {
        self.next.clear();
    }

    pub(super) fn calls(&self, call: Call) -> u64 {
        self.calls.get(&call).copied().unwrap_or_default()
    }
}
