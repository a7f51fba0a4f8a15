//! What one attacker can do from outside, each kind by its name.
//!
//! Nothing here waits for what a member should do; who is hung up on comes again.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::limits::FRAME_BYTES_MAX;
use support::{V1, V2, bare, claiming, frame, versioned};

use crate::{
    OBSERVERS,
    attacker::{Order, connect, descriptors_max},
};

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) done: u64,
    /// The most connections at one time.
    pub(crate) held: u64,
}

/// Threads that connect as fast as they can.
const THREADS: u64 = 2;

/// Connections that a thread opens before it looks at the first of them again.
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

/// Connects, says nothing, and stays.
fn silent(order: &Order) -> Done {
    let (mut kept, mut done) = (VecDeque::new(), Done::default());
    // Some for itself.
    let room = descriptors_max().saturating_sub(64).min(order.count) as usize;
    while done.done < order.count && order.goes_on(done.done) {
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
        // Nothing is done any more; only how soon it ends depends on this.
        thread::sleep(Duration::from_millis(1));
    }
    done
}

/// As many initial messages as asked for, each a byte longer every second. One that is cut off begins anew.
fn dribble(order: &Order) -> Done {
    let hello = versioned(V1, 2, "dribble.example.org:3888");
    let room = descriptors_max().saturating_sub(64).min(order.count) as usize;
    let (mut kept, mut done) = (Vec::new(), Done::default());
    while order.goes_on(done.done) {
        let round = Instant::now();
        for n in 0..room {
            if !order.goes_on(done.done) {
                break;
            }
            let Some(place) = kept.get_mut(n) else {
                kept.push(begin(order, &mut done, &hello));
                continue;
            };
            if place.as_mut().is_none_or(|one| !say_next(one, &hello)) {
                *place = begin(order, &mut done, &hello);
            }
        }
        done.held = done.held.max(kept.iter().flatten().count() as u64);
        while round.elapsed() < Duration::from_secs(1) && order.goes_on(done.done) {
            // The pace of the attack.
            thread::sleep(Duration::from_millis(1));
        }
    }
    done
}

fn begin(order: &Order, done: &mut Done, hello: &[u8]) -> Option<(TcpStream, usize)> {
    let n = done.done;
    done.done += 1;
    let stream = connect(n, order.target(n)).ok()?;
    (&stream).write_all(&hello[..1]).ok()?;
    Some((stream, 1))
}

/// Whether the far end has taken one byte more.
fn say_next((stream, said): &mut (TcpStream, usize), hello: &[u8]) -> bool {
    let byte = hello.get(*said..*said + 1);
    *said += 1;
    byte.is_some_and(|byte| stream.write_all(byte).is_ok())
}

/// Waves of connections on a few threads, numbered through.
fn at_full_speed(order: &Order, wave: impl Fn(&Order, std::ops::Range<u64>) + Sync) -> Done {
    let work = |thread: u64| {
        let mut waves = 0;
        while order.goes_on(waves * WAVE * THREADS) {
            let first = (waves * THREADS + thread) * WAVE;
            wave(order, first..first + WAVE);
            waves += 1;
        }
        waves * WAVE
    };
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.expect("it has not failed")).sum()
    });
    Done {
        done,
        held: WAVE * THREADS,
    }
}

/// Opens the connections of a wave, and says on each what `said` says.
fn open(
    order: &Order,
    numbers: std::ops::Range<u64>,
    said: impl Fn(u64) -> Vec<u8>,
) -> Vec<TcpStream> {
    let begin = |n| {
        let stream = connect(n, order.target(n)).ok()?;
        // Fails when the far end has heard enough.
        let _ = (&stream).write_all(&said(n));
        Some(stream)
    };
    numbers.filter_map(begin).collect()
}

/// Says that nothing follows, and waits until the far end has hung up.
fn hang_up(wave: Vec<TcpStream>) {
    for stream in &wave {
        let _ = stream.shutdown(Shutdown::Write);
    }
    for mut stream in wave {
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// Half of them bytes by chance, half of them what an initial message could look like.
fn random_initial_messages(order: &Order, numbers: std::ops::Range<u64>) {
    let hello = |n| {
        let mut chance = Chance(
            order
                .seed
                .wrapping_add(n)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let len = chance.below(64) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| chance.next() as u8).collect();
        if chance.below(2) == 0 {
            let version = [V1, V2, -(chance.below(1 << 20) as i64)][chance.below(3) as usize];
            let length = match chance.below(4) {
                0 => chance.next() as i32,
                _ => bytes.len() as i32,
            };
            bytes
                .iter_mut()
                .for_each(|byte| *byte = b"0123456789abc.:|"[usize::from(*byte % 16)]);
            bytes = claiming(version, chance.next() as i64, length, &bytes);
        }
        bytes
    };
    hang_up(open(order, numbers, hello));
}

/// Every member's sid, from where none of them is, with frames behind it.
fn claims(order: &Order, numbers: std::ops::Range<u64>) {
    let hello = |n: u64| {
        let sid = 1 + (n / 3 % 3) as i64;
        let name = match n % 2 {
            0 => bare(sid),
            _ => versioned(V2, sid, "127.0.1.1:1"),
        };
        [name, frame("I am he")].concat()
    };
    // All of a wave are there before the first leaves: one of them may be left waiting, unread.
    hang_up(open(order, numbers, hello));
}

/// The smallest sid says that it has no link.
fn knocks(order: &Order, numbers: std::ops::Range<u64>) {
    hang_up(open(order, numbers, |_| bare(1)));
}

/// Observers whose frames have lengths that cannot be, and addresses of such lengths.
fn giant_lengths(order: &Order, numbers: std::ops::Range<u64>) {
    let observer = bare(i64::MAX);
    let said = |n: u64| match n % 8 {
        0 => [&observer[..], &i32::MAX.to_be_bytes(), &[7; 1000]].concat(),
        1 => [&observer[..], &[0xff; 8]].concat(),
        2 => [&observer[..], &[0; 8]].concat(),
        3 => [&observer[..], &(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()].concat(),
        4 => claiming(V1, 2, i32::MAX, &[b'a'; 1000]),
        5 => claiming(V2, 2, i32::MIN, &[b'a'; 1000]),
        6 => claiming(V2, 2, 2049, &[b'a'; 2049]),
        _ => claiming(V1, i64::MAX, 0, b""),
    };
    // One by one, so that there is room for observers.
    for n in numbers {
        hang_up(open(order, n..n + 1, said));
    }
}

/// As many observers as are let in send the longest frames as fast as they are taken.
fn largest_frames(order: &Order) -> Done {
    let bytes = frame(vec![7; FRAME_BYTES_MAX]);
    let send = |n| {
        let mut stream = connect(n, order.target(n)).expect("it is let in");
        stream.write_all(&bare(i64::MAX)).expect("it is let in");
        let mut frames = 0;
        while order.goes_on(frames * OBSERVERS as u64) && stream.write_all(&bytes).is_ok() {
            frames += 1;
        }
        frames
    };
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..OBSERVERS as u64)
            .map(|n| scope.spawn(move || send(n)))
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.expect("it has not failed")).sum()
    });
    Done {
        done,
        held: OBSERVERS as u64,
    }
}

/// Connects and resets.
fn resets(order: &Order, numbers: std::ops::Range<u64>) {
    for n in numbers {
        drop(connect(n, order.target(n)));
    }
}

/// Numbers by chance, the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
