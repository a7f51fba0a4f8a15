//! Sixty-four threads that send at once, to one member and to many, to members that read and to one that is away.
//!
//! Nothing here is received by a manager: the far ends only read.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Handle, Outbox, SendError, SendOutcome, Sid};

use crate::{
    common::{
        LONG,
        crowd::Crowd,
        eventually,
        figures::Figures,
        process::{Holdings, wait_descriptors},
        within,
    },
    stage::{MIB, linked, one_at_a_time},
};

const THREADS: u64 = 64;

/// Frames that each thread puts at least: all go on until the slowest has.
const FRAMES: u64 = 500;

const FRAME_BYTES: usize = 100;

/// To whom a thread sends its frames.
#[derive(Clone, Copy, Debug)]
enum To {
    One,
    /// Each frame to the next member.
    Many,
    /// To a member that is not linked, so that all of it stays here.
    Absent,
}

const MEMBERS: i64 = 16;

impl To {
    fn pick(self, number: u64) -> Sid {
        match self {
            Self::One => Sid(1),
            Self::Many => Sid(1 + (number % MEMBERS as u64) as i64),
            Self::Absent => Sid(MEMBERS + 1),
        }
    }
}

#[test]
fn nothing_is_lost_from_the_account_of_sixty_four_threads_and_nobody_starves() {
    let _turn = one_at_a_time();
    let mut figures = Figures::new(
        "overload-senders",
        &[
            "64 threads",
            "frames/s",
            "written",
            "superseded",
            "turns a frame",
            "slowest share",
            "longest call, us",
        ],
    );
    for outbox in [Outbox::Latest, Outbox::QUEUE] {
        for to in [To::One, To::Many, To::Absent] {
            let name = match outbox {
                Outbox::Latest => format!("to {to:?}, slot"),
                _ => format!("to {to:?}, queue"),
            };
            figures.row([vec![name.to_lowercase()], senders(outbox, to)].concat());
        }
    }
    figures.tell();
}

/// One run; the cells of its row.
fn senders(outbox: Outbox, to: To) -> Vec<String> {
    let before = Holdings::own();
    let (manager, streams) = crowd_with_an_absentee(outbox);
    let crowd = Crowd::drain(streams);
    let (ready, slow) = (
        Arc::new(Barrier::new(THREADS as usize)),
        Arc::new(AtomicU64::new(THREADS)),
    );
    let (first, start, turns) = (Holdings::own(), Instant::now(), manager.stats().turns);
    let threads: Vec<_> = (0..THREADS)
        .map(|nth| {
            let (handle, ready, slow) = (manager.handle(), Arc::clone(&ready), Arc::clone(&slow));
            thread::spawn(move || {
                ready.wait();
                send(&handle, to, nth, &slow)
            })
        })
        .collect();
    let accounts: Vec<Account> = within("all threads send", move || {
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let took = start.elapsed();
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();
    let absent = matches!(to, To::Absent);
    eventually("nothing waits", || absent || manager.have_delivered());
    let stats = manager.stats();
    let sent = stats.sent;
    assert!(sent.balances(), "{sent:?}");
    assert_eq!(sent.accepted, sum(|account| account.taken));
    let put = sum(Account::put);
    // Whoever replaced a frame and could write his own at once was told of the latter.
    assert!(sent.superseded >= sum(|account| account.superseded));
    assert_eq!((sent.discarded, sent.resent), (0, 0));
    match (outbox, to) {
        (Outbox::Latest, To::Absent) => assert_eq!((sent.written, sent.waiting), (0, 1)),
        (_, To::Absent) => assert_eq!((sent.written, sent.superseded), (0, 0)),
        (Outbox::Latest, _) => assert_eq!(sent.written + sent.superseded, put),
        _ => assert_eq!(sent.written, put),
    }
    // What was written has come, to the byte.
    eventually("all that was written comes", || crowd.moved() == sent.bytes);
    let turns = (manager.stats().turns - turns) as f64 / put as f64;
    assert!(turns < 0.05, "{turns} turns a frame");
    // Nobody starves: the slowest has put as many as it was to, in time. How many the others have put meanwhile is the
    // system's business, who shares out processors and locks.
    let least = accounts.iter().map(Account::put).min().unwrap();
    let slowest = least as f64 * THREADS as f64 / put as f64;
    let longest = accounts.iter().map(|account| account.longest).max();
    let growth = Holdings::own().growth_since(first);
    assert!(growth < 24 * MIB, "{growth} bytes more");
    drop((crowd, manager));
    wait_descriptors(before);
    vec![
        format!("{:.0}", put as f64 / took.as_secs_f64()),
        sent.written.to_string(),
        sent.superseded.to_string(),
        format!("{turns:.4}"),
        format!("{slowest:.3}"),
        format!("{}", longest.unwrap().as_micros()),
    ]
}

/// All members are linked but the last.
fn crowd_with_an_absentee(outbox: Outbox) -> (CnxManager, Vec<std::net::TcpStream>) {
    let (manager, mut streams) = linked(MEMBERS + 1, |builder| builder.outbox(outbox));
    drop(streams.pop());
    eventually("the last member is away", || {
        manager.linked_peers().len() == MEMBERS as usize
    });
    (manager, streams)
}

/// What one thread was told.
#[derive(Default)]
struct Account {
    taken: u64,
    superseded: u64,
    /// There was no room, and will be none.
    refused: u64,
    longest: Duration,
}

impl Account {
    fn put(&self) -> u64 {
        self.taken + self.refused
    }
}

/// Sends until as many threads as are `slow` have put their frames.
fn send(handle: &Handle, to: To, nth: u64, slow: &AtomicU64) -> Account {
    let mut account = Account::default();
    for number in 0.. {
        if number == FRAMES {
            slow.fetch_sub(1, Ordering::AcqRel);
        }
        if slow.load(Ordering::Acquire) == 0 {
            break;
        }
        let peer = to.pick(nth + number);
        loop {
            let begun = Instant::now();
            let sent = handle.to_send_slice(peer, &[nth as u8; FRAME_BYTES]);
            account.longest = account.longest.max(begun.elapsed());
            match sent {
                Ok(sent) => {
                    account.taken += 1;
                    account.superseded += u64::from(sent == SendOutcome::Superseded);
                    break;
                }
                Err(SendError::Full) if matches!(to, To::Absent) => {
                    account.refused += 1;
                    break;
                }
                Err(SendError::Full) => assert!(handle.wait_for_room(peer, LONG).unwrap()),
                Err(error) => panic!("frame {number} of thread {nth}: {error}"),
            }
        }
    }
    account
}
