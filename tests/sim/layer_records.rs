//! The records of `layer`, and what a stranger needs to speak it.
//!
//! A record is its kind, the length of its body, a check of these, the masked body, and a check of it. So no damaged byte remains
//! unnoticed, and no byte of a frame is seen on the wire.

use quorum_cnx::{Sid, TlsFailure};

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;
/// A record without data that asks for nothing, such as a session ticket.
pub const CONTROL: u8 = 24;
pub const CLOSE: u8 = 25;

const HEADER_BYTES: usize = 4;
const CHECK_BYTES: usize = 4;
const MASK: u8 = 0xa5;

/// The key and the certificate of a process.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The server that the certificate names.
    pub names: Sid,
    /// A root that all processes trust has signed it.
    pub is_signed: bool,
}

/// Bytes that were received and not decoded.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    at: usize,
}

impl Incoming {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend(bytes);
    }

    /// Decodes the next record, if all of it is here: its kind and its body.
    pub fn next(&mut self, is_established: bool) -> Result<Option<(u8, Vec<u8>)>, TlsFailure> {
        let damaged = |what: &str| Err(TlsFailure::Protocol(what.to_owned()));
        let bytes = &self.bytes[self.at..];
        match bytes.first() {
            None => return Ok(None),
            Some(ALERT..=CLOSE) => {}
            Some(_) if is_established => return damaged("an unknown kind of record"),
            Some(_) => return Err(TlsFailure::Plaintext),
        }
        let Some((&[kind, high, low, check], rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        if check != MASK ^ kind ^ high ^ low {
            return damaged("a damaged header of a record");
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        let Some((body, check)) = rest.get(..len + CHECK_BYTES).map(|it| it.split_at(len)) else {
            return Ok(None);
        };
        if check != sum(body) {
            return damaged("a damaged record");
        }
        self.at += HEADER_BYTES + len + CHECK_BYTES;
        Ok(Some((kind, body.iter().map(|byte| byte ^ MASK).collect())))
    }
}

fn sum(body: &[u8]) -> [u8; CHECK_BYTES] {
    let step = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    body.iter().fold(0x811c_9dc5, step).to_be_bytes()
}

pub fn seal(kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len())
        .expect("records are short")
        .to_be_bytes();
    let mut record = vec![kind, high, low, MASK ^ kind ^ high ^ low];
    record.extend(body.iter().map(|byte| byte ^ MASK));
    record.extend(sum(&record[HEADER_BYTES..]));
    record
}

/// The body of the n-th message of a handshake. The second and the third one are certificates.
pub fn flight(number: u8, key: Key, certificate: usize) -> Vec<u8> {
    let mut body = vec![number, u8::from(key.is_signed)];
    body.extend(key.names.0.to_be_bytes());
    let more = if matches!(number, 1 | 2) {
        certificate
    } else {
        0
    };
    body.resize(body.len() + more, 0);
    body
}

pub fn parse_flight(body: &[u8]) -> Option<(u8, Key)> {
    let (&[number, is_signed], rest) = body.split_first_chunk::<2>()?;
    let names = Sid(i64::from_be_bytes(*rest.first_chunk()?));
    let is_signed = is_signed == 1;
    Some((number, Key { names, is_signed }))
}

/// What a dialer with this key sends, if it does not wait for answers.
pub fn speak(key: Key, pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let handshake = [0, 2].map(|number| seal(HANDSHAKE, &flight(number, key, 0)));
    let data = pieces.iter().map(|piece| seal(DATA, piece));
    handshake.into_iter().chain(data).collect()
}
