//! What fuzzers may say to the grammars: anything. Each function here must come back, whatever the bytes.
//!
//! Compiled for `cargo fuzz` (see `fuzz/`) and for the unit tests, which try each with random bytes.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::Shutdown,
    sync::{Mutex, PoisonError},
};

use crate::{
    Challenge, Sid, Wire,
    driver::{Pumped, Stream, read_frames, read_hello},
    limits::{FRAME_BYTES_MAX, STAGE_BYTES},
    proto::{Assembler, CHALLENGE_BYTES_MAX, Payload, decode, encode},
    zoo_cfg,
};

/// An initial message is understood, refused or not yet whole, whatever follows it; and what is understood is understood
/// again when it is sent on.
pub fn challenge(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Some((hello, taken))) => {
            assert!(taken <= bytes.len() && taken <= CHALLENGE_BYTES_MAX);
            assert_eq!(decode(&bytes[..taken]), Ok(Some((hello.clone(), taken))));
            for cut in 0..taken {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "a part of it says more");
            }
            if !hello.addresses.is_empty() {
                let again = encode(Challenge::V2, hello.sid, &hello.addresses);
                let taken = again.len();
                assert_eq!(decode(&again), Ok(Some((hello, taken))));
            }
        }
        Ok(None) => assert!(bytes.len() < CHALLENGE_BYTES_MAX, "it waits for ever"),
        // Only what stands there is judged, so more bytes change nothing.
        Err(why) => assert_eq!(decode(&[bytes, &[0; 9]].concat()), Err(why)),
    }
}

/// A whole link: an initial message, then frames. The first byte says how the rest is cut into pieces; cut or not, the
/// same is read. Memory follows the bytes that come, not the lengths that are claimed.
pub fn link(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*cut) + 1).collect();
    assert_eq!(read(&pieces), whole);
}

/// A configuration file is understood or refused, with a line of its own.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = text.split(['\n', '\r']).count();
    for parsed in [zoo_cfg::parse(text), zoo_cfg::parse_dynamic(text)] {
        match parsed {
            Ok(cfg) => assert!(cfg.servers.iter().all(|server| !server.election.is_empty())),
            Err(error) => assert!((1..=lines).contains(&error.line) && !error.why.is_empty()),
        }
    }
    // Whether it can work is another question, which must have an answer as well.
    if let Ok(builder) = crate::Config::from_zoo_cfg(text, Sid(1)) {
        let _ = builder.build();
    }
}

/// What is read off a connection that brings these pieces and then ends: who it is, the frames, and how it ends.
fn read(pieces: &[&[u8]]) -> (Option<Sid>, Vec<Vec<u8>>, Pumped) {
    let script = Script::new(pieces);
    let mut heard = Vec::new();
    let hello = loop {
        match read_hello(&script, &mut heard) {
            Ok(Some(hello)) => break hello,
            Ok(None) => {}
            Err(end) => return (None, Vec::new(), end),
        }
    };
    let (mut assembler, mut stage) = (Assembler::default(), vec![0; STAGE_BYTES]);
    let mut read = Vec::new();
    loop {
        // Events of the far end's hang-up may come at any time, or not.
        let ended = script.is_at_end();
        let take = |payload: Payload<'_>| {
            let frame = match payload {
                Payload::Borrowed(slice) => slice.to_vec(),
                Payload::Owned(bytes) => bytes.to_vec(),
            };
            assert!((1..=FRAME_BYTES_MAX).contains(&frame.len()));
            read.push(frame);
        };
        match read_frames(&script, &mut assembler, &mut heard, &mut stage, ended, take) {
            end @ Pumped::End(_) => return (Some(hello.sid), read, end),
            Pumped::Dry | Pumped::More => {}
        }
    }
}

/// A connection that brings one piece after the other, `WouldBlock` between them, and then its end.
#[derive(Debug)]
struct Script(Mutex<(VecDeque<Vec<u8>>, bool)>);

impl Script {
    fn new(pieces: &[&[u8]]) -> Self {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        Self(Mutex::new((pieces, false)))
    }

    fn is_at_end(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.len() <= 1
    }
}

impl Wire for Script {
    fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Stream for Script {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let (pieces, pause) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(pause) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(piece) = pieces.front_mut() else {
            return Ok(0);
        };
        let n = piece.len().min(buf.len());
        buf[..n].copy_from_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() {
            pieces.pop_front();
            *pause = !pieces.is_empty();
        }
        Ok(n)
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }

    fn abort(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Random bytes alone hardly ever begin as a message does.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let version = prop::sample::select(vec![-65_536_i64, -65_535, -65_534, -1, 5]);
        let text = "[a-z0-9.:|\\[\\]-]{0,40}|(10\\.0\\.0\\.[1-9]:[0-9]{1,5}\\|?){1,4}";
        let frames = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5);
        (any::<u8>(), version, any::<i64>(), text, frames).prop_map(
            |(cut, version, sid, text, frames)| {
                let mut bytes = vec![cut];
                bytes.extend(version.to_be_bytes());
                if version < 0 {
                    bytes.extend(sid.to_be_bytes());
                    bytes.extend((text.len() as i32).to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
                for frame in frames {
                    bytes.extend((frame.len() as i32).to_be_bytes());
                    bytes.extend(frame);
                }
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn the_grammars_survive_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            challenge(&bytes);
            link(&bytes);
            config(&bytes);
        }

        #[test]
        fn the_grammars_survive_what_is_almost_right(mut bytes in plausible(), at in any::<prop::sample::Index>(), flip in any::<u8>()) {
            challenge(&bytes[1..]);
            link(&bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            challenge(&bytes[1..]);
            link(&bytes);
        }
    }
}
