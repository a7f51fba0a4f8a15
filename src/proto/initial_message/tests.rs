//! Unit tests of `initial_message`.

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

/// A version of ZooKeeper, which does not use what a native initial message has beside.
fn encoded(form: InitialMessageVersion, sid: Sid, addresses: &[Address]) -> Vec<u8> {
    let native = Native {
        to: Sid(0),
        cluster: [0; 16],
        incarnation: 0,
        controls: false,
        retires: false,
    };
    encode(form, sid, addresses, &native)
}

/// Messages as ZooKeeper encodes them, with their content.
fn golden() -> Vec<(InitialMessageVersion, i64, &'static str, Vec<u8>)> {
    let three = "1.1.1.1:9999|2.2.2.2:8888|3.3.3.3:7777";
    let ipv6 = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x00, 0x00, 0x00, 0x16, 0x5b, 0x30, 0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x30,
        0x3a, 0x30, 0x3a, 0x30, 0x3a, 0x31, 0x5d, 0x3a, 0x33, 0x38, 0x38, 0x38,
    ];
    let ipv4 = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x05, 0x00, 0x00, 0x00, 0x0d, 0x31, 0x30, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x32, 0x3a, 0x33,
        0x38, 0x38, 0x38,
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
fn encodes_the_same_bytes_as_zookeeper() {
    for (form, sid, text, bytes) in golden() {
        assert_eq!(encoded(form, Sid(sid), &list(text)), bytes);
        let initial_message = InitialMessage {
            sid: Sid(sid),
            addresses: list(text),
            overlooked: None,
            native: None,
        };
        assert_eq!(decode(&bytes), Ok(Some((initial_message, bytes.len()))));
    }
}

/// `decode` keeps nothing between two calls: what it returns depends on the bytes that have arrived, however they were split.
#[test]
fn any_splitting_decodes_the_same_and_keeps_the_rest() {
    for (_, _, _, message) in golden() {
        let whole = decode(&message).unwrap();
        let stream = [&message[..], &[0, 0, 0, 1, 7]].concat();
        for have in 0..=stream.len() {
            let expected = whole.clone().filter(|_| have >= message.len());
            assert_eq!(
                decode(&stream[..have]),
                Ok(expected),
                "{have} of {stream:x?}"
            );
        }
    }
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
fn invalid_length_is_refused_after_20_bytes() {
    for len in [0, -1, i32::MIN, 2049, i32::MAX] {
        for version in [V1, V2] {
            let bytes = message(version, 5, len, b"");
            assert_eq!(decode(&bytes), Err(InitialMessageError::AddressBytes(len)));
            assert_eq!(decode(&bytes[..19]), Ok(None));
        }
    }
}

#[test]
fn any_sid_is_decoded() {
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
fn longest_message_is_decoded() {
    let hosts = "h".repeat(61);
    let text = vec![format!("{hosts}:1"); ADDRESSES_MAX].join("|");
    let padded = format!("{text:|<ADDRESS_BYTES_MAX$}");
    assert_eq!(addresses_in(&padded), Ok(list(&text)));
    assert!(with_text(&padded).len() < INITIAL_MESSAGE_BYTES_MAX);
    assert_eq!(
        encoded(InitialMessageVersion::V2, Sid(5), &list(&text))[20..],
        *text.as_bytes()
    );
}

#[test]
fn addresses_are_read_as_by_zookeeper() {
    for (text, same) in [
        // Also in version 1, which sends only one.
        ("a:1|b:2", "a:1|b:2"),
        // Bars at the end.
        ("|", ""),
        ("|||", ""),
        ("a:1||", "a:1"),
        // Wildcards cannot be dialed.
        ("0.0.0.0:3888", ""),
        ("[0:0:0:0:0:0:0:0]:3888|[::]:1|0:2", ""),
        ("0.0.0.0:3888|zk1:3888", "zk1:3888"),
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

/// ZooKeeper's own parser refuses these as well, except ports out of range, which end its listener.
#[test]
fn addresses_without_the_form_host_and_port_are_errors() {
    for (text, why) in [
        ("|a:1", AddressError::Empty),
        ("a:1||b:2", AddressError::Empty),
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
fn undialable_hosts_are_ignored() {
    let overlooked = |text: &[u8]| {
        let (initial_message, _) = decode(&with_text(text)).unwrap().unwrap();
        assert_eq!(
            (initial_message.sid, &initial_message.addresses[..]),
            (Sid(5), &[][..])
        );
        initial_message.overlooked
    };
    let address = InitialMessageError::Address;
    let bad = |character| address(AddressError::BadCharacter(character));
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
        (b":3888", address(AddressError::NoHost)),
        (b"[]:3888", address(AddressError::NoHost)),
        (b"[fe80::3%eth0@if7]:1", address(AddressError::NotIpv6)),
        (b"[::g]:1", address(AddressError::NotIpv6)),
        (b"256.1.1.1:1", address(AddressError::NotIpv4)),
        (&long, address(AddressError::HostTooLong(300))),
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
fn other_protocols_are_decoded_as_a_large_bare_sid() {
    // Any 8 bytes whose first bit is 0 are a bare sid. Such bytes are refused by the check of membership and the frame grammar.
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
    ] {
        let (initial_message, taken) = decode(bytes).unwrap().unwrap();
        assert!(
            initial_message.sid.0 > 1 << 60 && initial_message.addresses.is_empty() && taken == 8
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
fn every_refusal_has_a_message_with_its_reason() {
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
    fn encoded_message_is_decoded_unchanged(
        form in prop_oneof![Just(InitialMessageVersion::Bare), Just(InitialMessageVersion::V1), Just(InitialMessageVersion::V2)],
        sid in 0..=i64::MAX,
        addresses in prop::collection::vec(any_address(), 1..=ADDRESSES_MAX),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = encoded(form, Sid(sid), &addresses);
        let len = bytes.len();
        bytes.extend(behind);
        let sent = match form {
            InitialMessageVersion::Bare => vec![],
            InitialMessageVersion::V1 => addresses[..1].to_vec(),
            _ => addresses,
        };
        prop_assert_eq!(decode(&bytes), Ok(Some((InitialMessage { sid: Sid(sid), addresses: sent, overlooked: None, native: None }, len))));
    }

    #[test]
    fn random_bytes_never_panic_and_results_are_final(
        head in prop_oneof![Just(vec![]), Just(V1.to_vec()), Just(V2.to_vec()), Just(native::VERSION.to_be_bytes().to_vec())],
        tail in prop::collection::vec(any::<u8>(), 0..96),
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
