//! Any call of the public interface, about any peer, at any time: from inside the handler, and in the middle of a write, as if
//! by another thread.
//!
//! What a call changes in the account is written there at once.

use std::time::Duration;

use quorum_cnx::{Handle, SendError, Sid};

use crate::{
    chance::Chance,
    host::{Books, put},
    plan::GUESTS,
};

/// Calls something. `about`: the peer that the application has just heard of. `calm`: no call that ends a link.
pub fn call_anything(
    books: &Books,
    handle: &Handle,
    me: usize,
    chance: &mut Chance,
    about: Option<Sid>,
    calm: bool,
) {
    if books.borrow().quiet {
        return;
    }
    // Peers, peers that are gone, and nobody.
    let anybody = Sid(chance.between(0, 26) as i64 - 6);
    let sid = about.filter(|_| !chance.percent(30)).unwrap_or(anybody);
    let is_host = books.borrow().index_of(sid);
    match chance.below(9) {
        0..=2 => send(books, handle, me, sid, is_host, chance),
        3 => {
            handle.connect_all();
            books.borrow_mut().hosts[me].asked_for_guests += GUESTS as u64;
        }
        4 => {
            books.borrow_mut().hosts[me].asked_for_guests += 1;
            check(handle.connect_one(sid));
        }
        5 if !calm => {
            {
                let account = &mut books.borrow_mut().hosts[me];
                account.asked_for_guests += 1;
                account.fruitless.remove(&sid);
            }
            check(handle.initiate_connection(sid));
        }
        6 if !calm && chance.percent(20) => {
            handle.soft_halt();
            let ledger = &mut *books.borrow_mut();
            ledger.hosts[me].dropped_in_turn = Some(ledger.now);
        }
        7 => {
            // On the thread of the loop, which does not wait.
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

/// Sends to whoever it is: a letter to a host, anything to others.
fn send(
    books: &Books,
    handle: &Handle,
    me: usize,
    sid: Sid,
    host: Option<usize>,
    chance: &mut Chance,
) {
    let len = chance.below(40);
    if let Some(host) = host {
        // What became of it is in the account.
        let _ = put(books, handle, me, host, len);
        return;
    }
    // A guest is dialed for it.
    books.borrow_mut().hosts[me].asked_for_guests += 1;
    let (one, other) = (vec![b'?'; 1 + len], vec![b'!'; 1 + len]);
    let taken = match chance.below(3) {
        0 => handle.to_send(sid, one).map(|_| 1),
        1 => handle.to_send_slice(sid, &one).map(|_| 1),
        _ => handle.to_send_all(sid, &[&one, &other]),
    };
    if let Ok(taken) = taken {
        books.borrow_mut().hosts[me].accepted += taken as u64;
    }
    check(taken);
}

/// The only mistakes that are possible.
fn check<T: std::fmt::Debug>(result: Result<T, SendError>) {
    match result {
        Ok(_) | Err(SendError::UnknownPeer(_) | SendError::Halted | SendError::Full) => {}
        Err(error) => panic!("{error}"),
    }
}
