//! Makes a random call of the public interface, about any peer: inside the handler, and in the middle of a write, as if by
//! another thread.
//!
//! Each call updates the oracle at once.

use std::time::Duration;

use quorum_cnx::{Handle, SendError, Sid};

use crate::{
    oracle::{SharedOracle, send_frame},
    plan::GUESTS,
    rng::Rng,
};

/// Makes one call. `about` is the peer of the current frame or event. With `strangers_only` no call ends a link.
pub fn random_call(
    oracle: &SharedOracle,
    handle: &Handle,
    me: usize,
    rng: &mut Rng,
    about: Option<Sid>,
    strangers_only: bool,
) {
    if oracle.borrow().calls_ended {
        return;
    }
    // Peers, former peers, and sids that belong to no server.
    let any_sid = Sid(rng.between(0, 26) as i64 - 6);
    let sid = about.filter(|_| !rng.percent(30)).unwrap_or(any_sid);
    let is_host = oracle.borrow().index_of(sid);
    match rng.below(9) {
        0..=2 => send(oracle, handle, me, sid, is_host, rng),
        3 => {
            handle.connect_all();
            let record = &mut oracle.borrow_mut().hosts[me];
            record.unproven_dials.clear();
            record.guest_dials_max += GUESTS as u64;
        }
        4 => {
            {
                let record = &mut oracle.borrow_mut().hosts[me];
                record.guest_dials_max += 1;
                record.unproven_dials.remove(&sid);
            }
            check(handle.connect_one(sid));
        }
        5 if !strangers_only => {
            {
                let record = &mut oracle.borrow_mut().hosts[me];
                record.guest_dials_max += 1;
                record.unproven_dials.remove(&sid);
            }
            check(handle.initiate_connection(sid));
        }
        6 if !strangers_only && rng.percent(20) => {
            handle.soft_halt();
            let oracle = &mut *oracle.borrow_mut();
            oracle.hosts[me].soft_halt_in_turn = Some(oracle.now);
        }
        7 => {
            // The thread of the loop does not wait.
            check(handle.wait_for_room(sid, Duration::MAX));
        }
        _ => {
            let stats = handle.stats();
            assert!(stats.sent.balances());
            let linked = handle.linked_peers();
            assert_eq!(linked.contains(&sid), handle.connected_to_peer(sid));
            assert_eq!(handle.have_delivered(), stats.sent.waiting == 0);
            assert!(!handle.has_died());
            let _ = (handle.listening(), handle.is_halted());
        }
    }
}

/// Sends a frame: one with a header to a host, any bytes to other sids.
fn send(
    oracle: &SharedOracle,
    handle: &Handle,
    me: usize,
    sid: Sid,
    host: Option<usize>,
    rng: &mut Rng,
) {
    let len = rng.below(40);
    if let Some(host) = host {
        // The oracle counts the outcome.
        let _ = send_frame(oracle, handle, me, host, len);
        return;
    }
    // This may dial an admitted peer.
    oracle.borrow_mut().hosts[me].guest_dials_max += 1;
    let (one, other) = (vec![b'?'; 1 + len], vec![b'!'; 1 + len]);
    let taken = match rng.below(3) {
        0 => handle.to_send(sid, one).map(|_| 1),
        1 => handle.to_send_slice(sid, &one).map(|_| 1),
        _ => handle.to_send_all(sid, &[&one, &other]),
    };
    if let Ok(taken) = taken {
        oracle.borrow_mut().hosts[me].accepted += taken as u64;
    }
    check(taken);
}

/// Panics at an error that these calls cannot cause.
fn check<T: std::fmt::Debug>(result: Result<T, SendError>) {
    match result {
        Ok(_) | Err(SendError::UnknownPeer(_) | SendError::Halted | SendError::Full) => {}
        Err(error) => panic!("{error}"),
    }
}
