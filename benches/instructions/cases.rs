//! What is counted: for each case a function that lets so many frames pass, and sees to it that they did.
//!
//! What a case sets up before is the same for any number of frames, and so drops out of the count.

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

use crate::memory::{Far, Memory};

const OWN: Sid = Sid(2);
const PEER: Sid = Sid(1);

const SMALL: usize = 64;
const MEDIUM: usize = 1 << 10;

/// Frames in one call that takes many.
const CALL: usize = 16;

/// Frames between two turns, where a loop writes what others have put.
const PER_TURN: u64 = 256;

/// Frames that wait together in an inbox, which holds 100.
const BURST: u64 = 64;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How many make the count steady.
    pub(crate) frames: u64,
    /// By how many percent more than others it may differ from the baseline: how a socket cuts a burst is chance.
    pub(crate) slack: f64,
    pub(crate) run: fn(u64) -> Result<(), Failure>,
}

pub(crate) type Failure = Box<dyn std::error::Error>;

pub(crate) const CASES: [Case; 17] = [
    case("decode 64 B", 40_000, |n| decode(SMALL, n)),
    case("decode 1 KiB", 10_000, |n| decode(MEDIUM, n)),
    case("to_send 64 B, written inline", 20_000, |n| {
        send(Way::Bytes, n)
    }),
    case("to_send_slice 64 B, written inline", 20_000, |n| {
        send(Way::Slice, n)
    }),
    case("to_send 64 B, superseding, no link", 20_000, |n| {
        supersede(false, n)
    }),
    case("to_send 64 B, superseding, socket full", 20_000, |n| {
        supersede(true, n)
    }),
    case("queue: to_send 64 B", 20_480, |n| {
        queue(Way::Bytes, SMALL, n)
    }),
    case("queue: to_send_slice 64 B", 20_480, |n| {
        queue(Way::Slice, SMALL, n)
    }),
    case("queue: to_send_all 64 B, 16 a call", 20_480, |n| {
        queue(Way::All, SMALL, n)
    }),
    case("queue: to_send_all 1 KiB, 16 a call", 10_240, |n| {
        queue(Way::All, MEDIUM, n)
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
    case("turn: a bell and nothing else", 5_000, bell),
];

const fn case(name: &'static str, frames: u64, run: fn(u64) -> Result<(), Failure>) -> Case {
    Case {
        name,
        frames,
        slack: 0.0,
        run,
    }
}

/// How a frame is put.
#[derive(Clone, Copy)]
enum Way {
    Bytes,
    Slice,
    All,
}

/// Looks at frames, and sends them back if it is told to.
#[derive(Default)]
struct Audience {
    frames: u64,
    bytes: u64,
    answers: bool,
    written: u64,
}

impl Handler for Audience {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if self.answers {
            let sent = handle.to_send(from, frame.into_bytes());
            self.written += u64::from(sent == Ok(SendOutcome::Written));
        }
    }
}

type Loop = EventLoop<Audience, Memory>;

fn decode(bytes: usize, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, far) = linked(bytes, Outbox::Latest)?;
    far.say(frames);
    while !far.has_said_all() {
        turn(&mut event_loop)?;
    }
    let heard = event_loop.handler_mut();
    check(heard.frames == frames && heard.bytes == frames * bytes as u64)
}

fn send(way: Way, frames: u64) -> Result<(), Failure> {
    let (event_loop, far) = linked(SMALL, Outbox::Latest)?;
    let before = far.swallowed();
    let frame = Bytes::from(vec![b'x'; SMALL]);
    let handle = event_loop.handle();
    let mut written = 0;
    for _ in 0..frames {
        let sent = match way {
            Way::Bytes => handle.to_send(PEER, frame.clone())?,
            _ => handle.to_send_slice(PEER, &frame)?,
        };
        written += u64::from(sent == SendOutcome::Written);
    }
    check(written == frames && far.swallowed() - before == frames * (4 + SMALL as u64))
}

fn supersede(is_linked: bool, frames: u64) -> Result<(), Failure> {
    let (event_loop, far) = if is_linked {
        linked(SMALL, Outbox::Latest)?
    } else {
        unlinked(SMALL, Outbox::Latest)?
    };
    far.fill();
    let frame = Bytes::from(vec![b'x'; SMALL]);
    // The first one begins to leave, and is not superseded any more; the second one waits.
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

fn queue(way: Way, bytes: usize, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, far) = linked(SMALL, Outbox::QUEUE)?;
    let before = far.swallowed();
    let frame = Bytes::from(vec![b'x'; bytes]);
    let many = [&frame[..]; CALL];
    let mut put = 0;
    while put < frames {
        let until = frames.min(put + PER_TURN);
        while put < until {
            let handle = event_loop.handle();
            put += match way {
                Way::Bytes => handle.to_send(PEER, frame.clone()).map(|_| 1),
                Way::Slice => handle.to_send_slice(PEER, &frame).map(|_| 1),
                Way::All => {
                    let call = many.len().min((until - put) as usize);
                    handle
                        .to_send_all(PEER, &many[..call])
                        .map(|taken| taken as u64)
                }
            }?;
        }
        turn(&mut event_loop)?;
    }
    check(far.swallowed() - before == frames * (4 + bytes as u64))
}

/// The inbox of a manager, by frames to itself: what is not there is the hand-over from a socket.
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

/// The whole way in: a socket, the loop's thread, the inbox, a burst at a time. The only case with a system under it.
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
    // The initial message of a larger sid, in its oldest form.
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

/// So many frames to each turn, and an answer to each frame.
fn echo(at_once: u64, frames: u64) -> Result<(), Failure> {
    let (mut event_loop, far) = linked(SMALL, Outbox::Latest)?;
    event_loop.handler_mut().answers = true;
    for _ in 0..frames / at_once {
        far.say(at_once);
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

/// Somebody asked for what is there already.
fn bell(turns: u64) -> Result<(), Failure> {
    let (mut event_loop, _) = linked(SMALL, Outbox::Latest)?;
    for _ in 0..turns {
        event_loop.handle().connect_one(PEER)?;
        turn(&mut event_loop)?;
    }
    check(event_loop.handle().connected_to_peer(PEER))
}

fn unlinked(bytes: usize, outbox: Outbox) -> Result<(Loop, Far), Failure> {
    let (net, far) = Memory::new(bytes);
    let config = Config::builder(OWN)
        .server(PEER, "127.0.0.1:3181")
        .server(OWN, "127.0.0.1:3182")
        .outbox(outbox)
        .seed(1)
        .build()?;
    Ok((EventLoop::on_net(config, Audience::default(), net)?, far))
}

fn linked(bytes: usize, outbox: Outbox) -> Result<(Loop, Far), Failure> {
    let (mut event_loop, far) = unlinked(bytes, outbox)?;
    for _ in 0..8 {
        turn(&mut event_loop)?;
    }
    check(event_loop.handle().connected_to_peer(PEER))?;
    Ok((event_loop, far))
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
        Err("the case did not do what it is to count".into())
    }
}
