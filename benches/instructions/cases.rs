//! The cases: each has a function that sends or receives a number of frames, and checks that it did.
//!
//! The setup of a case does not depend on the number of frames, so that the counter can subtract it.

use std::{
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{
    Batch, CnxManager, Config, EventLoop, Frame, Handle, Handler, Outbox, SendOutcome, Sid,
    TryRecvError,
};

use crate::memory::{Memory, Peer};

const OWN: Sid = Sid(2);
const PEER: Sid = Sid(1);

const SMALL: usize = 64;
const MEDIUM: usize = 1 << 10;

/// Frames in one call of `to_send_all`.
const CALL: usize = 16;

/// Frames that are sent between two turns, if the loop writes them.
const PER_TURN: u64 = 256;

/// Frames that wait in an inbox at the same time. An inbox holds 100.
const BURST: u64 = 64;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Frames for a stable count.
    pub(crate) frames: u64,
    /// Additional accepted growth in percent: how a socket splits a burst varies.
    pub(crate) slack: f64,
    pub(crate) run: fn(u64) -> Result<(), Failure>,
}

pub(crate) type Failure = Box<dyn std::error::Error>;

pub(crate) const CASES: [Case; 17] = [
    case("decode 64 B", 40_000, |n| decode(SMALL, n)),
    case("decode 1 KiB", 10_000, |n| decode(MEDIUM, n)),
    case("to_send 64 B, written inline", 20_000, |n| {
        send(Method::Bytes, n)
    }),
    case("to_send_slice 64 B, written inline", 20_000, |n| {
        send(Method::Slice, n)
    }),
    case("to_send 64 B, superseding, no link", 20_000, |n| {
        supersede(false, n)
    }),
    case("to_send 64 B, superseding, socket full", 20_000, |n| {
        supersede(true, n)
    }),
    case("queue: to_send 64 B", 20_480, |n| {
        queue(Method::Bytes, SMALL, n)
    }),
    case("queue: to_send_slice 64 B", 20_480, |n| {
        queue(Method::Slice, SMALL, n)
    }),
    case("queue: to_send_all 64 B, 16 a call", 20_480, |n| {
        queue(Method::All, SMALL, n)
    }),
    case("queue: to_send_all 1 KiB, 16 a call", 10_240, |n| {
        queue(Method::All, MEDIUM, n)
    }),
    case("inbox: loopback 64 B, try_recv", 20_480, inbox_one_by_one),
    case("inbox: loopback 64 B, recv_all", 20_480, inbox_all),
    Case {
        slack: 20.0,
        ..case(
            "manager: bursts of 64 B by a socket, recv_all",
            10_240,
            manager,
        )
    },
    case("turn: 64 B in, answer out", 5_000, |n| echo(1, n)),
    case("turn: 16 times 64 B in, answers out", 20_480, |n| {
        echo(16, n)
    }),
    case("turn: nothing to do", 5_000, idle),
    case("turn: a wake-up and nothing else", 5_000, wake_up),
];

const fn case(name: &'static str, frames: u64, run: fn(u64) -> Result<(), Failure>) -> Case {
    Case {
        name,
        frames,
        slack: 0.0,
        run,
    }
}

/// The method that sends frames.
#[derive(Clone, Copy)]
enum Method {
    Bytes,
    Slice,
    All,
}

/// Counts frames, and sends them back if `answers` is set.
#[derive(Default)]
struct Counter {
    frames: u64,
    bytes: u64,
    answers: bool,
    written: u64,
}

impl Handler for Counter {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if self.answers {
            let sent = handle.to_send(from, frame.into_bytes());
            self.written += u64::from(sent == Ok(SendOutcome::Written));
        }
    }
}

type Loop = EventLoop<Counter, Memory>;

fn decode(bytes: usize, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, peer) = linked(bytes, Outbox::Latest)?;
    peer.send(frames);
    while !peer.is_drained() {
        turn(&mut event_loop)?;
    }
    let counter = event_loop.handler_mut();
    check(counter.frames == frames && counter.bytes == frames * bytes as u64)
}

fn send(method: Method, frames: u64) -> Result<(), Failure> {
    let (event_loop, peer) = linked(SMALL, Outbox::Latest)?;
    let before = peer.received();
    let frame = Bytes::from(vec![b'x'; SMALL]);
    let handle = event_loop.handle();
    let mut written = 0;
    for _ in 0..frames {
        let sent = match method {
            Method::Bytes => handle.to_send(PEER, frame.clone())?,
            _ => handle.to_send_slice(PEER, &frame)?,
        };
        written += u64::from(sent == SendOutcome::Written);
    }
    check(written == frames && peer.received() - before == frames * (4 + SMALL as u64))
}

fn supersede(is_linked: bool, frames: u64) -> Result<(), Failure> {
    let (event_loop, peer) = if is_linked {
        linked(SMALL, Outbox::Latest)?
    } else {
        unlinked(SMALL, Outbox::Latest)?
    };
    peer.fill();
    let frame = Bytes::from(vec![b'x'; SMALL]);
    // The first frame is written in part, and cannot be superseded. The second one waits.
    for _ in 0..2 {
        event_loop.handle().to_send(PEER, frame.clone())?;
    }
    let mut superseded = 0;
    for _ in 0..frames {
        let sent = event_loop.handle().to_send(PEER, frame.clone())?;
        superseded += u64::from(sent == SendOutcome::Superseded);
    }
    check(superseded == frames)
}

fn queue(method: Method, bytes: usize, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, peer) = linked(SMALL, Outbox::QUEUE)?;
    let before = peer.received();
    let frame = Bytes::from(vec![b'x'; bytes]);
    let many = [&frame[..]; CALL];
    let mut put = 0;
    while put < frames {
        let until = frames.min(put + PER_TURN);
        while put < until {
            let handle = event_loop.handle();
            put += match method {
                Method::Bytes => handle.to_send(PEER, frame.clone()).map(|_| 1),
                Method::Slice => handle.to_send_slice(PEER, &frame).map(|_| 1),
                Method::All => {
                    let call = many.len().min((until - put) as usize);
                    handle
                        .to_send_all(PEER, &many[..call])
                        .map(|taken| taken as u64)
                }
            }?;
        }
        turn(&mut event_loop)?;
    }
    check(peer.received() - before == frames * (4 + bytes as u64))
}

/// The inbox of a manager, with frames to its own sid, which need no socket.
fn inbox_one_by_one(frames: u64) -> Result<(), Failure> {
    let manager = alone()?;
    let frame = Bytes::from(vec![b'x'; SMALL]);
    let mut received = 0;
    while received < frames {
        let burst = BURST.min(frames - received);
        for _ in 0..burst {
            manager.to_send(OWN, frame.clone())?;
        }
        for _ in 0..burst {
            received += u64::from(manager.try_recv()?.payload.len() == SMALL);
        }
    }
    check(manager.try_recv() == Err(TryRecvError::Empty))
}

fn inbox_all(frames: u64) -> Result<(), Failure> {
    let manager = alone()?;
    let frame = Bytes::from(vec![b'x'; SMALL]);
    let (mut batch, mut received) = (Batch::new(), 0);
    while received < frames {
        for _ in 0..BURST.min(frames - received) {
            manager.to_send(OWN, frame.clone())?;
        }
        received += manager.recv_all(&mut batch)? as u64;
    }
    check(received == frames)
}

/// The receive side of a manager: a socket, the loop's thread, and the inbox, one burst at a time. The only case with a real socket.
fn manager(frames: u64) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let config = Config::builder(PEER)
        .server(PEER, at.to_string())
        .server(OWN, "127.0.0.1:1")
        .listener(listener);
    let manager = CnxManager::start(config.build()?)?;
    let mut peer = TcpStream::connect(at)?;
    peer.set_nodelay(true)?;
    // The initial message (`Bare`) of the larger sid.
    peer.write_all(&OWN.0.to_be_bytes())?;
    let mut frame = (SMALL as u32).to_be_bytes().to_vec();
    frame.resize(4 + SMALL, b'x');
    let burst = frame.repeat(BURST as usize);
    let (mut batch, mut received) = (Batch::new(), 0);
    while received < frames {
        let until = frames.min(received + BURST);
        peer.write_all(&burst[..(until - received) as usize * frame.len()])?;
        while received < until {
            received += manager.recv_all_timeout(&mut batch, Duration::from_secs(30))? as u64;
        }
    }
    check(received == frames)
}

/// `at_once` frames in each turn, and an answer to each frame.
fn echo(at_once: u64, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, peer) = linked(SMALL, Outbox::Latest)?;
    event_loop.handler_mut().answers = true;
    for _ in 0..frames / at_once {
        peer.send(at_once);
        turn(&mut event_loop)?;
    }
    check(event_loop.handler_mut().written == frames / at_once * at_once)
}

fn idle(turns: u64) -> Result<(), Failure> {
    let (mut event_loop, _) = linked(SMALL, Outbox::Latest)?;
    for _ in 0..turns {
        turn(&mut event_loop)?;
    }
    check(event_loop.handler_mut().frames == 0)
}

/// A request wakes the loop, and needs no work: the link is up.
fn wake_up(turns: u64) -> Result<(), Failure> {
    let (mut event_loop, _) = linked(SMALL, Outbox::Latest)?;
    for _ in 0..turns {
        event_loop.handle().connect_one(PEER)?;
        turn(&mut event_loop)?;
    }
    check(event_loop.handle().connected_to_peer(PEER))
}

fn unlinked(bytes: usize, outbox: Outbox) -> Result<(Loop, Peer), Failure> {
    let (net, peer) = Memory::new(bytes);
    let config = Config::builder(OWN)
        .server(PEER, "127.0.0.1:3181")
        .server(OWN, "127.0.0.1:3182")
        .outbox(outbox)
        .seed(1)
        .build()?;
    Ok((EventLoop::with_net(config, Counter::default(), net)?, peer))
}

fn linked(bytes: usize, outbox: Outbox) -> Result<(Loop, Peer), Failure> {
    let (mut event_loop, peer) = unlinked(bytes, outbox)?;
    for _ in 0..8 {
        turn(&mut event_loop)?;
    }
    check(event_loop.handle().connected_to_peer(PEER))?;
    Ok((event_loop, peer))
}

fn alone() -> Result<CnxManager, Failure> {
    let config = Config::builder(OWN).server(OWN, "127.0.0.1:0").build()?;
    Ok(CnxManager::start(config)?)
}

fn turn(event_loop: &mut Loop) -> io::Result<()> {
    event_loop.turn(Some(Duration::ZERO)).map(|_| ())
}

fn check(holds: bool) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err("the case did not do what it counts".into())
    }
}
