//! Finds frames in received bytes without storing their payloads. A frame may arrive in any pieces.

use std::io;

use super::payload::{HEAD_BYTES, Head, frame, stamp};
use crate::failure::failure;

/// Length prefix and head.
const FRONT_BYTES: usize = 4 + HEAD_BYTES;

/// Finds the frames of one connection.
#[derive(Default)]
pub(crate) struct FrameParser {
    /// Length and head of a frame that is incomplete.
    front: Vec<u8>,
    /// Bytes of that frame after its front that are missing; known once the front is complete.
    missing: usize,
}

impl FrameParser {
    /// Calls `on_frame` with the head and the payload length of each frame that these bytes complete.
    pub(crate) fn parse(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Head, usize)) {
        if !self.front.is_empty() {
            let Some(rest) = self.finish(bytes, &mut on_frame) else {
                return;
            };
            bytes = rest;
        }
        while let Some((head, len)) = front_of(bytes) {
            let Some(rest) = bytes.get(4 + len..) else {
                self.missing = 4 + len - bytes.len();
                break;
            };
            on_frame(head, len);
            bytes = rest;
        }
        let front = bytes.len().min(FRONT_BYTES);
        self.front.extend_from_slice(&bytes[..front]);
    }

    /// Continues the incomplete frame, and returns the bytes after it.
    fn finish<'a>(
        &mut self,
        bytes: &'a [u8],
        on_frame: &mut impl FnMut(Head, usize),
    ) -> Option<&'a [u8]> {
        let (front, rest) = bytes.split_at(bytes.len().min(FRONT_BYTES - self.front.len()));
        self.front.extend_from_slice(front);
        let (head, len) = front_of(&self.front)?;
        if !front.is_empty() {
            self.missing = len - HEAD_BYTES;
        }
        let (body, rest) = rest.split_at(rest.len().min(self.missing));
        self.missing -= body.len();
        if self.missing > 0 {
            return None;
        }
        on_frame(head, len);
        self.front.clear();
        Some(rest)
    }
}

fn front_of(bytes: &[u8]) -> Option<(Head, usize)> {
    let len = u32::from_be_bytes(*bytes.first_chunk::<4>()?) as usize;
    let head = Head::of(&bytes[4..])?;
    // No end sends shorter payloads.
    Some((head, len.max(HEAD_BYTES)))
}

/// Tests that the same frames are found however the bytes are cut.
pub(super) fn check() -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut sent = Vec::new();
    for (number, len) in [16, 17, 64, 16, 1000].into_iter().enumerate() {
        let head = Head {
            stamp: 7,
            number: number as u64,
        };
        let mut frame = frame(len);
        stamp(&mut frame, head);
        bytes.extend(frame);
        sent.push((head, len));
    }
    for cut in 1..=bytes.len() {
        let (mut parser, mut found) = (FrameParser::default(), Vec::new());
        for part in bytes.chunks(cut) {
            parser.parse(part, |head, len| found.push((head, len)));
        }
        if found != sent {
            return Err(failure(format_args!(
                "other frames when cut into {cut} bytes: {found:?}"
            )));
        }
    }
    Ok(())
}
