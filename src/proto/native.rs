//! The native handshake: what its initial message has beside a sid and addresses, and the answer to it.
//!
//! Nothing here decides whether a server is accepted.
//!
//! ```text
//! initial message   -65533  from  -1  to  cluster  incarnation  features  bytes  "host:port|..."
//!                        8     8   4   8       16            8         8      4  bytes
//! answer            -65533  sid  incarnation  features  code
//!                        8    8            8         8     4
//! ```
//!
//! Every release of ZooKeeper refuses such an initial message: 3.5.0 and later do not know the version, 3.4.6 to 3.4.14 take the -1 for
//! the length of the addresses, and older ones take the version for a sid that they do not know.

use super::{Sid, refusal::Refusal};

/// The version of a native initial message, and of the answer.
pub(super) const VERSION: i64 = -65_533;

/// Where ZooKeeper 3.4 expects the length of the addresses. A reader ignores it.
const NO_LENGTH: i32 = -1;

/// The feature of a server that understands [control frames](super::control). A bit that is not known is ignored, so that a later version
/// may set it.
const CONTROLS: u64 = 1;

/// The feature of a dialer that has a link to this server, which is to be [retired](super::control) before the new one replaces it.
const RETIRES: u64 = 2;

/// Bytes of a native initial message in front of the addresses, with their length.
pub(super) const NATIVE_HEADER_BYTES: usize = 64;

/// Bytes of an answer.
pub(crate) const ANSWER_BYTES: usize = 36;

/// What a native initial message has beside a sid and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Native {
    /// The sid of the server that is meant.
    pub(crate) to: Sid,
    /// The cluster of the dialer.
    pub(crate) cluster: [u8; 16],
    /// A random number that the dialer has chosen when it started.
    pub(crate) incarnation: u64,
    /// True exactly when the dialer understands control frames.
    pub(crate) controls: bool,
    /// True exactly when the dialer asks for its older link to be retired.
    pub(crate) retires: bool,
}

/// The answer to a native initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The sid of the server that answers.
    pub(crate) sid: Sid,
    /// A random number that it has chosen when it started.
    pub(crate) incarnation: u64,
    /// True exactly when it understands control frames.
    pub(crate) controls: bool,
    /// `None`: the connection is the link of the dialer from now on, or the knock is taken.
    pub(crate) refusal: Option<Refusal>,
}

/// Encodes a native initial message of `from`, in front of the text of its addresses, which has `len` bytes.
pub(super) fn encode_native(native: &Native, from: Sid, len: i32, into: &mut Vec<u8>) {
    into.extend_from_slice(&VERSION.to_be_bytes());
    into.extend_from_slice(&from.0.to_be_bytes());
    into.extend_from_slice(&NO_LENGTH.to_be_bytes());
    into.extend_from_slice(&native.to.0.to_be_bytes());
    into.extend_from_slice(&native.cluster);
    into.extend_from_slice(&native.incarnation.to_be_bytes());
    into.extend_from_slice(&features(native.controls, native.retires).to_be_bytes());
    into.extend_from_slice(&len.to_be_bytes());
}

/// Decodes a native initial message whose version is known to be that. Returns the sid of the dialer, and the length that it claims for
/// the addresses behind the header. `None`: the header is not yet whole.
pub(super) fn decode_native(bytes: &[u8]) -> Option<(Sid, Native, i32)> {
    let header: &[u8; NATIVE_HEADER_BYTES] = bytes.first_chunk()?;
    let native = Native {
        to: Sid(i64::from_be_bytes(part(header, 20)?)),
        cluster: part(header, 28)?,
        incarnation: u64::from_be_bytes(part(header, 44)?),
        controls: has(CONTROLS, part(header, 52)?),
        retires: has(RETIRES, part(header, 52)?),
    };
    let from = Sid(i64::from_be_bytes(part(header, 8)?));
    Some((from, native, i32::from_be_bytes(part(header, 60)?)))
}

impl Answer {
    pub(crate) fn encode(&self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sid.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[24..32].copy_from_slice(&features(self.controls, false).to_be_bytes());
        let code = self.refusal.map_or(0, Refusal::code);
        bytes[32..].copy_from_slice(&code.to_be_bytes());
        bytes
    }

    /// Decodes the answer at the front of `bytes`, and returns how many bytes it has. `None`: it is not yet whole.
    ///
    /// # Errors
    ///
    /// The first 8 bytes, as soon as they have arrived, if they do not begin an answer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, i64> {
        match part(bytes, 0).map(i64::from_be_bytes) {
            Some(VERSION) | None => {}
            Some(other) => return Err(other),
        }
        let decode = |bytes: &[u8; ANSWER_BYTES]| {
            let sid = Sid(i64::from_be_bytes(part(bytes, 8)?));
            let incarnation = u64::from_be_bytes(part(bytes, 16)?);
            let controls = has(CONTROLS, part(bytes, 24)?);
            let code = i32::from_be_bytes(part(bytes, 32)?);
            let refusal = Refusal::of_code(code, sid);
            Some(Self {
                sid,
                incarnation,
                controls,
                refusal,
            })
        };
        let answer = bytes.first_chunk().and_then(decode);
        Ok(answer.map(|answer| (answer, ANSWER_BYTES)))
    }
}

fn features(controls: bool, retires: bool) -> u64 {
    (u64::from(controls) * CONTROLS) | (u64::from(retires) * RETIRES)
}

fn has(feature: u64, features: [u8; 8]) -> bool {
    u64::from_be_bytes(features) & feature != 0
}

/// The `N` bytes at this place, if they are all there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(all(test, not(loom)))]
mod tests;
