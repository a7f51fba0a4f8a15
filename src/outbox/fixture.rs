//! Sockets and frames for the tests of all outboxes.
//!
//! No real socket is used.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    PeerOutbox,
    clock::Clock,
    types::{SendCounts, Wire},
};
#[cfg(not(loom))]
use super::{
    queue::HasQueue,
    run::Run,
    types::{LoopRequest, Refusal, SendOutcome},
    writer::Writer,
};
use crate::sync::{Mutex, lock};

pub(super) fn clock() -> Clock {
    Clock::new(Instant::now)
}

pub(super) fn latest() -> PeerOutbox {
    PeerOutbox::latest(clock())
}

pub(super) fn queue(bytes_max: usize) -> PeerOutbox {
    PeerOutbox::queue(bytes_max, clock())
}

pub(super) fn lanes(bytes_max: usize) -> PeerOutbox {
    PeerOutbox::lanes(bytes_max, clock())
}

#[cfg(not(loom))]
impl Run {
    /// Adds a copy of this frame.
    pub(super) fn append_copy(&mut self, frame: &[u8]) {
        self.append_with(frame.len(), |payload| payload.copy_from_slice(frame));
    }
}

#[cfg(not(loom))]
impl<S: HasQueue> Writer<S> {
    /// Takes a copy of this long frame.
    pub(super) fn put_copy(&self, frame: &[u8]) -> (Result<SendOutcome, Refusal>, LoopRequest) {
        self.put_long(frame.len(), |payload| payload.copy_from_slice(frame))
    }
}

/// A socket with room for this many bytes.
#[derive(Debug)]
pub(super) struct Pipe(Mutex<(usize, Vec<u8>)>);

impl Pipe {
    pub(super) fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new((room, Vec::new()))))
    }

    pub(super) fn make_room(&self, more: usize) {
        lock(&self.0).0 += more;
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        lock(&self.0).1.clone()
    }

    /// The payloads that were written whole, and whether no bytes of another one follow.
    pub(super) fn frames(&self) -> (Vec<Vec<u8>>, bool) {
        let bytes = lock(&self.0).1.clone();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some((prefix, body)) = rest.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*prefix) as usize;
            let Some((payload, after)) = body.split_at_checked(len) else {
                break;
            };
            frames.push(payload.to_vec());
            rest = after;
        }
        (frames, rest.is_empty())
    }
}

impl Wire for Pipe {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = lock(&self.0);
        if state.0 == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut n = 0;
        for buf in bufs {
            let part = &buf[..buf.len().min(state.0)];
            state.1.extend_from_slice(part);
            state.0 -= part.len();
            n += part.len();
        }
        Ok(n)
    }
}

/// A socket whose far end is gone.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct Cut;

#[cfg(not(loom))]
impl Wire for Cut {
    fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// A socket that accepts no byte and returns no error.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct Stuck;

#[cfg(not(loom))]
impl Wire for Stuck {
    fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(0)
    }
}

pub(super) fn assert_balance(counts: SendCounts) {
    let SendCounts {
        accepted,
        written,
        superseded,
        discarded,
        waiting,
        ..
    } = counts;
    assert_eq!(accepted, written + superseded + discarded + waiting);
}

/// The payloads of these [`frame`]s.
#[cfg(not(loom))]
pub(super) fn bodies(of: &[u8]) -> Vec<Vec<u8>> {
    of.iter().map(|n| frame(*n).to_vec()).collect()
}

pub(super) fn frame(n: u8) -> Bytes {
    // Two bytes, so that a frame that was cut in the middle can be recognized.
    Bytes::from(vec![n, n])
}

/// What `put` returns if the frame waits, and `request` is left for the loop.
#[cfg(not(loom))]
pub(super) fn queued(request: LoopRequest) -> (Result<SendOutcome, Refusal>, LoopRequest) {
    (Ok(SendOutcome::Queued), request)
}
