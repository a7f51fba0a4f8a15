//! stub
use super::{Address, AddressError, Sid, parse_list};
/// a
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Challenge {
    /// a
    Bare,
    /// a
    #[default]
    V1,
    /// a
    V2,
}
/// a
pub const CHALLENGE_BYTES_MAX: usize = 2068;
/// a
pub const ADDRESS_BYTES_MAX: usize = 2048;
/// a
pub const ADDRESSES_MAX: usize = 32;
pub(crate) struct Hello {
    pub(crate) sid: Sid,
    pub(crate) addresses: Vec<Address>,
}
/// a
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeError {
    /// a
    UnknownVersion(i64),
    /// a
    Address(AddressError),
}
impl std::fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bad")
    }
}
pub(crate) fn encode(form: Challenge, sid: Sid, addresses: &[Address]) -> Vec<u8> {
    if form == Challenge::Bare {
        return sid.0.to_be_bytes().to_vec();
    }
    let t = addresses[0].to_string();
    let mut v = (-65536_i64).to_be_bytes().to_vec();
    v.extend(sid.0.to_be_bytes());
    v.extend((t.len() as u32).to_be_bytes());
    v.extend(t.bytes());
    v
}
pub(crate) fn decode(b: &[u8]) -> Result<Option<(Hello, usize)>, ChallengeError> {
    if b.len() < 8 {
        return Ok(None);
    }
    let v = i64::from_be_bytes(b[..8].try_into().unwrap());
    if v >= 0 {
        return Ok(Some((
            Hello {
                sid: Sid(v),
                addresses: vec![],
            },
            8,
        )));
    }
    if b.len() < 20 {
        return Ok(None);
    }
    let sid = i64::from_be_bytes(b[8..16].try_into().unwrap());
    let n = u32::from_be_bytes(b[16..20].try_into().unwrap()) as usize;
    if b.len() < 20 + n {
        return Ok(None);
    }
    let addresses = parse_list(std::str::from_utf8(&b[20..20 + n]).unwrap())
        .map_err(ChallengeError::Address)?;
    Ok(Some((
        Hello {
            sid: Sid(sid),
            addresses,
        },
        20 + n,
    )))
}
