//! From a socket to whole frames: the loop that reads one connection up to its share of the turn.
//!
//! Nothing here decides about peers; it says how the reading ended.

use std::io;

use crate::{
    limits::{INITIAL_MESSAGE_READ_BYTES, TURN_BYTES},
    net::Stream,
    proto::{Assembler, BadLength, InitialMessage, Payload, Reason, decode},
};

/// How reading a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// All that was there was read.
    Dry,
    /// There may be more; the edge will not come again.
    More,
    /// The connection is to be ended.
    End(Reason),
}

/// Reads frames until the socket is dry or the share of the turn is used up. `ended`: the far end has ended, so that a
/// short read does not mean that nothing follows.
pub(crate) fn frames<S: Stream>(
    stream: &S,
    frames: &mut Assembler,
    held: &mut Vec<u8>,
    stage: &mut [u8],
    ended: bool,
    mut take: impl FnMut(Payload<'_>),
) -> Pumped {
    if !held.is_empty() {
        let bytes = std::mem::take(held);
        if let Some(end) = walk(frames, &bytes, &mut take) {
            return end;
        }
    }
    let mut budget = TURN_BYTES;
    loop {
        // The rest of a large frame goes straight into its own buffer.
        let direct = frames.room().map(|room| (stream.read(room), room.len()));
        let is_direct = direct.is_some();
        let (read, room) = direct.unwrap_or_else(|| (stream.read(stage), stage.len()));
        let n = match read {
            Ok(0) if frames.is_between_frames() => return Pumped::End(Reason::Closed),
            Ok(0) => return Pumped::End(Reason::ClosedEarly),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pumped::Dry,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Pumped::End(Reason::of_io(&error)),
        };
        if is_direct {
            if let Some(frame) = frames.filled(n) {
                take(Payload::Owned(frame));
            }
        } else if let Some(end) = walk(frames, &stage[..n], &mut take) {
            return end;
        }
        if n < room && !ended {
            // The socket had less than there was room for: it is empty, and new bytes bring a new edge (epoll(7)).
            return Pumped::Dry;
        }
        budget = budget.saturating_sub(n);
        if budget == 0 {
            return Pumped::More;
        }
    }
}

fn walk(
    frames: &mut Assembler,
    mut input: &[u8],
    take: &mut impl FnMut(Payload<'_>),
) -> Option<Pumped> {
    let bad_length = |bad: BadLength| Some(Pumped::End(Reason::BadLength(bad.0)));
    loop {
        match frames.next_whole(&mut input) {
            Ok(Some(payload)) => {
                take(Payload::Borrowed(payload));
                continue;
            }
            Ok(None) => {}
            Err(bad) => return bad_length(bad),
        }
        match frames.next(&mut input) {
            Ok(Some(payload)) => take(payload),
            Ok(None) => return None,
            Err(bad) => return bad_length(bad),
        }
    }
}

/// Reads on at an initial message of which `heard` has come. Once it is whole, what came behind it is left in `heard`.
///
/// # Errors
///
/// Why the connection is to be ended.
pub(crate) fn initial_message<S: Stream>(
    stream: &S,
    heard: &mut Vec<u8>,
) -> Result<Option<InitialMessage>, Reason> {
    let mut stage = [0; INITIAL_MESSAGE_READ_BYTES];
    loop {
        let n = match stream.read(&mut stage) {
            Ok(0) => return Err(Reason::ClosedEarly),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Reason::of_io(&error)),
        };
        // Bounded: a message that is not whole after INITIAL_MESSAGE_BYTES_MAX bytes is an error of `decode`.
        heard.extend_from_slice(&stage[..n]);
        match decode(heard) {
            Ok(None) => {}
            Ok(Some((initial_message, taken))) => {
                // In a buffer of its own size: it may be kept for as long as the connection, empty for instance.
                *heard = heard.split_off(taken);
                return Ok(Some(initial_message));
            }
            Err(why) => return Err(Reason::BadInitialMessage(why)),
        }
    }
}
