//! Control frames: a ping and its answer, and the end frame of a link that is retired. No application sees them.
//!
//! Nothing here measures a time. Only a server that has said in a native handshake that it knows them is sent any.
//!
//! ```text
//! ping     -1  number        pong     -2  number        end frame     -3       0
//!           4       8 bytes            4       8 bytes                 4       8 bytes
//! ```
//!
//! No frame has a negative length: a server that does not know them would end the link.

use std::mem;

use crate::limits::PREFIX_BYTES;

/// Bytes of the number in a control frame.
pub(super) const NUMBER_BYTES: usize = 8;

/// Bytes of a control frame.
pub(crate) const CONTROL_BYTES: usize = PREFIX_BYTES + NUMBER_BYTES;

/// Which control frame it is. The value stands where a frame has its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ping = -1,
    Pong = -2,
    /// Nothing follows it on its connection.
    End = -3,
}

impl Kind {
    /// The control frame that begins with this length.
    pub(super) fn of_length(length: i32) -> Option<Self> {
        [Self::Ping, Self::Pong, Self::End]
            .into_iter()
            .find(|kind| *kind as i32 == length)
    }
}

/// Numbers of control frames: those to be sent, or those that have arrived. A newer one of a kind replaces the one before, so that a peer
/// that sends many is owed one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls {
    pub(crate) ping: Option<u64>,
    pub(crate) pong: Option<u64>,
    /// True exactly when the end frame is one of them.
    pub(crate) end: bool,
}

impl Controls {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(super) fn set(&mut self, kind: Kind, number: u64) {
        match kind {
            Kind::Ping => self.ping = Some(number),
            Kind::Pong => self.pong = Some(number),
            Kind::End => self.end = true,
        }
    }

    /// All of both, of which those of `newer` count.
    pub(crate) fn or(self, newer: Self) -> Self {
        Self {
            ping: newer.ping.or(self.ping),
            pong: newer.pong.or(self.pong),
            end: newer.end || self.end,
        }
    }

    /// Takes the next one to be sent, and says whether it is the end frame. An answer first: the far end measures how long it takes. The
    /// end frame last.
    pub(crate) fn encode_next(&mut self) -> Option<([u8; CONTROL_BYTES], bool)> {
        let pong = self.pong.take().map(|number| (Kind::Pong, number));
        let ping = || Some((Kind::Ping, self.ping.take()?));
        let end = || mem::take(&mut self.end).then_some((Kind::End, 0));
        let (kind, number) = pong.or_else(ping).or_else(end)?;
        let mut bytes = [0; CONTROL_BYTES];
        bytes[..PREFIX_BYTES].copy_from_slice(&(kind as i32).to_be_bytes());
        bytes[PREFIX_BYTES..].copy_from_slice(&number.to_be_bytes());
        Some((bytes, kind == Kind::End))
    }
}
