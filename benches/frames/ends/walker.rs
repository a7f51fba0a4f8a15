//! Where frames begin and end in what a socket has brought, without keeping them.
//!
//! Nothing here reads a socket. A frame may come in any pieces.

use std::io;

use super::payload::{HEAD_BYTES, Head, frame, stamp};
use crate::failure::failure;

/// Length prefix and head.
const FRONT_BYTES: usize = 4 + HEAD_BYTES;

/// Walks along the frames of one connection.
#[derive(Default)]
pub(crate) struct Walker {
    /// The front of a frame of which a part has come.
    front: Vec<u8>,
    /// Bytes of that frame behind its front that are still to come; known once the front is complete.
    missing: usize,
}

impl Walker {
    /// Calls `on_frame` with the head and the payload's length of each frame that is complete with these bytes.
    pub(crate) fn walk(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Head, usize)) {
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

    /// Goes on with the frame that was begun, and returns what comes after it.
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
    // Ends send no shorter ones.
    Some((head, len.max(HEAD_BYTES)))
}

/// The same frames are found however the bytes are cut.
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
        let (mut walker, mut found) = (Walker::default(), Vec::new());
        for part in bytes.chunks(cut) {
            walker.walk(part, |head, len| found.push((head, len)));
        }
        if found != sent {
            return Err(failure(format_args!(
                "other frames when cut into {cut} bytes: {found:?}"
            )));
        }
    }
    Ok(())
}
