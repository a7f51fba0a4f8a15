//! The initial message ("challenge"): the bytes with which a dialer names itself, in all three versions.
//!
//! Nobody is believed here: whether a sid or an address means anything is decided elsewhere. No name is ever resolved.
//!
//! ```text
//! bare   sid                                     8 bytes, not negative
//! V1     -65536  sid  bytes  "host:port"         8 + 8 + 4 + bytes
//! V2     -65535  sid  bytes  "host:port|..."
//! ```

use std::{error, fmt};

use super::{Address, AddressError, Sid};

/// The longest text of addresses in an initial message, in bytes: ZooKeeper's `maxBuffer` (ZOOKEEPER-2186).
pub const ADDRESS_BYTES_MAX: usize = 2048;

/// The longest initial message: version, sid and length, then the addresses.
pub const CHALLENGE_BYTES_MAX: usize = HEADER_BYTES + ADDRESS_BYTES_MAX;

/// Addresses in an initial message. No real server has more, and each may cost the reader a lookup and a dial.
pub const ADDRESSES_MAX: usize = 32;

const LONG_BYTES: usize = 8;
const HEADER_BYTES: usize = 2 * LONG_BYTES + 4;
const VERSION_1: i64 = -65_536;
const VERSION_2: i64 = -65_535;

/// The form of the initial message that is sent. All forms are understood, whichever is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Challenge {
    /// The sid alone: what ZooKeeper 3.4 sends, and every release understands. Only 3.4.5 and older need it. A server
    /// named like this cannot be dialed back by one that does not have it in its configuration.
    Bare,
    /// The sid and one address, the first one: what ZooKeeper sends since 3.5.0, and 3.4.6 and later understand.
    #[default]
    V1,
    /// The sid and all addresses: what ZooKeeper sends since 3.6.0 if `multiAddress.enabled` is set. 3.6.0 and later
    /// understand it; 3.4.6 to 3.5.0 overlook the addresses, 3.5.1 to 3.5.10 hang up (ZOOKEEPER-3720).
    V2,
}

/// What an initial message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Who the far end claims to be. In the versions with addresses it may be any number.
    pub(crate) sid: Sid,
    /// Where it says it can be reached, without the wildcards, which say nothing (ZOOKEEPER-2164).
    pub(crate) addresses: Vec<Address>,
}

/// The initial message of `sid`. It is to be written with one write: ZooKeeper takes a short read for a short message.
///
/// # Panics
///
/// If the receiver would refuse it: the caller has checked the sid, the addresses and their length beforehand.
pub(crate) fn encode(form: Challenge, sid: Sid, addresses: &[Address]) -> Vec<u8> {
    let (version, sent) = match form {
        Challenge::Bare => {
            assert!(sid.0 >= 0, "a negative bare sid would be read as a version");
            return sid.0.to_be_bytes().to_vec();
        }
        Challenge::V1 => (VERSION_1, addresses.get(..1)),
        Challenge::V2 => (VERSION_2, addresses.get(..)),
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

/// Reads the initial message at the front of `bytes`, and says how many bytes it took. `None`: it is not yet whole.
///
/// The version and the length are judged as soon as they are there, the text once it is whole. A whole message is at
/// most [`CHALLENGE_BYTES_MAX`] bytes, so with that many there is an answer. The text is read alike in both versions
/// that have one, as ZooKeeper does: V1 may carry several addresses.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Hello, usize)>, ChallengeError> {
    let Some((first, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let first = i64::from_be_bytes(*first);
    if first >= 0 {
        let hello = Hello {
            sid: Sid(first),
            addresses: Vec::new(),
        };
        return Ok(Some((hello, LONG_BYTES)));
    }
    if first != VERSION_1 && first != VERSION_2 {
        return Err(ChallengeError::UnknownVersion(first));
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
        _ => return Err(ChallengeError::AddressBytes(claimed)),
    };
    let Some(text) = rest.get(..len) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(text).map_err(|_| ChallengeError::NotUtf8)?;
    let hello = Hello {
        sid: Sid(i64::from_be_bytes(*sid)),
        addresses: addresses(text)?,
    };
    Ok(Some((hello, HEADER_BYTES + len)))
}

/// Bars at the end are overlooked, as Java's `split` does, so that bars alone are no address at all; any other empty
/// part is an error.
fn addresses(text: &str) -> Result<Vec<Address>, ChallengeError> {
    let text = text.trim_end_matches('|');
    if text.is_empty() {
        return Ok(Vec::new());
    }
    // Counted before anything is kept.
    let parts = text.split('|').count();
    if parts > ADDRESSES_MAX {
        return Err(ChallengeError::TooManyAddresses(parts));
    }
    let mut addresses = Vec::with_capacity(parts);
    for part in text.split('|') {
        let address: Address = part.parse().map_err(ChallengeError::Address)?;
        if address.port() == 0 {
            return Err(ChallengeError::PortZero);
        }
        if !address.is_wildcard() {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Why the first bytes of a connection are no initial message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChallengeError {
    /// The first 8 bytes are neither a sid nor the number of a version.
    UnknownVersion(i64),
    /// The addresses claim this length in bytes; only 1 to [`ADDRESS_BYTES_MAX`] are legal.
    AddressBytes(i32),
    /// The addresses are not text.
    NotUtf8,
    /// There are this many addresses, more than [`ADDRESSES_MAX`].
    TooManyAddresses(usize),
    /// An address cannot be understood.
    Address(AddressError),
    /// An address has the port 0, which cannot be dialed.
    PortZero,
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(version) => {
                write!(f, "{version} is neither an id nor a known version")
            }
            Self::AddressBytes(len) => write!(
                f,
                "the addresses claim a length of {len} bytes, outside 1 to {ADDRESS_BYTES_MAX}"
            ),
            Self::NotUtf8 => f.write_str("the addresses are not UTF-8"),
            Self::TooManyAddresses(count) => {
                write!(f, "{count} addresses, more than {ADDRESSES_MAX}")
            }
            Self::Address(why) => write!(f, "address: {why}"),
            Self::PortZero => f.write_str("address: nobody can be dialed at port 0"),
        }
    }
}

impl error::Error for ChallengeError {}

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

    /// A whole V1 message with this text of addresses.
    fn with_text(text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        message(V1, 5, i32::try_from(text.len()).unwrap(), text)
    }

    fn addresses_in(text: impl AsRef<[u8]>) -> Result<Vec<Address>, ChallengeError> {
        let bytes = with_text(text);
        let (hello, taken) = decode(&bytes)?.unwrap();
        assert_eq!(taken, bytes.len());
        Ok(hello.addresses)
    }

    /// Messages as ZooKeeper writes them, and what they say.
    fn golden() -> Vec<(Challenge, i64, &'static str, Vec<u8>)> {
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
            (Challenge::Bare, 5, "", vec![0, 0, 0, 0, 0, 0, 0, 5]),
            (Challenge::V1, 5, "10.0.0.2:3888", ipv4.to_vec()),
            (Challenge::V1, 1, "[0:0:0:0:0:0:0:1]:3888", ipv6.to_vec()),
            (Challenge::V2, 5, three, v2),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_zookeeper() {
        for (form, sid, text, bytes) in golden() {
            assert_eq!(encode(form, Sid(sid), &list(text)), bytes);
            let hello = Hello {
                sid: Sid(sid),
                addresses: list(text),
            };
            assert_eq!(decode(&bytes), Ok(Some((hello, bytes.len()))));
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
        let bytes = encode(Challenge::V1, Sid(1), &list("a:1|b:2"));
        assert_eq!(bytes, message(V1, 1, 3, b"a:1"));
        let bytes = encode(Challenge::V2, Sid(1), &list("a:1"));
        assert_eq!(bytes, message(V2, 1, 3, b"a:1"));
    }

    #[test]
    fn an_unknown_version_is_refused_after_8_bytes() {
        for version in [-1, -2, -65_534, -65_537, i64::MIN, -65_536 << 16] {
            let bytes = version.to_be_bytes();
            assert_eq!(decode(&bytes), Err(ChallengeError::UnknownVersion(version)));
            assert_eq!(decode(&bytes[..7]), Ok(None));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_after_20_bytes() {
        for len in [0, -1, i32::MIN, 2049, i32::MAX] {
            for version in [V1, V2] {
                let bytes = message(version, 5, len, b"");
                assert_eq!(decode(&bytes), Err(ChallengeError::AddressBytes(len)));
                assert_eq!(decode(&bytes[..19]), Ok(None));
            }
        }
    }

    #[test]
    fn any_sid_is_handed_on() {
        for sid in [0, 1, i64::MAX] {
            let (hello, taken) = decode(&sid.to_be_bytes()).unwrap().unwrap();
            assert_eq!((hello.sid, taken), (Sid(sid), 8));
        }
        for sid in [-1, i64::MIN, i64::MAX, VERSION_1] {
            let (hello, _) = decode(&message(V1, sid, 3, b"a:1")).unwrap().unwrap();
            assert_eq!(hello.sid, Sid(sid));
        }
    }

    #[test]
    fn the_longest_message_is_understood() {
        let hosts = "h".repeat(61);
        let text = vec![format!("{hosts}:1"); ADDRESSES_MAX].join("|");
        let padded = format!("{text:|<ADDRESS_BYTES_MAX$}");
        assert_eq!(addresses_in(&padded), Ok(list(&text)));
        assert_eq!(with_text(&padded).len(), CHALLENGE_BYTES_MAX);
        assert_eq!(
            encode(Challenge::V2, Sid(5), &list(&text))[20..],
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
            let empty = ChallengeError::Address(AddressError::Empty);
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

    #[test]
    fn addresses_that_cannot_be_dialed_are_errors() {
        for (text, why) in [
            ("zk1", AddressError::NoPort),
            (":3888", AddressError::NoHost),
            ("a:b:3888", AddressError::Unbracketed),
            ("::1:3888", AddressError::Unbracketed),
            ("zk1:65536", AddressError::BadPort),
            ("zk1:-1", AddressError::BadPort),
            ("zk1:+3888", AddressError::BadPort),
            ("0.0.0.0:65536", AddressError::BadPort),
            ("zk1:3888|zk 2:3888", AddressError::BadCharacter(' ')),
        ] {
            assert_eq!(
                addresses_in(text),
                Err(ChallengeError::Address(why)),
                "{text}"
            );
        }
        assert_eq!(addresses_in("zk1:0"), Err(ChallengeError::PortZero));
        assert_eq!(addresses_in("0.0.0.0:0"), Err(ChallengeError::PortZero));
        assert_eq!(
            addresses_in([b'z', 0xff, b':', b'1']),
            Err(ChallengeError::NotUtf8)
        );
        let many = vec!["a:1"; ADDRESSES_MAX + 1].join("|");
        let too_many = ChallengeError::TooManyAddresses(ADDRESSES_MAX + 1);
        assert_eq!(addresses_in(many), Err(too_many));
    }

    #[test]
    fn other_protocols_are_told_apart_as_far_as_they_can_be() {
        // A first bit of 0 makes a bare sid of anything; membership and the frame grammar have to refuse those.
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
        ] {
            let (hello, taken) = decode(bytes).unwrap().unwrap();
            assert!(hello.sid.0 > 1 << 60 && hello.addresses.is_empty() && taken == 8);
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
            (with_text([0xff]), "not UTF-8"),
            (with_text("|".repeat(40) + "a:1"), "41 addresses, more than"),
            (with_text("a b:1"), "address: the host contains ' '"),
            (with_text("a:0"), "at port 0"),
        ] {
            let why = decode(&bytes).unwrap_err().to_string();
            assert!(why.contains(words), "{why:?} without {words:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            form in prop_oneof![Just(Challenge::Bare), Just(Challenge::V1), Just(Challenge::V2)],
            sid in 0..=i64::MAX,
            addresses in prop::collection::vec(any_address(), 1..=ADDRESSES_MAX),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = encode(form, Sid(sid), &addresses);
            let len = bytes.len();
            bytes.extend(behind);
            let sent = match form {
                Challenge::Bare => vec![],
                Challenge::V1 => addresses[..1].to_vec(),
                Challenge::V2 => addresses,
            };
            prop_assert_eq!(decode(&bytes), Ok(Some((Hello { sid: Sid(sid), addresses: sent }, len))));
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
