//! The initial message: the first bytes of a connection, in which the dialer says its sid. There are three versions of ZooKeeper, and
//! one of this library.
//!
//! Nothing here decides whether a sid or an address is believed, and nothing resolves a name.
//!
//! ```text
//! bare   sid                                     8 bytes, not negative
//! V1     -65536  sid  bytes  "host:port"         8 + 8 + 4 + bytes
//! V2     -65535  sid  bytes  "host:port|..."
//! native -65533  sid  ...    "host:port|..."     64 + bytes: see `native`
//! ```

use std::{error, fmt};

use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, INITIAL_MESSAGE_BYTES_MAX};

use super::{
    Address, AddressError, Sid,
    native::{self, NATIVE_HEADER_BYTES, Native, decode_native, encode_native},
};

const LONG_BYTES: usize = 8;
const HEADER_BYTES: usize = 2 * LONG_BYTES + 4;
const _: () = assert!(INITIAL_MESSAGE_BYTES_MAX == NATIVE_HEADER_BYTES + ADDRESS_BYTES_MAX);
const _: () = assert!(HEADER_BYTES < NATIVE_HEADER_BYTES);
const VERSION_1: i64 = -65_536;
const VERSION_2: i64 = -65_535;

/// The version of the initial message that is sent. All versions are understood, whichever is sent, unless
/// [`native_only`](crate::ConfigBuilder::native_only) is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InitialMessageVersion {
    /// The sid alone. ZooKeeper 3.4 sends it, and every release understands it. Only 3.4.5 and older need it. A server that sends
    /// it can be dialed back only by servers that have it in their configuration.
    Bare,
    /// The sid and the first address. ZooKeeper sends it since 3.5.0, and 3.4.6 and later understand it.
    #[default]
    V1,
    /// The sid and all addresses. ZooKeeper sends it since 3.6.0 if `multiAddress.enabled` is set. 3.6.0 and later understand it.
    /// 3.4.6 to 3.5.0 ignore the addresses, and 3.5.1 to 3.5.10 close the connection (ZOOKEEPER-3720).
    V2,
    /// The sid and all addresses, the sid of the server that is meant, the cluster, and a random number of this start. Only this library
    /// understands it, and answers: it accepts the connection, or says why it refuses it ([`Refusal`](crate::Refusal)). A dialed link is
    /// up once the answer has arrived. No release of ZooKeeper accepts it.
    Native,
}

/// The content of an initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitialMessage {
    /// The sid that the far end claims. In the versions with addresses it may be any number.
    pub(crate) sid: Sid,
    /// The addresses at which the far end says that it can be dialed. Wildcards are left out, because they mean nothing on
    /// another machine (ZOOKEEPER-2164), and so are addresses that cannot be dialed.
    pub(crate) addresses: Vec<Address>,
    /// Why the first of the addresses that cannot be dialed was left out.
    pub(crate) overlooked: Option<InitialMessageError>,
    /// What the other versions do not have. The far end then expects an answer.
    pub(crate) native: Option<Native>,
}

/// Encodes the initial message of `sid`. `native` is used by [`InitialMessageVersion::Native`] only. The caller must send it with one
/// write: ZooKeeper takes a short read for a short message.
///
/// # Panics
///
/// Panics if the receiver would refuse the message. The caller must have checked the sid, the addresses and their length.
pub(crate) fn encode(
    form: InitialMessageVersion,
    sid: Sid,
    addresses: &[Address],
    native: &Native,
) -> Vec<u8> {
    let sent = match form {
        InitialMessageVersion::Bare => {
            assert!(sid.0 >= 0, "a negative bare sid would be read as a version");
            return sid.0.to_be_bytes().to_vec();
        }
        InitialMessageVersion::V1 => addresses.get(..1).unwrap_or_default(),
        InitialMessageVersion::V2 | InitialMessageVersion::Native => addresses,
    };
    let least = usize::from(form != InitialMessageVersion::Native);
    assert!(
        (least..=ADDRESSES_MAX).contains(&sent.len()),
        "a server has 1 to {ADDRESSES_MAX} addresses"
    );
    let text: Vec<String> = sent.iter().map(Address::to_string).collect();
    let text = text.join("|");
    assert!(
        text.len() <= ADDRESS_BYTES_MAX,
        "the addresses of a server fit the initial message"
    );
    let len = i32::try_from(text.len()).expect("at most ADDRESS_BYTES_MAX");
    let mut bytes = Vec::with_capacity(NATIVE_HEADER_BYTES + text.len());
    if form == InitialMessageVersion::Native {
        encode_native(native, sid, len, &mut bytes);
    } else {
        let is_first = form == InitialMessageVersion::V1;
        let version = if is_first { VERSION_1 } else { VERSION_2 };
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&sid.0.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Decodes the initial message at the front of `bytes`, and returns how many bytes it has. `None`: it is not yet whole.
///
/// The version and the length are checked as soon as they have arrived, the text once it is whole. A whole message has at most
/// [`INITIAL_MESSAGE_BYTES_MAX`] bytes, so that this many bytes always give an answer. The versions have the same grammar of
/// addresses, as in ZooKeeper: V1 may carry several addresses. Only a native one may carry none.
///
/// The text is refused where ZooKeeper refuses it: each address must have the form `host:port`. The host may be any text, since
/// only a server with a smaller sid is ever dialed back. A host that cannot be dialed is left out.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(InitialMessage, usize)>, InitialMessageError> {
    let Some((first, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let (sid, native, claimed, header) = match i64::from_be_bytes(*first) {
        sid @ 0.. => {
            let initial_message = InitialMessage::without_addresses(Sid(sid), None);
            return Ok(Some((initial_message, LONG_BYTES)));
        }
        VERSION_1 | VERSION_2 => {
            let Some((sid, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let Some(claimed) = rest.first_chunk() else {
                return Ok(None);
            };
            let claimed = i32::from_be_bytes(*claimed);
            let sid = Sid(i64::from_be_bytes(*sid));
            (sid, None, claimed, HEADER_BYTES)
        }
        native::VERSION => match decode_native(bytes) {
            Some((sid, native, claimed)) => (sid, Some(native), claimed, NATIVE_HEADER_BYTES),
            None => return Ok(None),
        },
        unknown => return Err(InitialMessageError::UnknownVersion(unknown)),
    };
    let least = usize::from(native.is_none());
    let len = match usize::try_from(claimed) {
        Ok(len) if (least..=ADDRESS_BYTES_MAX).contains(&len) => len,
        _ => return Err(InitialMessageError::AddressBytes(claimed)),
    };
    let Some(text) = bytes.get(header..header + len) else {
        return Ok(None);
    };
    let mut initial_message = InitialMessage::without_addresses(sid, native);
    initial_message.take_addresses(text)?;
    Ok(Some((initial_message, header + len)))
}

impl InitialMessage {
    fn without_addresses(sid: Sid, native: Option<Native>) -> Self {
        Self {
            sid,
            addresses: Vec::new(),
            overlooked: None,
            native,
        }
    }

    /// Bars at the end are ignored, as by Java's `split`, so that a text of bars alone holds no address. Any other empty part is an
    /// error.
    fn take_addresses(&mut self, mut text: &[u8]) -> Result<(), InitialMessageError> {
        while let Some(shorter) = text.strip_suffix(b"|") {
            text = shorter;
        }
        if text.is_empty() {
            return Ok(());
        }
        let is_bar = |byte: &u8| *byte == b'|';
        // The number is checked before anything is allocated.
        let parts = text.split(is_bar).count();
        if parts > ADDRESSES_MAX {
            return Err(InitialMessageError::TooManyAddresses(parts));
        }
        for part in text.split(is_bar) {
            let (host, port) = host_and_port(part).map_err(InitialMessageError::Address)?;
            match dialable(host, port) {
                Ok(address) if address.is_wildcard() => {}
                Ok(address) => self.addresses.push(address),
                Err(why) => {
                    self.overlooked.get_or_insert(why);
                }
            }
        }
        Ok(())
    }
}

/// Splits `host:port` as ZooKeeper does: a host in brackets may be any text, colons at the end are ignored, and the port may
/// have a sign.
fn host_and_port(part: &[u8]) -> Result<(&[u8], u16), AddressError> {
    let split = |text: &'_ [u8], at: u8| text.iter().position(|byte| *byte == at);
    if part.is_empty() {
        return Err(AddressError::Empty);
    }
    let (host, ports) = if let Some(rest) = part.strip_prefix(b"[") {
        let end = split(rest, b']').ok_or(AddressError::Unclosed)?;
        let ports = rest[end + 1..].strip_prefix(b":");
        (&rest[..end], ports.ok_or(AddressError::NoPort)?)
    } else {
        let end = split(part, b':').ok_or(AddressError::NoPort)?;
        (&part[..end], &part[end + 1..])
    };
    let mut port = ports;
    while let Some(shorter) = port.strip_suffix(b":") {
        port = shorter;
    }
    if port.is_empty() {
        return Err(AddressError::NoPort);
    }
    if port.contains(&b':') {
        return Err(AddressError::Unbracketed);
    }
    let port = std::str::from_utf8(port).ok();
    let port = port.and_then(|port| port.parse().ok());
    Ok((host, port.ok_or(AddressError::BadPort)?))
}

/// Returns an address that may be dialed and written to the log.
fn dialable(host: &[u8], port: u16) -> Result<Address, InitialMessageError> {
    let host = std::str::from_utf8(host).map_err(|_| InitialMessageError::NotUtf8)?;
    let address = Address::checked(host, port).map_err(InitialMessageError::Address)?;
    match address.port() {
        0 => Err(InitialMessageError::PortZero),
        _ => Ok(address),
    }
}

/// Why the first bytes of a connection are not an initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitialMessageError {
    /// The first 8 bytes are neither a sid nor a known version.
    UnknownVersion(i64),
    /// The addresses claim this length in bytes; only 1 to 2048 are legal, and 0 in a native
    /// initial message.
    AddressBytes(i32),
    /// A host is not UTF-8 text. The connection is kept nevertheless.
    NotUtf8,
    /// There are this many addresses, more than 32.
    TooManyAddresses(usize),
    /// An address cannot be understood.
    Address(AddressError),
    /// An address has the port 0, which cannot be dialed. The connection is kept nevertheless.
    PortZero,
}

impl fmt::Display for InitialMessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(version) => {
                write!(f, "{version} is neither an id nor a known version")
            }
            Self::AddressBytes(len) => write!(
                f,
                "the addresses claim a length of {len} bytes, outside 1 to {ADDRESS_BYTES_MAX}"
            ),
            Self::NotUtf8 => f.write_str("address: the host is not UTF-8"),
            Self::TooManyAddresses(count) => {
                write!(f, "{count} addresses, more than {ADDRESSES_MAX}")
            }
            Self::Address(why) => write!(f, "address: {why}"),
            Self::PortZero => f.write_str("address: nobody can be dialed at port 0"),
        }
    }
}

impl error::Error for InitialMessageError {}

#[cfg(all(test, not(loom)))]
mod tests;
