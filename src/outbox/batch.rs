//! What a queue writes at a time: buffers of small frames, and large frames; and how they are dropped.
//!
//! Nothing here locks.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::Bytes;

use super::{
    backlog::{self, InFlight, Progress},
    buffer::Buffer,
    clock::Stamp,
    types::Wire,
};
use crate::{limits::PREFIX_BYTES, sync::release};

/// Bytes that are written together.
#[derive(Debug)]
pub(super) enum Piece {
    /// Small frames, or one that was copied.
    Run {
        bytes: Buffer,
        frames: u64,
        /// When the first of them was put.
        since: Stamp,
    },
    /// One large frame, which is not copied.
    Whole {
        prefix: [u8; PREFIX_BYTES],
        frame: Bytes,
        /// When it was put.
        since: Stamp,
    },
}

/// Pieces that are written in one go.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) pieces: VecDeque<Piece>,
    pub(super) frames: u64,
    /// Bytes that were written of the first piece that is not written whole.
    pub(super) done: usize,
    /// Pieces that were written whole.
    pub(super) gone: usize,
}

impl InFlight for Batch {
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        while self.gone < self.pieces.len() {
            match self.lend(|bufs| wire.write(bufs)) {
                // A socket that accepts no byte without an error will accept none later.
                Ok(0) => return Progress::Broken(io::ErrorKind::WriteZero),
                Ok(n) => self.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Progress::Broken(error.kind()),
            }
        }
        Progress::Done
    }

    fn frames(&self) -> u64 {
        self.frames
    }

    fn oldest(&self) -> Option<Stamp> {
        self.pieces.get(self.gone).map(Piece::since)
    }
}

impl Batch {
    /// Passes the next bytes to a vectored write.
    fn lend<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut bufs = [IoSlice::new(&[]); BUFS_MAX];
        let (mut count, mut skip) = (0, self.done);
        'full: for piece in self.pieces.range(self.gone..) {
            for part in piece.parts() {
                // The second part of a run is empty, and parts before `done` were written.
                let Some(rest) = part.get(skip..).filter(|rest| !rest.is_empty()) else {
                    skip -= part.len();
                    continue;
                };
                skip = 0;
                bufs[count] = IoSlice::new(rest);
                count += 1;
                if count == BUFS_MAX {
                    break 'full;
                }
            }
        }
        write(&bufs[..count])
    }

    /// Notes that `n` more bytes were written.
    fn advance(&mut self, n: usize) {
        self.done += n;
        while let Some(piece) = self.pieces.get(self.gone) {
            if self.done < piece.len() {
                break;
            }
            self.done -= piece.len();
            self.gone += 1;
        }
    }
}

/// Buffers in one vectored write. That is enough for as many whole frames as a batch may have. The system allows 1024 (`IOV_MAX`).
const BUFS_MAX: usize = 128;

impl Piece {
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Run { bytes, .. } => [bytes.as_slice(), &[]],
            Self::Whole { prefix, frame, .. } => [prefix, frame],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    pub(super) fn frames(&self) -> u64 {
        match self {
            Self::Run { frames, .. } => *frames,
            Self::Whole { .. } => 1,
        }
    }

    pub(super) fn since(&self) -> Stamp {
        match self {
            Self::Run { since, .. } | Self::Whole { since, .. } => *since,
        }
    }

    /// Removes the frames that lie whole in the first `done` bytes. Returns their number and their bytes.
    pub(super) fn cut(&mut self, done: usize) -> (u64, usize) {
        let Self::Run { bytes, frames, .. } = self else {
            return (0, 0);
        };
        let (mut count, mut at) = (0, 0);
        while let Some(prefix) = bytes.as_slice()[at..].first_chunk::<PREFIX_BYTES>() {
            let end = at + PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize;
            if end > done {
                break;
            }
            (count, at) = (count + 1, end);
        }
        bytes.remove_first(at);
        *frames -= count;
        (count, at)
    }
}

/// Pieces and buffers that are no longer needed. Most steps have none.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    pub(super) pieces: Option<VecDeque<Piece>>,
    pub(super) spare: Option<Vec<Buffer>>,
}

fn release_all(pieces: VecDeque<Piece>) {
    for piece in pieces {
        match piece {
            Piece::Run { .. } => {}
            Piece::Whole { frame, .. } => release(frame),
        }
    }
}

impl backlog::Deferred for Deferred {
    #[inline]
    fn release(self) {
        if let Some(pieces) = self.pieces {
            release_all(pieces);
        }
    }
}
