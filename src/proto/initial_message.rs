//! The initial message: the first bytes of a connection, in which the dialer says its sid. There are three versions.
//!
//! Nothing here decides whether a sid or an address is believed, and nothing resolves a name.
//!
//! ```text
//! bare   sid                                     8 bytes, not negative
//! V1     -65536  sid  bytes  "host:port"         8 + 8 + 4 + bytes
//! V2     -65535  sid  bytes  "host:port|..."
//! ```

use std::{error, fmt};

use crate::limits::INITIAL_MESSAGE_READ_BYTES;

use super::{Address, AddressError, Sid};

/// Maximum bytes of the addresses in an initial message: ZooKeeper's `maxBuffer` (ZOOKEEPER-2186).
pub const ADDRESS_BYTES_MAX: usize = 2048;

/// Maximum bytes of an initial message: version, sid and length, then the addresses.
pub const INITIAL_MESSAGE_BYTES_MAX: usize = HEADER_BYTES + ADDRESS_BYTES_MAX;
const _: () = assert!(
    INITIAL_MESSAGE_READ_BYTES > INITIAL_MESSAGE_BYTES_MAX,
    "an initial message must fit one read"
);

/// Maximum number of addresses in an initial message. No real server has more, and each may cost the reader a lookup and a dial.
pub const ADDRESSES_MAX: usize = 32;

const LONG_BYTES: usize = 8;
const HEADER_BYTES: usize = 2 * LONG_BYTES + 4;
const VERSION_1: i64 = -65_536;
const VERSION_2: i64 = -65_535;

/// The version of the initial message that is sent. All versions are understood, whichever is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
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
}

/// Encodes the initial message of `sid`. The caller must send it with one write: ZooKeeper takes a short read for a short message.
///
/// # Panics
///
/// Panics if the receiver would refuse the message. The caller must have checked the sid, the addresses and their length.
pub(crate) fn encode(form: InitialMessageVersion, sid: Sid, addresses: &[Address]) -> Vec<u8> {
    let (version, sent) = match form {
        InitialMessageVersion::Bare => {
            assert!(sid.0 >= 0, "a negative bare sid would be read as a version");
            return sid.0.to_be_bytes().to_vec();
        }
        InitialMessageVersion::V1 => (VERSION_1, addresses.get(..1)),
        InitialMessageVersion::V2 => (VERSION_2, addresses.get(..)),
    };
    let text: Vec<String> = sent
        .unwrap_or_default()
        .iter()
        .map(Address::to_string)
        .collect();
    assert!(
        (1..=ADDRESSES_MAX).contains(&text.len()),
        "a server has 1 to {ADDRESSES_MAX} addresses"
    );
    let text = text.join("|");
    assert!(
        text.len() <= ADDRESS_BYTES_MAX,
        "the addresses of a server fit the initial message"
    );
    let len = i32::try_from(text.len()).expect("at most ADDRESS_BYTES_MAX");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&sid.0.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Decodes the initial message at the front of `bytes`, and returns how many bytes it has. `None`: it is not yet whole.
///
/// The version and the length are checked as soon as they have arrived, the text once it is whole. A whole message has at most
/// [`INITIAL_MESSAGE_BYTES_MAX`] bytes, so that this many bytes always give an answer. V1 and V2 have the same grammar of
/// addresses, as in ZooKeeper: V1 may carry several addresses.
///
/// The text is refused where ZooKeeper refuses it: each address must have the form `host:port`. The host may be any text, since
/// only a server with a smaller sid is ever dialed back. A host that cannot be dialed is left out.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(InitialMessage, usize)>, InitialMessageError> {
    let Some((first, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let first = i64::from_be_bytes(*first);
    if first >= 0 {
        let initial_message = InitialMessage {
            sid: Sid(first),
            addresses: Vec::new(),
            overlooked: None,
        };
        return Ok(Some((initial_message, LONG_BYTES)));
    }
    if first != VERSION_1 && first != VERSION_2 {
        return Err(InitialMessageError::UnknownVersion(first));
    }
    let Some((sid, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let Some((claimed, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*claimed);
    let len = match usize::try_from(claimed) {
        Ok(len) if (1..=ADDRESS_BYTES_MAX).contains(&len) => len,
        _ => return Err(InitialMessageError::AddressBytes(claimed)),
    };
    let Some(text) = rest.get(..len) else {
        return Ok(None);
    };
    let mut initial_message = InitialMessage {
        sid: Sid(i64::from_be_bytes(*sid)),
        addresses: Vec::new(),
        overlooked: None,
    };
    initial_message.take_addresses(text)?;
    Ok(Some((initial_message, HEADER_BYTES + len)))
}

impl InitialMessage {
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
    /// The addresses claim this length in bytes; only 1 to [`ADDRESS_BYTES_MAX`] are legal.
    AddressBytes(i32),
    /// A host is not UTF-8 text. The connection is kept nevertheless.
    NotUtf8,
    /// There are this many addresses, more than [`ADDRESSES_MAX`].
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V1: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00];
    const V2: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x01];

    fn list(text: &str) -> Vec<Address> {
        text.split('|')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().unwrap())
            .collect()
    }

    fn message(version: [u8; 8], sid: i64, len: i32, text: &[u8]) -> Vec<u8> {
        [&version[..], &sid.to_be_bytes(), &len.to_be_bytes(), text].concat()
    }

    /// A whole V1 message with this address text.
    fn with_text(text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        message(V1, 5, i32::try_from(text.len()).unwrap(), text)
    }

    fn addresses_in(text: impl AsRef<[u8]>) -> Result<Vec<Address>, InitialMessageError> {
        let bytes = with_text(text);
        let (initial_message, taken) = decode(&bytes)?.unwrap();
        assert_eq!(taken, bytes.len());
        Ok(initial_message.addresses)
    }

    /// Messages as ZooKeeper encodes them, with their content.
    fn golden() -> Vec<(InitialMessageVersion, i64, &'static str, Vec<u8>)> {
        let three = "1.1.1.1:9999|2.2.2.2:8888|3.3.3.3:7777";
        let ipv6 = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x01, 0x00, 0x00, 0x00, 0x16, 0x5b, 0x30, 0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x30,
            0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x31, 0x5d, 0x3a, 0x33, 0x38, 0x38, 0x38,
        ];
        let ipv4 = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x05, 0x00, 0x00, 0x00, 0x0d, 0x31, 0x30, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x32,
            0x3a, 0x33, 0x38, 0x38, 0x38,
        ];
        let v2 = [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x01][..],
            &[0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05],
            &[0x00, 0x00, 0x00, 0x26],
            three.as_bytes(),
        ]
        .concat();
        assert_eq!((ipv4.len(), ipv6.len(), v2.len()), (33, 42, 58));
        vec![
            (
                InitialMessageVersion::Bare,
                5,
                "",
                vec![0, 0, 0, 0, 0, 0, 0, 5],
            ),
            (InitialMessageVersion::V1, 5, "10.0.0.2:3888", ipv4.to_vec()),
            (
                InitialMessageVersion::V1,
                1,
                "[0:0:0:0:0:0:0:1]:3888",
                ipv6.to_vec(),
            ),
            (InitialMessageVersion::V2, 5, three, v2),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_zookeeper() {
        for (form, sid, text, bytes) in golden() {
            assert_eq!(encode(form, Sid(sid), &list(text)), bytes);
            let initial_message = InitialMessage {
                sid: Sid(sid),
                addresses: list(text),
                overlooked: None,
            };
            assert_eq!(decode(&bytes), Ok(Some((initial_message, bytes.len()))));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_not_yet_whole() {
        for (_, _, _, bytes) in golden() {
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut} bytes of {bytes:x?}");
            }
        }
    }

    #[test]
    fn every_split_gives_the_same_and_leaves_what_follows() {
        for (_, _, _, message) in golden() {
            let whole = decode(&message).unwrap().unwrap();
            let stream = [&message[..], &[0, 0, 0, 1, 7]].concat();
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let found = [first, second, stream.len()]
                        .into_iter()
                        .find_map(|have| decode(&stream[..have]).unwrap());
                    assert_eq!(found.as_ref(), Some(&whole));
                }
            }
        }
    }

    #[test]
    fn v1_sends_the_first_address_only() {
        let bytes = encode(InitialMessageVersion::V1, Sid(1), &list("a:1|b:2"));
        assert_eq!(bytes, message(V1, 1, 3, b"a:1"));
        let bytes = encode(InitialMessageVersion::V2, Sid(1), &list("a:1"));
        assert_eq!(bytes, message(V2, 1, 3, b"a:1"));
    }

    #[test]
    fn an_unknown_version_is_refused_after_8_bytes() {
        for version in [-1, -2, -65_534, -65_537, i64::MIN, -65_536 << 16] {
            let bytes = version.to_be_bytes();
            assert_eq!(
                decode(&bytes),
                Err(InitialMessageError::UnknownVersion(version))
            );
            assert_eq!(decode(&bytes[..7]), Ok(None));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_after_20_bytes() {
        for len in [0, -1, i32::MIN, 2049, i32::MAX] {
            for version in [V1, V2] {
                let bytes = message(version, 5, len, b"");
                assert_eq!(decode(&bytes), Err(InitialMessageError::AddressBytes(len)));
                assert_eq!(decode(&bytes[..19]), Ok(None));
            }
        }
    }

    #[test]
    fn any_sid_is_handed_on() {
        for sid in [0, 1, i64::MAX] {
            let (initial_message, taken) = decode(&sid.to_be_bytes()).unwrap().unwrap();
            assert_eq!((initial_message.sid, taken), (Sid(sid), 8));
        }
        for sid in [-1, i64::MIN, i64::MAX, VERSION_1] {
            let (initial_message, _) = decode(&message(V1, sid, 3, b"a:1")).unwrap().unwrap();
            assert_eq!(initial_message.sid, Sid(sid));
        }
    }

    #[test]
    fn the_longest_message_is_understood() {
        let hosts = "h".repeat(61);
        let text = vec![format!("{hosts}:1"); ADDRESSES_MAX].join("|");
        let padded = format!("{text:|<ADDRESS_BYTES_MAX$}");
        assert_eq!(addresses_in(&padded), Ok(list(&text)));
        assert_eq!(with_text(&padded).len(), INITIAL_MESSAGE_BYTES_MAX);
        assert_eq!(
            encode(InitialMessageVersion::V2, Sid(5), &list(&text))[20..],
            *text.as_bytes()
        );
    }

    #[test]
    fn several_addresses_are_understood_in_version_1_too() {
        assert_eq!(addresses_in("a:1|b:2"), Ok(list("a:1|b:2")));
    }

    #[test]
    fn bars_at_the_end_are_overlooked_and_others_are_not() {
        assert_eq!(addresses_in("|"), Ok(vec![]));
        assert_eq!(addresses_in("|||"), Ok(vec![]));
        assert_eq!(addresses_in("a:1||"), Ok(list("a:1")));
        for text in ["|a:1", "a:1||b:2"] {
            let empty = InitialMessageError::Address(AddressError::Empty);
            assert_eq!(addresses_in(text), Err(empty));
        }
    }

    #[test]
    fn wildcards_are_dropped_silently() {
        assert_eq!(addresses_in("0.0.0.0:3888"), Ok(vec![]));
        assert_eq!(
            addresses_in("[0:0:0:0:0:0:0:0]:3888|[::]:1|0:2"),
            Ok(vec![])
        );
        assert_eq!(addresses_in("0.0.0.0:3888|zk1:3888"), Ok(list("zk1:3888")));
    }

    /// ZooKeeper's own parser refuses these as well, except ports out of range, which end its listener.
    #[test]
    fn addresses_without_the_form_host_and_port_are_errors() {
        for (text, why) in [
            ("zk1", AddressError::NoPort),
            ("zk1:", AddressError::NoPort),
            (":", AddressError::NoPort),
            ("::", AddressError::NoPort),
            ("[zk1]", AddressError::NoPort),
            ("[zk1]:", AddressError::NoPort),
            ("[zk1]1", AddressError::NoPort),
            ("[zk1:1", AddressError::Unclosed),
            ("a:b:3888", AddressError::Unbracketed),
            ("::1:3888", AddressError::Unbracketed),
            ("2001:db8::3:3888", AddressError::Unbracketed),
            ("[zk1]:1:2", AddressError::Unbracketed),
            ("zk1:65536", AddressError::BadPort),
            ("zk1:-1", AddressError::BadPort),
            ("zk1:++1", AddressError::BadPort),
            ("zk1: 1", AddressError::BadPort),
            ("zk1:1 ", AddressError::BadPort),
            ("zk1:x", AddressError::BadPort),
            ("0.0.0.0:65536", AddressError::BadPort),
            ("zk1:3888|zk2:x", AddressError::BadPort),
            ("zk\u{fc}:\u{fc}", AddressError::BadPort),
        ] {
            let why = Err(InitialMessageError::Address(why));
            assert_eq!(addresses_in(text), why, "{text}");
        }
        let bad = InitialMessageError::Address(AddressError::BadPort);
        assert_eq!(addresses_in(b"zk1:\xff"), Err(bad));
        let many = vec!["a:1"; ADDRESSES_MAX + 1].join("|");
        let too_many = InitialMessageError::TooManyAddresses(ADDRESSES_MAX + 1);
        assert_eq!(addresses_in(many), Err(too_many));
    }

    #[test]
    fn hosts_that_nobody_could_dial_are_overlooked() {
        let overlooked = |text: &[u8]| {
            let (initial_message, _) = decode(&with_text(text)).unwrap().unwrap();
            assert_eq!(
                (initial_message.sid, &initial_message.addresses[..]),
                (Sid(5), &[][..])
            );
            initial_message.overlooked
        };
        let bad = |character| InitialMessageError::Address(AddressError::BadCharacter(character));
        let long = [b"h".repeat(300), b":1".to_vec()].concat();
        for (text, why) in [
            (&b"zk-m\xfcnchen:3888"[..], InitialMessageError::NotUtf8),
            (b"\xff:1", InitialMessageError::NotUtf8),
            (b"zk-m?nchen:3888", bad('?')),
            (b"zk3/10.0.0.3:3888", bad('/')),
            (b"zk3 :3888", bad(' ')),
            (b"zk\n3:3888", bad('\n')),
            (b"zk\x1b[0m:3888", bad('\u{1b}')),
            (b"\0:1", bad('\0')),
            (b"${HOSTNAME}:3888", bad('$')),
            (b"fe80%eth0:3888", bad('%')),
            (b"a[b]:1", bad('[')),
            ("zk\u{3164}:1".as_bytes(), bad('\u{3164}')),
            ("zk\u{202e}:1".as_bytes(), bad('\u{202e}')),
            (b":3888", InitialMessageError::Address(AddressError::NoHost)),
            (
                b"[]:3888",
                InitialMessageError::Address(AddressError::NoHost),
            ),
            (
                b"[fe80::3%eth0@if7]:1",
                InitialMessageError::Address(AddressError::NotIpv6),
            ),
            (
                b"[::g]:1",
                InitialMessageError::Address(AddressError::NotIpv6),
            ),
            (
                b"256.1.1.1:1",
                InitialMessageError::Address(AddressError::NotIpv4),
            ),
            (
                &long,
                InitialMessageError::Address(AddressError::HostTooLong(300)),
            ),
            (b"zk3:0", InitialMessageError::PortZero),
            (b"a:0|b?:1", InitialMessageError::PortZero),
        ] {
            assert_eq!(
                overlooked(text),
                Some(why),
                "{:?}",
                String::from_utf8_lossy(text)
            );
        }
        for nothing in ["0.0.0.0:1", "|", "[::]:1"] {
            assert_eq!(overlooked(nothing.as_bytes()), None);
        }
        assert_eq!(addresses_in(b"zk\xff:1|zk2:2||"), Ok(list("zk2:2")));
    }

    #[test]
    fn what_zookeeper_overlooks_in_an_address_is_overlooked() {
        for (text, same) in [
            ("zk3:+3888", "zk3:3888"),
            ("zk3:3888:", "zk3:3888"),
            ("zk3:3888::", "zk3:3888"),
            ("[zk3]:3888", "zk3:3888"),
            ("[10.0.0.3]:3888", "10.0.0.3:3888"),
            ("[::3]:3888:", "[::3]:3888"),
            ("m\u{fc}ller:03888", "m\u{fc}ller:3888"),
        ] {
            assert_eq!(addresses_in(text), Ok(list(same)), "{text}");
        }
    }

    #[test]
    fn other_protocols_are_told_apart_as_far_as_they_can_be() {
        // Any 8 bytes whose first bit is 0 are a bare sid. Such bytes are refused by the check of membership and the frame grammar.
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
        ] {
            let (initial_message, taken) = decode(bytes).unwrap().unwrap();
            assert!(
                initial_message.sid.0 > 1 << 60
                    && initial_message.addresses.is_empty()
                    && taken == 8
            );
        }
    }

    fn any_address() -> impl Strategy<Value = Address> {
        let ip = any::<std::net::IpAddr>().prop_map(|ip| ip.to_string());
        let host = prop_oneof![ip, "[a-z][a-z0-9_.-]{0,40}"];
        (host, 1..=u16::MAX)
            .prop_map(|(host, port)| Address::new(host, port))
            .prop_filter("wildcards are dropped", |address| !address.is_wildcard())
    }

    #[test]
    fn every_refusal_says_in_words_what_is_wrong() {
        for (bytes, words) in [
            ((-1_i64).to_be_bytes().to_vec(), "-1 is neither an id"),
            (message(V1, 5, -7, b""), "-7 bytes, outside 1 to 2048"),
            (with_text([0xff]), "address: the port is missing"),
            (with_text("|".repeat(40) + "a:1"), "41 addresses, more than"),
        ] {
            let why = decode(&bytes).unwrap_err().to_string();
            assert!(why.contains(words), "{why:?} without {words:?}");
        }
        for (text, words) in [
            (&b"a b:1"[..], "address: the host contains ' '"),
            (b"a:0", "at port 0"),
            (b"\xff:1", "address: the host is not UTF-8"),
        ] {
            let (initial_message, _) = decode(&with_text(text)).unwrap().unwrap();
            let why = initial_message.overlooked.unwrap().to_string();
            assert!(why.contains(words), "{why:?} without {words:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            form in prop_oneof![Just(InitialMessageVersion::Bare), Just(InitialMessageVersion::V1), Just(InitialMessageVersion::V2)],
            sid in 0..=i64::MAX,
            addresses in prop::collection::vec(any_address(), 1..=ADDRESSES_MAX),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = encode(form, Sid(sid), &addresses);
            let len = bytes.len();
            bytes.extend(behind);
            let sent = match form {
                InitialMessageVersion::Bare => vec![],
                InitialMessageVersion::V1 => addresses[..1].to_vec(),
                InitialMessageVersion::V2 => addresses,
            };
            prop_assert_eq!(decode(&bytes), Ok(Some((InitialMessage { sid: Sid(sid), addresses: sent, overlooked: None }, len))));
        }

        #[test]
        fn random_bytes_never_panic_and_an_answer_stays(
            head in prop_oneof![Just(vec![]), Just(V1.to_vec()), Just(V2.to_vec())],
            tail in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [head, tail].concat();
            let mut answer = Ok(None);
            for cut in 0..=bytes.len() {
                let next = decode(&bytes[..cut]);
                if let Ok(Some((initial_message, _))) = &next {
                    let visible = |one: &Address| one.to_string().parse().as_ref() == Ok(one);
                    prop_assert!(initial_message.addresses.iter().all(visible), "{:?}", initial_message.addresses);
                }
                prop_assert!(answer == Ok(None) || answer == next);
                answer = next;
            }
        }

        #[test]
        fn random_text_never_panics(text in "[\\[\\]|:.%+a-f0-9 \\PC]{1,200}") {
            let bytes = with_text(&text);
            prop_assert!(decode(&bytes) != Ok(None));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }
}
