//! Unit tests of `native`.

use proptest::prelude::*;

use super::*;
use crate::proto::{InitialMessage, InitialMessageError, InitialMessageVersion, decode, encode};

const CLUSTER: [u8; 16] = *b"the test cluster";

fn native() -> Native {
    Native {
        to: Sid(3),
        cluster: CLUSTER,
        incarnation: 0x0102_0304_0506_0708,
        controls: true,
        retires: false,
    }
}

/// The initial message of server 5 to server 3, byte by byte, without addresses.
const GOLDEN: [u8; 64] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x03, // -65533
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, // from
    0xff, 0xff, 0xff, 0xff, // -1
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, // to
    0x74, 0x68, 0x65, 0x20, 0x74, 0x65, 0x73, 0x74, // cluster
    0x20, 0x63, 0x6c, 0x75, 0x73, 0x74, 0x65, 0x72, //
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // incarnation
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, // features
    0x00, 0x00, 0x00, 0x00, // length of the addresses
];

/// The answer of server 3, byte by byte: it is another server than the one that was meant.
const GOLDEN_ANSWER: [u8; 36] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x03, // -65533
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, // sid
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // incarnation
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // features
    0x00, 0x00, 0x00, 0x02, // code
];

fn message(addresses: &[&str]) -> Vec<u8> {
    let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let form = InitialMessageVersion::Native;
    encode(form, Sid(5), &addresses, &native())
}

#[test]
fn native_initial_message_has_these_bytes() {
    assert_eq!(message(&[]), GOLDEN);
    let with_addresses = message(&["10.0.0.2:3888", "zk:1"]);
    let text = b"10.0.0.2:3888|zk:1";
    let mut expected = GOLDEN.to_vec();
    expected[63] = text.len() as u8;
    expected.extend_from_slice(text);
    assert_eq!(with_addresses, expected);
    let initial_message = InitialMessage {
        sid: Sid(5),
        addresses: vec!["10.0.0.2:3888".parse().unwrap(), "zk:1".parse().unwrap()],
        overlooked: None,
        native: Some(native()),
    };
    let whole = Ok(Some((initial_message, expected.len())));
    assert_eq!(decode(&expected), whole);
    for cut in 0..expected.len() {
        assert_eq!(decode(&expected[..cut]), Ok(None), "{cut} bytes");
    }
    // What follows is left.
    expected.push(7);
    assert_eq!(decode(&expected), whole);
}

#[test]
fn unknown_features_and_the_reserved_bytes_are_ignored() {
    let mut bytes = GOLDEN;
    for at in (16..20).chain(52..60) {
        bytes[at] = 0x59;
    }
    let whole = decode(&GOLDEN).unwrap().unwrap();
    assert_eq!(decode(&bytes), Ok(Some(whole)));
    bytes[59] = 2;
    let native = decode(&bytes).unwrap().unwrap().0.native.unwrap();
    assert!(native.retires && !native.controls);
    let mut answer = GOLDEN_ANSWER;
    answer[24..32].fill(0xfe);
    assert_eq!(Answer::decode(&answer), Answer::decode(&GOLDEN_ANSWER));
}

#[test]
fn invalid_length_is_refused_with_the_header() {
    for len in [-1, i32::MIN, 2049, i32::MAX] {
        let mut bytes = GOLDEN;
        bytes[60..].copy_from_slice(&len.to_be_bytes());
        assert_eq!(decode(&bytes), Err(InitialMessageError::AddressBytes(len)));
        assert_eq!(decode(&bytes[..63]), Ok(None));
    }
}

#[test]
fn answer_has_these_bytes() {
    let answer = Answer {
        sid: Sid(3),
        incarnation: 0x0102_0304_0506_0708,
        controls: false,
        refusal: Some(Refusal::WrongServer(Sid(3))),
    };
    assert_eq!(answer.encode(), GOLDEN_ANSWER);
    let stream = [&GOLDEN_ANSWER[..], &[0, 0, 0, 1, 7]].concat();
    for have in 0..=stream.len() {
        let whole = (have >= 36).then(|| (answer.clone(), 36));
        assert_eq!(Answer::decode(&stream[..have]), Ok(whole), "{have} bytes");
    }
}

#[test]
fn every_refusal_has_its_number() {
    let sid = Sid(9);
    let numbered = [
        (0, None),
        (1, Some(Refusal::Other)),
        (2, Some(Refusal::WrongServer(sid))),
        (3, Some(Refusal::WrongCluster)),
        (4, Some(Refusal::UnknownSid)),
        (5, Some(Refusal::DuplicateSid)),
        (6, Some(Refusal::OlderLinkAlive)),
        (7, Some(Refusal::NoRoom)),
    ];
    for (code, refusal) in numbered {
        let answer = Answer {
            sid,
            incarnation: 1,
            controls: true,
            refusal,
        };
        let bytes = answer.encode();
        assert_eq!(bytes[32..], i32::to_be_bytes(code));
        assert_eq!(Answer::decode(&bytes), Ok(Some((answer, 36))));
    }
    // A number of a later version is a refusal.
    for code in [8, -1, i32::MAX] {
        assert_eq!(Refusal::of_code(code, sid), Some(Refusal::Other));
    }
}

#[test]
fn other_bytes_than_an_answer_are_refused_after_8() {
    let ssh = b"SSH-2.0-OpenSSH_9.2p1";
    assert_eq!(Answer::decode(&ssh[..7]), Ok(None));
    let begin = i64::from_be_bytes(*b"SSH-2.0-");
    assert_eq!(Answer::decode(ssh), Err(begin));
}

proptest! {
    #[test]
    fn any_native_initial_message_is_decoded(
        from in any::<i64>(),
        to in any::<i64>(),
        cluster in any::<[u8; 16]>(),
        incarnation in any::<u64>(),
        controls in any::<bool>(),
        retires in any::<bool>(),
        count in 0..33_usize,
    ) {
        let native = Native { to: Sid(to), cluster, incarnation, controls, retires };
        let address = "10.0.0.2:3888".parse().unwrap();
        let addresses = vec![address; count];
        let bytes = encode(InitialMessageVersion::Native, Sid(from), &addresses, &native);
        let (decoded, taken) = decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(taken, bytes.len());
        prop_assert_eq!((decoded.sid, decoded.addresses), (Sid(from), addresses));
        prop_assert_eq!(decoded.native, Some(native));
    }

    #[test]
    fn any_bytes_are_an_answer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64), begins in any::<bool>()) {
        let mut bytes = bytes;
        if begins {
            bytes.splice(..bytes.len().min(8), VERSION.to_be_bytes());
        }
        match Answer::decode(&bytes) {
            Ok(Some((answer, taken))) => {
                let encoded = answer.encode();
                // Features that are not known are not kept, and numbers that are not known become one.
                prop_assert_eq!(&encoded[..24], &bytes[..24]);
                prop_assert_eq!(taken, ANSWER_BYTES);
            }
            Ok(None) => prop_assert!(bytes.len() < ANSWER_BYTES),
            Err(begin) => prop_assert_eq!(&begin.to_be_bytes(), &bytes[..8]),
        }
    }
}
