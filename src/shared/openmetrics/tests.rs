//! The text of made-up statistics, to the byte.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    proto::Sid,
    shared::{LinkStats, histogram::Durations},
};

#[test]
fn statistics_are_written_to_the_byte() {
    let mut text = String::new();
    let now = Instant::now();
    made_up(now).write_openmetrics(now, &mut text).unwrap();
    assert_eq!(text, include_str!("golden.txt"));
}

fn made_up(now: Instant) -> Stats {
    let before = |millis| now - Duration::from_millis(millis);
    let sent = SendStats {
        accepted: 10,
        written: 6,
        superseded: 2,
        discarded: 1,
        waiting: 1,
        resent: 3,
        bytes: 1234,
        waiting_since: Some(before(1_500)),
    };
    let received = ReceiveStats {
        frames: 20,
        bytes: 5678,
    };
    let linked = PeerStats {
        incarnation: Some(7),
        sid: Sid(1),
        linked: true,
        link: Some(LinkStats {
            number: 7,
            dialed: true,
            addr: "[fe80::1%2]:3888".parse().unwrap(),
            since: before(61_000),
            round_trip: Some(Duration::from_micros(250)),
            last_round_trip: Some(Duration::from_micros(300)),
        }),
        last_end: None,
        sent,
        sent_latest: SendStats::default(),
        received,
        last_received: Some(before(250)),
        ups: 4,
        downs: [(ReasonKind::Closed, 2), (ReasonKind::Dead, 1)].into(),
        dials: 5,
        dropped: 9,
    };
    let away = PeerStats {
        incarnation: None,
        sid: Sid(3),
        linked: false,
        link: None,
        last_end: None,
        sent: SendStats::default(),
        sent_latest: SendStats::default(),
        received: ReceiveStats::default(),
        last_received: None,
        ups: 0,
        downs: BTreeMap::new(),
        dials: 8,
        dropped: 0,
    };
    let observer = PeerStats {
        sid: Sid(-1),
        ..linked.clone()
    };
    let turn_times = Durations::default();
    for micros in [1, 3, 40, 150_000, 20_000_000] {
        turn_times.add(Duration::from_micros(micros));
    }
    Stats {
        certificate_not_after: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        sent,
        received,
        loopback: 11,
        inbox: QueueStats {
            pushed: 30,
            taken: 12,
            dropped: 13,
            waiting: 5,
        },
        events: QueueStats::default(),
        accepted: 14,
        accept_failures: 15,
        kept: 16,
        knocks: 17,
        rejected: [(ReasonKind::UnknownSid, 18)].into(),
        pending: 19,
        ups: 21,
        downs: [(ReasonKind::Dead, 22)].into(),
        dials: 23,
        dial_failures: 24,
        renewals_given_up: 28,
        turns: 25,
        turn_times: turn_times.read(),
        wakeups: 26,
        connect_times: Histogram::default(),
        handshake_times: Histogram::default(),
        connections: 27,
        leaving: 28,
        peers: vec![observer, linked, away],
    }
}

#[test]
fn label_values_are_escaped() {
    assert_eq!(label("name", "a\"b\\n\n"), r#"name="a\"b\\n\n""#);
}
