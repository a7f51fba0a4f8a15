//! Tests sixty-four threads that send at once: to one member, to many, and to one that is not linked.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Handle, Outbox, SendError, SendOutcome, Sid};

use support::{
    LONG,
    crowd::LoadThread,
    eventually,
    figures::ResultTable,
    process::{ProcessResources, wait_descriptors},
    within,
};

use crate::setup::{MIB, linked, one_at_a_time};

const THREADS: u64 = 64;

/// Frames that each thread sends at least: all continue until the slowest one has sent them.
const FRAMES: u64 = 500;

const FRAME_BYTES: usize = 100;

/// The receivers of a thread's frames.
#[derive(Clone, Copy, Debug)]
enum Target {
    One,
    /// Each frame to the next member.
    Many,
    /// A member that is not linked, so that no frame is written.
    Absent,
}

const MEMBERS: i64 = 16;

impl Target {
    fn pick(self, number: u64) -> Sid {
        match self {
            Self::One => Sid(1),
            Self::Many => Sid(1 + (number % MEMBERS as u64) as i64),
            Self::Absent => Sid(MEMBERS + 1),
        }
    }

    fn receivers(self) -> u64 {
        match self {
            Self::Many => MEMBERS as u64,
            Self::One | Self::Absent => 1,
        }
    }
}

#[test]
fn sends_of_64_threads_are_all_counted_and_none_starves() {
    let _guard = one_at_a_time();
    let mut figures = ResultTable::new(
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
        for to in [Target::One, Target::Many, Target::Absent] {
            let name = match outbox {
                Outbox::Latest => format!("to {to:?}, slot"),
                _ => format!("to {to:?}, queue"),
            };
            figures.row([vec![name.to_lowercase()], senders(outbox, to)].concat());
        }
    }
    figures.tell();
}

/// Runs once. Returns the cells of its row.
fn senders(outbox: Outbox, to: Target) -> Vec<String> {
    let before = ProcessResources::own();
    let (manager, streams) = linked_except_last(outbox);
    let crowd = LoadThread::read(streams);
    let (ready, unfinished) = (
        Arc::new(Barrier::new(THREADS as usize)),
        Arc::new(AtomicU64::new(THREADS)),
    );
    let (first, start, turns) = (
        ProcessResources::own(),
        Instant::now(),
        manager.stats().turns,
    );
    let threads: Vec<_> = (0..THREADS)
        .map(|nth| {
            let (handle, ready, unfinished) = (
                manager.handle(),
                Arc::clone(&ready),
                Arc::clone(&unfinished),
            );
            thread::spawn(move || {
                ready.wait();
                send(&handle, to, nth, &unfinished)
            })
        })
        .collect();
    let counts: Vec<Counts> = within("all threads send", move || {
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let took = start.elapsed();
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    let absent = matches!(to, Target::Absent);
    eventually("nothing waits", || absent || manager.have_delivered());
    let stats = manager.stats();
    let sent = stats.sent;
    assert!(sent.balances(), "{sent:?}");
    assert_eq!(sent.accepted, sum(|counts| counts.accepted));
    let frames = sum(Counts::frames);
    // A send that replaces a frame and is written at once returns `Written`.
    assert!(sent.superseded >= sum(|counts| counts.superseded));
    assert_eq!((sent.discarded, sent.resent), (0, 0));
    match (outbox, to) {
        (Outbox::Latest, Target::Absent) => assert_eq!((sent.written, sent.waiting), (0, 1)),
        (_, Target::Absent) => assert_eq!((sent.written, sent.superseded), (0, 0)),
        (Outbox::Latest, _) => assert_eq!(sent.written + sent.superseded, frames),
        _ => assert_eq!(sent.written, frames),
    }
    // All bytes that were written arrive.
    eventually("all written bytes arrive", || crowd.moved() == sent.bytes);
    let turns = (manager.stats().turns - turns) as f64 / frames as f64;
    assert!(turns < 0.05, "{turns} turns a frame");
    // No thread starves: the slowest one has sent all its frames in time. The shares of the others depend on the system's
    // scheduler and locks.
    let least = counts.iter().map(Counts::frames).min().unwrap();
    let slowest = least as f64 * THREADS as f64 / frames as f64;
    let longest = counts.iter().map(|counts| counts.longest).max();
    let growth = ProcessResources::own().growth_since(first);
    let allowed = 24 * MIB + to.receivers() * queue_bytes_max(outbox);
    assert!(growth < allowed, "{growth} bytes more");
    drop((crowd, manager));
    wait_descriptors(before);
    vec![
        format!("{:.0}", frames as f64 / took.as_secs_f64()),
        sent.written.to_string(),
        sent.superseded.to_string(),
        format!("{turns:.4}"),
        format!("{slowest:.3}"),
        format!("{}", longest.unwrap().as_micros()),
    ]
}

/// What a queue may hold when its peer is slow, as `Config::max_memory` has it.
fn queue_bytes_max(outbox: Outbox) -> u64 {
    match outbox {
        Outbox::Queue { bytes, .. } => 3 * bytes as u64 + MIB / 2,
        _ => 0,
    }
}

/// Links all members but the last.
fn linked_except_last(outbox: Outbox) -> (CnxManager, Vec<std::net::TcpStream>) {
    let (manager, mut streams) = linked(MEMBERS + 1, |builder| builder.outbox(outbox));
    drop(streams.pop());
    eventually("the last member is not linked", || {
        manager.linked_peers().len() == MEMBERS as usize
    });
    (manager, streams)
}

/// The outcomes of one thread's sends.
#[derive(Default)]
struct Counts {
    accepted: u64,
    superseded: u64,
    /// Frames for which there was no room, to a member that is not linked.
    refused: u64,
    longest: Duration,
}

impl Counts {
    fn frames(&self) -> u64 {
        self.accepted + self.refused
    }
}

/// Sends until every thread has sent its frames. `unfinished` counts those that have not.
fn send(handle: &Handle, to: Target, nth: u64, unfinished: &AtomicU64) -> Counts {
    let mut counts = Counts::default();
    for number in 0.. {
        if number == FRAMES {
            unfinished.fetch_sub(1, Ordering::AcqRel);
        }
        if unfinished.load(Ordering::Acquire) == 0 {
            break;
        }
        let peer = to.pick(nth + number);
        loop {
            let begun = Instant::now();
            let sent = handle.to_send_slice(peer, &[nth as u8; FRAME_BYTES]);
            counts.longest = counts.longest.max(begun.elapsed());
            match sent {
                Ok(sent) => {
                    counts.accepted += 1;
                    counts.superseded += u64::from(sent == SendOutcome::Superseded);
                    break;
                }
                Err(SendError::Full) if matches!(to, Target::Absent) => {
                    counts.refused += 1;
                    break;
                }
                Err(SendError::Full) => assert!(handle.wait_for_room(peer, LONG).unwrap()),
                Err(error) => panic!("frame {number} of thread {nth}: {error}"),
            }
        }
    }
    counts
}
