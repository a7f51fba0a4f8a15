//! Tests frames of all lengths between ZooKeeper's manager and ours, and the first length that is too long.

use quorum_cnx::{FRAME_BYTES_MAX, Reason, SendError, Sid};

use crate::fixture::{ABOVE, BELOW, Fixture, JAVA, assert_never_down, await_down, recv_until};

/// Bytes that depend on their position and on the length.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at * 31 + at / 256 + bytes) as u8)
        .collect()
}

#[test]
fn frames_of_all_lengths_arrive_in_both_directions() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.ours(sid, |builder| builder);
        for bytes in [1, 40, 524_287, 524_288] {
            let payload = payload(bytes);
            ours.to_send(Sid(JAVA), payload.clone()).unwrap();
            fixture.java.recv_until(sid, &payload);
            fixture.java.send(sid, &payload);
            recv_until(&ours, &payload);
        }
        assert_never_down(&ours);
    }
}

#[test]
fn sending_a_too_long_frame_fails_and_keeps_the_link() {
    let mut fixture = Fixture::new();
    let ours = fixture.linked(ABOVE);
    let refused = ours.to_send(Sid(JAVA), payload(FRAME_BYTES_MAX + 1));
    assert_eq!(refused, Err(SendError::TooLarge(524_289)));
    fixture.exchange(&ours, "still here", "here too");
    assert_eq!((ours.stats().ups, ours.stats().downs.len()), (1, 0));
}

#[test]
fn too_long_frame_of_zookeeper_ends_each_link_until_replaced() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let ours = fixture.linked(sid);
        // ZooKeeper's sender has no limit.
        fixture.java.send(sid, payload(FRAME_BYTES_MAX + 1));
        assert_eq!(await_down(&ours), Reason::BadLength(524_289));
        // It sends the same frame over each new link, as its last message.
        assert_eq!(await_down(&ours), Reason::BadLength(524_289));
        fixture.java.send(sid, "shorter");
        recv_until(&ours, "shorter");
        fixture.await_one_connection(&ours);
    }
}
