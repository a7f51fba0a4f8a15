//! Unit tests of `outbox`, by subject.

mod controls;
mod ends;
mod links;
mod waits;

use std::{fmt, io::IoSlice};

use super::{fixture::*, *};

/// One outbox of each kind.
fn all() -> [PeerOutbox; 3] {
    [latest(), queue(1000), lanes(1000)]
}

/// Puts a frame, and lets the loop do what a queue asks of it. Returns what is left for the loop then.
fn put_and_write(outbox: &PeerOutbox, n: u8) -> LoopRequest {
    let (outcome, request) = outbox.put(frame(n));
    assert!(outcome.is_ok());
    if request == LoopRequest::RESUME {
        outbox.resume()
    } else {
        request
    }
}

/// A socket with room. This function is called while it is written to.
struct OnWrite<F>(F);

impl<F: Fn() + Send + Sync> Wire for OnWrite<F> {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (self.0)();
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

impl<F> fmt::Debug for OnWrite<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnWrite")
    }
}
