//! The attacks, by name.
//!
//! Nothing here waits for an effect at a member. A closed connection is replaced by a new one.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::FRAME_BYTES_MAX;
use support::{V1, V2, bare, claiming, frame, rng::Rng, versioned};

use crate::{
    OBSERVERS,
    attacker::{Order, connect, descriptors_max},
};

/// The result of an attack.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) done: u64,
    /// The maximum number of connections at the same time.
    pub(crate) held: u64,
}

/// Threads that connect as fast as they can.
const THREADS: u64 = 2;

/// Connections that a thread opens before it closes the first of them.
const WAVE: u64 = 64;

pub(crate) fn run(name: &str, order: &Order) -> Done {
    match name {
        "silent" | "descriptors" => silent(order),
        "dribble" => dribble(order),
        "initial_messages" => at_full_speed(order, random_initial_messages),
        "claims" => at_full_speed(order, claims),
        "knocks" => at_full_speed(order, knocks),
        "lengths" => at_full_speed(order, giant_lengths),
        "largest" => largest_frames(order),
        "resets" => at_full_speed(order, resets),
        other => panic!("no attack: {other}"),
    }
}

/// Opens silent connections, and keeps them.
fn silent(order: &Order) -> Done {
    let (mut kept, mut done) = (VecDeque::new(), Done::default());
    // Keeps some descriptors for itself.
    let room = descriptors_max().saturating_sub(64).min(order.count) as usize;
    while done.done < order.count && order.continues(done.done) {
        if let Ok(stream) = connect(done.done, order.target(done.done)) {
            kept.push_back(stream);
        }
        done.done += 1;
        done.held = done.held.max(kept.len() as u64);
        if kept.len() > room {
            kept.pop_front();
        }
    }
    while !order.is_stopped() {
        // Only the delay of the end depends on this time.
        thread::sleep(Duration::from_millis(1));
    }
    done
}

/// Sends one byte of an initial message each second on each of many connections. A closed connection is replaced.
fn dribble(order: &Order) -> Done {
    let message = versioned(V1, 2, "dribble.example.org:3888");
    let room = descriptors_max().saturating_sub(64).min(order.count) as usize;
    let (mut kept, mut done) = (Vec::new(), Done::default());
    while order.continues(done.done) {
        let round = Instant::now();
        for n in 0..room {
            if !order.continues(done.done) {
                break;
            }
            let Some(connection) = kept.get_mut(n) else {
                kept.push(begin(order, &mut done, &message));
                continue;
            };
            if connection
                .as_mut()
                .is_none_or(|one| !write_next(one, &message))
            {
                *connection = begin(order, &mut done, &message);
            }
        }
        done.held = done.held.max(kept.iter().flatten().count() as u64);
        while round.elapsed() < Duration::from_secs(1) && order.continues(done.done) {
            // The pace of the attack.
            thread::sleep(Duration::from_millis(1));
        }
    }
    done
}

fn begin(order: &Order, done: &mut Done, message: &[u8]) -> Option<(TcpStream, usize)> {
    let n = done.done;
    done.done += 1;
    let stream = connect(n, order.target(n)).ok()?;
    (&stream).write_all(&message[..1]).ok()?;
    Some((stream, 1))
}

/// Writes the next byte, and returns whether that succeeded.
fn write_next((stream, position): &mut (TcpStream, usize), message: &[u8]) -> bool {
    let byte = message.get(*position..*position + 1);
    *position += 1;
    byte.is_some_and(|byte| stream.write_all(byte).is_ok())
}

/// Opens waves of numbered connections on a few threads.
fn at_full_speed(order: &Order, wave: impl Fn(&Order, std::ops::Range<u64>) + Sync) -> Done {
    let work = |thread: u64| {
        let mut waves = 0;
        while order.continues(waves * WAVE * THREADS) {
            let first = (waves * THREADS + thread) * WAVE;
            wave(order, first..first + WAVE);
            waves += 1;
        }
        waves * WAVE
    };
    Done {
        done: on_threads(THREADS, work),
        held: WAVE * THREADS,
    }
}

/// Does some work on each of these threads, and returns the sum of the results.
fn on_threads(count: u64, work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|nth| scope.spawn(move || work(nth)))
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.expect("the thread has not panicked"))
            .sum()
    })
}

/// Opens the connections of a wave, and writes `bytes` to each.
fn open(
    order: &Order,
    numbers: std::ops::Range<u64>,
    bytes: impl Fn(u64) -> Vec<u8>,
) -> Vec<TcpStream> {
    let begin = |n| {
        let stream = connect(n, order.target(n)).ok()?;
        // Fails when the other end has closed the connection.
        let _ = (&stream).write_all(&bytes(n));
        Some(stream)
    };
    numbers.filter_map(begin).collect()
}

/// Shuts down the write halves, and waits until the other end has closed the connections.
fn finish(wave: Vec<TcpStream>) {
    for stream in &wave {
        let _ = stream.shutdown(Shutdown::Write);
    }
    for mut stream in wave {
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// Half of them are random bytes, and half have the format of an initial message.
fn random_initial_messages(order: &Order, numbers: std::ops::Range<u64>) {
    let message = |n| {
        let mut rng = Rng::new(order.seed.wrapping_add(n));
        let len = rng.below(64);
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        if rng.below(2) == 0 {
            let version = [V1, V2, -(rng.below(1 << 20) as i64)][rng.below(3)];
            let length = match rng.below(4) {
                0 => rng.next() as i32,
                _ => bytes.len() as i32,
            };
            bytes
                .iter_mut()
                .for_each(|byte| *byte = b"0123456789abc.:|"[usize::from(*byte % 16)]);
            bytes = claiming(version, rng.next() as i64, length, &bytes);
        }
        bytes
    };
    finish(open(order, numbers, message));
}

/// Claims the sids of all members from other addresses, with a frame after the initial message.
fn claims(order: &Order, numbers: std::ops::Range<u64>) {
    let message = |n: u64| {
        let sid = 1 + (n / 3 % 3) as i64;
        let name = match n % 2 {
            0 => bare(sid),
            _ => versioned(V2, sid, "127.0.1.1:1"),
        };
        [name, frame("forged")].concat()
    };
    // All connections of a wave are open before the first is closed: one of them may become the contender.
    finish(open(order, numbers, message));
}

/// Knocks with the smallest sid.
fn knocks(order: &Order, numbers: std::ops::Range<u64>) {
    finish(open(order, numbers, |_| bare(1)));
}

/// Sends invalid lengths of frames, as an observer, and invalid lengths of address lists.
fn giant_lengths(order: &Order, numbers: std::ops::Range<u64>) {
    let observer = bare(i64::MAX);
    let bytes = |n: u64| match n % 8 {
        0 => [&observer[..], &i32::MAX.to_be_bytes(), &[7; 1000]].concat(),
        1 => [&observer[..], &[0xff; 8]].concat(),
        2 => [&observer[..], &[0; 8]].concat(),
        3 => [&observer[..], &(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()].concat(),
        4 => claiming(V1, 2, i32::MAX, &[b'a'; 1000]),
        5 => claiming(V2, 2, i32::MIN, &[b'a'; 1000]),
        6 => claiming(V2, 2, 2049, &[b'a'; 2049]),
        _ => claiming(V1, i64::MAX, 0, b""),
    };
    // One by one, so that there is a free place for an observer.
    for n in numbers {
        finish(open(order, n..n + 1, bytes));
    }
}

/// Sends frames of the maximum length on as many observers' links as are accepted, as fast as they are read.
fn largest_frames(order: &Order) -> Done {
    let bytes = frame(vec![7; FRAME_BYTES_MAX]);
    let send = |n| {
        let mut stream = connect(n, order.target(n)).expect("the observer is accepted");
        stream
            .write_all(&bare(i64::MAX))
            .expect("the observer is accepted");
        let mut frames = 0;
        while order.continues(frames * OBSERVERS as u64) && stream.write_all(&bytes).is_ok() {
            frames += 1;
        }
        frames
    };
    Done {
        done: on_threads(OBSERVERS as u64, send),
        held: OBSERVERS as u64,
    }
}

/// Connects, and resets the connection.
fn resets(order: &Order, numbers: std::ops::Range<u64>) {
    for n in numbers {
        drop(connect(n, order.target(n)));
    }
}
