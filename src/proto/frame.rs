//! The grammar of frames: a 4-byte big-endian length, then that many bytes of payload.
//!
//! Nothing here reads a socket. Memory grows with the bytes that have arrived, never with a claimed length alone.

use bytes::Bytes;

use super::control::{Controls, Kind, NUMBER_BYTES};
use crate::{
    copy,
    limits::{DIRECT_READ_BYTES, FRAME_BYTES_MAX, GROW_BYTES, PREFIX_BYTES},
};

/// A length that no frame can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLength(pub(crate) i32);

/// The payload of a whole frame: a part of the input, or a buffer of its own.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

/// Assembles frames from input that may be cut at any byte. Between two frames it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    partial: Partial,
    /// The control frames that have arrived. `None` exactly when they are not understood on this connection.
    controls: Option<Controls>,
}

#[derive(Debug, Default)]
enum Partial {
    #[default]
    Nothing,
    /// The first `have` bytes of a length.
    Prefix {
        bytes: [u8; PREFIX_BYTES],
        have: usize,
    },
    /// `buf[..have]` holds the first bytes of a payload of `len` bytes. The rest of `buf` is free.
    Body {
        buf: Vec<u8>,
        have: usize,
        len: usize,
    },
    /// The first `have` bytes of the number of a control frame.
    Control {
        kind: Kind,
        bytes: [u8; NUMBER_BYTES],
        have: usize,
    },
}

impl Assembler {
    /// `controls`: whether control frames are understood.
    pub(crate) fn new(controls: bool) -> Self {
        Self {
            partial: Partial::Nothing,
            controls: controls.then(Controls::default),
        }
    }

    /// Whether control frames have arrived since they were taken last.
    #[inline]
    pub(crate) fn has_controls(&self) -> bool {
        self.controls.is_some_and(|controls| !controls.is_empty())
    }

    /// The newest control frames that have arrived since this was called last.
    pub(crate) fn take_controls(&mut self) -> Controls {
        self.controls
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes the next frame from the front of `input`, if all of it is there and no frame is underway. Most frames are not cut,
    /// and this is the fast path for them. A frame that is cut is left to [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// The same as those of [`next`](Self::next).
    #[inline(always)]
    pub(crate) fn next_whole<'a>(
        &self,
        input: &mut &'a [u8],
    ) -> Result<Option<&'a [u8]>, BadLength> {
        let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if !self.is_between_frames() {
            return Ok(None);
        }
        let len = match length(*prefix) {
            Ok(len) => len,
            // Perhaps a control frame.
            Err(_) if self.controls.is_some() => return Ok(None),
            Err(bad) => return Err(bad),
        };
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            return Ok(None);
        };
        *input = rest;
        Ok(Some(payload))
    }

    /// Takes the next whole frame from the front of `input`. `None`: all of `input` was taken, and a frame may be underway. `spare`
    /// may return a buffer for a frame of this length, with any bytes in it.
    ///
    /// # Errors
    ///
    /// [`BadLength`] with the illegal length. The rest of the stream has no meaning then.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        spare: impl FnOnce(usize) -> Option<Vec<u8>>,
    ) -> Result<Option<Payload<'a>>, BadLength> {
        let len = loop {
            let prefix = match &mut self.partial {
                Partial::Nothing => match input.split_first_chunk::<PREFIX_BYTES>() {
                    Some((prefix, rest)) => {
                        *input = rest;
                        *prefix
                    }
                    None => {
                        if !input.is_empty() {
                            let (mut bytes, mut have) = ([0; PREFIX_BYTES], 0);
                            fill(&mut bytes, &mut have, input);
                            self.partial = Partial::Prefix { bytes, have };
                        }
                        return Ok(None);
                    }
                },
                Partial::Prefix { bytes, have } => match fill(bytes, have, input) {
                    true => *bytes,
                    false => return Ok(None),
                },
                Partial::Body { buf, have, len } => {
                    take_body(buf, have, *len, input);
                    return Ok(self.whole().map(Payload::Owned));
                }
                Partial::Control { kind, bytes, have } => {
                    if !fill(bytes, have, input) {
                        return Ok(None);
                    }
                    if let Some(controls) = &mut self.controls {
                        controls.set(*kind, u64::from_be_bytes(*bytes));
                    }
                    self.partial = Partial::Nothing;
                    continue;
                }
            };
            match length(prefix) {
                Ok(len) => break len,
                Err(bad) => match Kind::of_length(bad.0).filter(|_| self.controls.is_some()) {
                    Some(kind) => {
                        let (bytes, have) = ([0; NUMBER_BYTES], 0);
                        self.partial = Partial::Control { kind, bytes, have };
                    }
                    None => return Err(bad),
                },
            }
        };
        if let Some((payload, rest)) = input.split_at_checked(len) {
            *input = rest;
            self.partial = Partial::Nothing;
            return Ok(Some(Payload::Borrowed(payload)));
        }
        let buf = begin(input, spare(len), len);
        self.partial = Partial::Body {
            buf,
            have: input.len(),
            len,
        };
        *input = &[];
        Ok(None)
    }

    /// Space into which the rest of a large frame can be read directly. The caller then reports the read to
    /// [`filled`](Self::filled).
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let Partial::Body { buf, have, len } = &mut self.partial else {
            return None;
        };
        let missing = *len - *have;
        if missing < DIRECT_READ_BYTES {
            return None;
        }
        if buf.len() == *have {
            let more = growth(*have, *len);
            buf.reserve_exact(more);
            buf.resize(*have + more, 0);
        }
        Some(&mut buf[*have..])
    }

    /// `n` bytes were read into the space from [`room`](Self::room). Returns the frame if it is whole now.
    pub(crate) fn filled(&mut self, n: usize) -> Option<Bytes> {
        let Partial::Body { buf, have, .. } = &mut self.partial else {
            return None;
        };
        *have += n;
        assert!(*have <= buf.len(), "more was read than there was room");
        self.whole()
    }

    /// Whether no frame is underway: the input so far has ended with a whole frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        matches!(self.partial, Partial::Nothing)
    }

    /// Bytes of the current payload that have arrived.
    pub(crate) fn underway(&self) -> usize {
        match &self.partial {
            Partial::Nothing | Partial::Prefix { .. } | Partial::Control { .. } => 0,
            Partial::Body { have, .. } => *have,
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        match &mut self.partial {
            Partial::Body { buf, have, len } if have == len => {
                let mut buf = std::mem::take(buf);
                buf.truncate(*len);
                self.partial = Partial::Nothing;
                Some(buf.into())
            }
            _ => None,
        }
    }
}

/// Appends as much of `input` as the payload of `len` bytes lacks.
fn take_body(buf: &mut Vec<u8>, have: &mut usize, len: usize, input: &mut &[u8]) {
    let taken = input.len().min(len - *have);
    // The space that `room` has allocated is used before more is allocated.
    let (first, more) = input[..taken].split_at(taken.min(buf.len() - *have));
    copy::overwrite(&mut buf[*have..*have + first.len()], first);
    if buf.capacity() - buf.len() < more.len() {
        // Without this the buffer would double, and the unused half would live as long as the frame.
        buf.reserve_exact(growth(buf.len(), len).max(more.len()));
    }
    copy::append(buf, more);
    *have += taken;
    *input = &input[taken..];
}

/// Fills `bytes` from the front of `input`. Returns whether all of them are there.
fn fill<const N: usize>(bytes: &mut [u8; N], have: &mut usize, input: &mut &[u8]) -> bool {
    let taken = input.len().min(N - *have);
    bytes[*have..*have + taken].copy_from_slice(&input[..taken]);
    *have += taken;
    *input = &input[taken..];
    *have == N
}

/// A buffer that begins with these bytes of a frame of `len` bytes.
fn begin(input: &[u8], spare: Option<Vec<u8>>, len: usize) -> Vec<u8> {
    let Some(mut buf) = spare else {
        // As long as what is there, and not as the length claims: a stranger could claim much and send nothing.
        return copy::to_vec(input);
    };
    buf.truncate(len);
    let (first, more) = input.split_at(input.len().min(buf.len()));
    copy::overwrite(&mut buf[..first.len()], first);
    copy::append(&mut buf, more);
    buf
}

/// Bytes by which the buffer of a frame of `len` bytes grows when it is full with `have` of them. The first steps are GROW_BYTES.
/// Then the buffer doubles, so that a large frame is copied only a few times. It never grows beyond the frame.
fn growth(have: usize, len: usize) -> usize {
    (len - have).min(GROW_BYTES.max(have))
}

// Called once for each frame. `inline` makes it available to the crate of the handler, where the read loop is compiled.
#[inline]
fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, BadLength> {
    let claimed = i32::from_be_bytes(prefix);
    match usize::try_from(claimed) {
        Ok(len) if (1..=FRAME_BYTES_MAX).contains(&len) => Ok(len),
        _ => Err(BadLength(claimed)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend(payload);
        }
        bytes
    }

    fn drain(
        assembler: &mut Assembler,
        mut input: &[u8],
        into: &mut Vec<Vec<u8>>,
    ) -> Result<(), BadLength> {
        // Every second frame gets a buffer that was used, some of them shorter than the frame.
        let used = into.len() % 2 == 0;
        let spare = |len: usize| used.then(|| vec![0xee; len - len % 3]);
        while let Some(payload) = assembler.next(&mut input, spare)? {
            into.push(match payload {
                Payload::Borrowed(slice) => slice.to_vec(),
                Payload::Owned(bytes) => bytes.to_vec(),
            });
        }
        assert!(input.is_empty());
        Ok(())
    }

    /// Feeds `bytes` in pieces of the given sizes. Every second piece is passed through `room`, if there is any.
    fn assemble(bytes: &[u8], sizes: &[usize]) -> Result<Vec<Vec<u8>>, BadLength> {
        let (mut assembler, mut frames, mut rest) = (Assembler::default(), Vec::new(), bytes);
        for (turn, &size) in sizes.iter().cycle().enumerate() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(size.min(rest.len()));
            if turn % 2 == 0 {
                if let Some(room) = assembler.room() {
                    let n = piece.len().min(room.len());
                    room[..n].copy_from_slice(&piece[..n]);
                    frames.extend(assembler.filled(n).map(|frame| frame.to_vec()));
                    rest = &rest[n..];
                    continue;
                }
            }
            drain(&mut assembler, piece, &mut frames)?;
            rest = after;
        }
        assert!(assembler.is_between_frames());
        Ok(frames)
    }

    #[test]
    fn frames_of_every_length_are_decoded_from_pieces() {
        let payloads: Vec<Vec<u8>> = [1, 2, 3, 40, 4096, 65_536, 100_000, FRAME_BYTES_MAX]
            .iter()
            .map(|&len| (0..len).map(|i| (i % 251) as u8).collect())
            .collect();
        let bytes = encode(&payloads);
        for sizes in [
            &[1][..],
            &[3, 7, 65_536],
            &[200_000],
            &[usize::MAX],
            &[4],
            &[5, 4096],
        ] {
            assert_eq!(assemble(&bytes, sizes).unwrap(), payloads);
        }
    }

    #[test]
    fn lengths_outside_1_to_524288_end_the_stream() {
        for claimed in [0, -1, i32::MIN, i32::MAX, 524_289, 0x1603_0100, 0x4745_5420] {
            let bytes = claimed.to_be_bytes();
            assert_eq!(assemble(&bytes, &[4]), Err(BadLength(claimed)));
            assert_eq!(assemble(&bytes, &[1]), Err(BadLength(claimed)));
        }
    }

    #[test]
    fn claimed_length_allocates_nothing() {
        let mut assembler = Assembler::default();
        let mut input = &[0, 8, 0, 0, 1, 2, 3][..];
        assert!(assembler.next(&mut input, |_| None).unwrap().is_none());
        let Partial::Body { buf, .. } = &assembler.partial else {
            panic!("a payload is underway")
        };
        assert!(buf.capacity() < 64);
        let room = assembler.room().unwrap().len();
        assert!(room <= GROW_BYTES);
    }

    #[test]
    fn frame_from_pieces_allocates_only_its_length() {
        // The first piece fits the read buffer. The rest is too short to be read directly into the frame's own buffer.
        for (first, len) in [
            (250_000, 264_000),
            (100, 15_000),
            (1, 2),
            (245_000, 500_000),
        ] {
            let mut assembler = Assembler::default();
            let bytes = encode(&[vec![7; len]]);
            for mut piece in bytes[..first].chunks(4).chain(bytes[first..].chunks(9_000)) {
                assembler.next(&mut piece, |_| None).unwrap();
                if let Partial::Body { buf, .. } = &assembler.partial {
                    assert!(buf.capacity() <= len, "{} for {len} bytes", buf.capacity());
                }
            }
            assert!(assembler.is_between_frames());
        }
    }

    #[test]
    fn control_frames_are_found_between_frames_however_they_are_cut() {
        let mut bytes = Vec::new();
        for (kind, number) in [(-1_i32, 7_u64), (-2, 8), (-3, 0)] {
            bytes.extend(encode(&[vec![5; 30]]));
            bytes.extend(kind.to_be_bytes());
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(encode(&[vec![6]]));
        for cut in 1..bytes.len() {
            let (mut assembler, mut frames) = (Assembler::new(true), Vec::new());
            for piece in bytes.chunks(cut) {
                drain(&mut assembler, piece, &mut frames).unwrap();
            }
            assert_eq!(frames, [vec![5; 30], vec![5; 30], vec![5; 30], vec![6]]);
            assert!(assembler.has_controls() && assembler.is_between_frames());
            let (ping, pong) = (Some(7), Some(8));
            let end = true;
            assert_eq!(assembler.take_controls(), Controls { ping, pong, end });
            assert!(!assembler.has_controls());
        }
        // A part of one is not the end of a frame.
        let mut assembler = Assembler::new(true);
        drain(&mut assembler, &bytes[34..45], &mut Vec::new()).unwrap();
        assert!(!assembler.is_between_frames() && !assembler.has_controls());
        for bad in [0, -4, i32::MIN] {
            let bytes = bad.to_be_bytes();
            let mut assembler = Assembler::new(true);
            let refused = drain(&mut assembler, &bytes, &mut Vec::new());
            assert_eq!(refused, Err(BadLength(bad)));
        }
    }

    proptest! {
        #[test]
        fn any_splitting_gives_the_same_frames(
            lens in prop::collection::vec(1_usize..70_000, 1..6),
            sizes in prop::collection::vec(1_usize..90_000, 1..20),
        ) {
            let payloads: Vec<Vec<u8>> = lens.iter().map(|&len| vec![len as u8; len]).collect();
            prop_assert_eq!(assemble(&encode(&payloads), &sizes).unwrap(), payloads);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1_usize..50, controls in any::<bool>()) {
            let mut assembler = Assembler::new(controls);
            for piece in bytes.chunks(cut) {
                if drain(&mut assembler, piece, &mut Vec::new()).is_err() {
                    break;
                }
            }
        }
    }
}
