//! Tests a ZooKeeper that is paused: what we send meanwhile, and what it receives when it is resumed.

use std::{sync::Arc, time::Duration};

use quorum_cnx::{CnxManager, Reason, SendOutcome, Sid};
use support::{
    numbered::{number_of, numbered},
    within,
};

use crate::fixture::{ABOVE, BELOW, Fixture, JAVA, assert_never_down, await_down};

/// Large enough to fill the buffers of the kernel soon.
const BYTES: usize = 64 << 10;

/// Sends frames 1, 2, 3 and so on, until `times` of them have superseded an older one. Returns the last number.
#[track_caller]
fn send_until_superseded(ours: &Arc<CnxManager>, times: u64) -> u64 {
    let (sid, ours) = (ours.sid().0, Arc::clone(ours));
    within("sending to a peer that does not read", move || {
        let (mut number, mut superseded) = (0, 0);
        while superseded < times {
            number += 1;
            if ours.to_send(Sid(JAVA), numbered(sid, JAVA, number, BYTES))
                == Ok(SendOutcome::Superseded)
            {
                superseded += 1;
            }
        }
        number
    })
}

/// Waits for the newest frame, and checks that no frame before it is torn or out of order.
#[track_caller]
fn recv_rising_until(fixture: &Fixture, from: i64, newest: u64) {
    let mut before = 0;
    while before < newest {
        let (sid, payload) = fixture.java.recv();
        assert_eq!(sid, from);
        if payload == b"ours" {
            // The frame before the numbered ones, sent again over a new link.
            assert_eq!(before, 0);
            continue;
        }
        let number = number_of(from, JAVA, &payload).unwrap();
        assert!(number >= before, "{number} after {before}");
        before = number;
    }
}

#[test]
fn paused_zookeeper_blocks_no_send_and_gets_the_newest_frame() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        // Longer than the test: the paused peer must not be declared dead.
        let long = Duration::from_secs(600);
        let ours = Arc::new(fixture.ours(sid, |builder| builder.peer_dead_after(long)));
        fixture.exchange(&ours, "ours", "theirs");
        fixture.java.process.pause();
        let newest = send_until_superseded(&ours, 100);
        let sent = ours.stats().sent;
        assert_eq!((sent.superseded, sent.accepted), (100, newest + 1));
        assert!(sent.waiting > 0 && sent.balances(), "{sent:?}");
        fixture.java.process.resume();
        recv_rising_until(&fixture, sid, newest);
        assert_never_down(&ours);
        fixture.exchange(&ours, "still here", "here too");
        fixture.await_one_connection(&ours);
    }
}

#[test]
fn zookeeper_paused_for_too_long_is_dead_until_it_resumes() {
    let mut fixture = Fixture::new();
    for sid in [BELOW, ABOVE] {
        let soon = Duration::from_secs(2);
        let ours = Arc::new(fixture.ours(sid, |builder| builder.peer_dead_after(soon)));
        fixture.exchange(&ours, "ours", "theirs");
        fixture.java.process.pause();
        let newest = send_until_superseded(&ours, 1);
        assert_eq!(await_down(&ours), Reason::Dead);
        fixture.java.process.resume();
        recv_rising_until(&fixture, sid, newest);
        fixture.exchange(&ours, "still here", "here too");
        fixture.await_one_connection(&ours);
    }
}
