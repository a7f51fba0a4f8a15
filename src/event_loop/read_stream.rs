//! Reads one connection up to its budget for the turn, and decodes frames or the initial message.
//!
//! Nothing here decides about peers. It returns how reading ended.

use std::io;

use crate::{
    inbox::BufferPool,
    limits::{INITIAL_MESSAGE_READ_BYTES, TURN_BYTES},
    net::Stream,
    proto::{Assembler, BadLength, Payload, Reason},
};

/// How reading a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// The socket is empty.
    Drained,
    /// There may be more, which the socket does not report again (edge-triggered).
    BudgetExhausted,
    /// The connection is to be closed.
    Closed(Reason),
}

impl ReadOutcome {
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        *self == Self::Drained
    }
}

/// Reads frames until the socket is empty or the budget of the turn is used. `ended`: the far end has ended the connection, so that
/// a short read does not mean that nothing follows.
pub(crate) fn read_frames<S: Stream>(
    stream: &S,
    frames: &mut Assembler,
    leftover: &mut Vec<u8>,
    read_buffer: &mut [u8],
    pool: &BufferPool,
    ended: bool,
    mut take: impl FnMut(Payload<'_>),
) -> ReadOutcome {
    if !leftover.is_empty() {
        let bytes = std::mem::take(leftover);
        if let Some(end) = decode_all(frames, &bytes, pool, &mut take) {
            return end;
        }
    }
    let mut budget = TURN_BYTES;
    loop {
        // The rest of a large frame is read directly into its own buffer.
        let direct = frames.room().map(|room| (stream.read(room), room.len()));
        let is_direct = direct.is_some();
        let (read, room) = direct.unwrap_or_else(|| (stream.read(read_buffer), read_buffer.len()));
        let n = match read {
            Ok(0) if frames.is_between_frames() => return ReadOutcome::Closed(Reason::Closed),
            Ok(0) => return ReadOutcome::Closed(Reason::ClosedEarly),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ReadOutcome::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return ReadOutcome::Closed(Reason::of_io(&error)),
        };
        if is_direct {
            if let Some(frame) = frames.filled(n) {
                take(Payload::Owned(frame));
            }
        } else if let Some(end) = decode_all(frames, &read_buffer[..n], pool, &mut take) {
            return end;
        }
        if n < room && !ended && !stream.has_more() {
            // A short read means that the socket is empty. New bytes cause a new edge (epoll(7)).
            return ReadOutcome::Drained;
        }
        budget = budget.saturating_sub(n);
        if budget == 0 {
            return ReadOutcome::BudgetExhausted;
        }
    }
}

fn decode_all(
    frames: &mut Assembler,
    mut input: &[u8],
    pool: &BufferPool,
    take: &mut impl FnMut(Payload<'_>),
) -> Option<ReadOutcome> {
    let bad_length = |bad: BadLength| Some(ReadOutcome::Closed(Reason::BadLength(bad.0)));
    loop {
        match frames.next_whole(&mut input) {
            Ok(Some(payload)) => {
                take(Payload::Borrowed(payload));
                continue;
            }
            Ok(None) => {}
            Err(bad) => return bad_length(bad),
        }
        match frames.next(&mut input, |len| pool.take_used(len)) {
            Ok(Some(payload)) => take(payload),
            Ok(None) => return None,
            Err(bad) => return bad_length(bad),
        }
    }
}

/// Reads more of an initial message, or of the answer to one. `received` holds its bytes so far. `decode` decodes it, and returns how
/// many bytes it has. Once it is complete, `received` holds the bytes that follow it.
///
/// # Errors
///
/// The reason for which the connection is to be ended.
pub(crate) fn read_message<S: Stream, M>(
    stream: &S,
    received: &mut Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<Option<(M, usize)>, Reason>,
) -> Result<Option<M>, Reason> {
    let mut buffer = [0; INITIAL_MESSAGE_READ_BYTES];
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Err(Reason::ClosedEarly),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Reason::of_io(&error)),
        };
        // Bounded: `decode` fails if a message is incomplete after `INITIAL_MESSAGE_BYTES_MAX` bytes.
        received.extend_from_slice(&buffer[..n]);
        if let Some((message, taken)) = decode(received)? {
            // Moved to a buffer of its exact size, often empty, since it may be kept for as long as the connection.
            *received = received.split_off(taken);
            return Ok(Some(message));
        }
    }
}
