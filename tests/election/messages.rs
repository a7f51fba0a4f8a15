//! Tests the encoding of notifications: those of all ZooKeeper versions, and malformed ones.

use proptest::prelude::*;
use quorum_cnx::{Sid, ZooCfg};

use crate::notification::{Format, Malformed, Notification, State, Vote, configuration};

const CONFIGURATION: &str = "server.1=127.0.0.1:2888:3888:participant;0.0.0.0:2181\nversion=0";

const VOTE: Vote = Vote {
    leader: Sid(5),
    zxid: 0x1_0000_0001,
    round: 7,
    epoch: 2,
};

fn notification(version: i32) -> Notification {
    Notification {
        state: State::Leading,
        vote: VOTE,
        version,
    }
}

/// The bytes that ZooKeeper 3.5 and later send.
fn golden() -> Vec<u8> {
    let mut bytes = vec![
        0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0,
        0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 63,
    ];
    bytes.extend(CONFIGURATION.as_bytes());
    bytes
}

#[test]
fn encodes_the_same_bytes_as_zookeeper() {
    let golden = golden();
    assert_eq!(
        notification(2).write(Format::V2, CONFIGURATION),
        golden,
        "3.5 and later"
    );
    let read = (notification(2), CONFIGURATION.as_bytes());
    assert_eq!(Notification::read(&golden), Ok(read));
}

#[test]
fn every_notification_format_is_read_and_written() {
    let golden = golden();
    for (format, length, version) in [(Format::Epoch, 36, 0), (Format::V1, 40, 1)] {
        let mut bytes = golden[..length].to_vec();
        if length == 40 {
            bytes[39] = 1;
        }
        let notification = notification(version);
        assert_eq!(notification.write(format, CONFIGURATION), bytes);
        assert_eq!(Notification::read(&bytes), Ok((notification, &[][..])));
    }
    // The oldest format has no epoch: it is taken from the zxid, even from a negative one.
    let bytes = notification(0).write(Format::Bare, CONFIGURATION);
    assert_eq!(bytes, golden[..28]);
    let (mut read, _) = Notification::read(&bytes).unwrap();
    assert_eq!((read.vote.epoch, read.version), (1, 0));
    read.vote.zxid = i64::MIN;
    let bytes = read.write(Format::Bare, "");
    assert_eq!(
        Notification::read(&bytes).unwrap().0.vote.epoch,
        i64::MIN >> 32
    );
}

#[test]
fn trailing_bytes_are_ignored_as_in_zookeeper() {
    let mut old = golden()[..40].to_vec();
    old[39] = 1;
    old.extend([9; 50]);
    assert_eq!(Notification::read(&old), Ok((notification(1), &[][..])));
    let mut new = golden();
    new.extend([9; 50]);
    let read = (notification(2), CONFIGURATION.as_bytes());
    assert_eq!(Notification::read(&new), Ok(read));
}

/// The messages of `FLEMalformedNotificationMessageTest`. The last one has an invalid configuration, and its vote counts: see
/// `elections: malformed_notifications_are_counted_and_ignored`.
#[test]
fn malformed_notifications_are_refused() {
    let golden = golden();
    let there = CONFIGURATION.len();
    let mut cases: Vec<(Vec<u8>, Malformed)> = Vec::new();
    for length in [12, 30] {
        cases.push((golden[..length].to_vec(), Malformed::Length(length)));
    }
    for claimed in [-123, -5, 10_000] {
        let mut bytes = golden.clone();
        bytes[40..44].copy_from_slice(&i32::to_be_bytes(claimed));
        cases.push((bytes, Malformed::Configuration { claimed, there }));
    }
    for (bytes, expected) in cases {
        let malformed = Notification::read(&bytes).unwrap_err();
        assert_eq!(malformed, expected);
        assert!(malformed.to_string().contains(" bytes"), "{malformed}");
    }
    let invalid = "my very invalid config string";
    let bytes = notification(2).write(Format::V2, invalid);
    let (read, text) = Notification::read(&bytes).unwrap();
    assert_eq!((read, text), (notification(2), invalid.as_bytes()));
    assert!(ZooCfg::parse_dynamic(invalid).is_err());
}

#[test]
fn incomplete_messages_and_unknown_states_are_refused() {
    let golden = golden();
    for length in 0..golden.len() {
        let is_whole = [28, 36].contains(&length);
        let read = Notification::read(&golden[..length]);
        assert_eq!(read.is_ok(), is_whole, "{length} bytes");
    }
    for state in [-1_i32, 4, i32::MAX] {
        let mut bytes = golden.clone();
        bytes[..4].copy_from_slice(&state.to_be_bytes());
        assert_eq!(
            Notification::read(&bytes),
            Err(Malformed::State(state)),
            "{state}"
        );
    }
}

#[test]
fn configuration_is_written_as_zookeeper_writes_it() {
    let text = "group.1=1:2\nweight.1=3\nserver.2=b:1:2:observer;2181\nserver.1=a:1:2|[::1]:3:4\n\
                version=10000000a\n";
    let cfg = ZooCfg::parse_dynamic(text).unwrap();
    let written = "server.2=b:1:2:observer;2181\nserver.1=a:1:2|[::1]:3:4:participant\ngroup.1=1:2\n\
                weight.1=3\nversion=10000000a";
    assert_eq!(configuration(&cfg), written);
    let again = ZooCfg::parse_dynamic(written).unwrap();
    assert_eq!(configuration(&again), written);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok((notification, text)) = Notification::read(&bytes) {
            prop_assert!(text.len() + 44 <= bytes.len() || text.is_empty());
            let text = std::str::from_utf8(text).unwrap_or_default();
            let again = Notification { version: 2, ..notification }.write(Format::V2, text);
            let (read, same) = Notification::read(&again).unwrap();
            prop_assert_eq!((read.state, read.vote), (notification.state, notification.vote));
            prop_assert_eq!(same, text.as_bytes());
        }
    }

    /// Real messages in which some bytes are changed or missing.
    #[test]
    fn damaged_notifications_never_panic(
        changes in prop::collection::vec((0_usize..107, any::<u8>()), 0..4), length in 0_usize..108,
    ) {
        let mut bytes = golden();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(length);
        let _ = Notification::read(&bytes);
    }
}
