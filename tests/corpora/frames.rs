//! Fuzz target `frames`: the bytes of a link after the initial message, in any pieces.
//!
//! The loop reads the same frames, and the link ends for the same reason, however the bytes are split. Both equal the result of
//! an independent decoder in this file.

use std::net::SocketAddr;

use quorum_cnx::{Config, Event, EventLoop, Reason, Sid, limits::FRAME_BYTES_MAX};

use crate::{
    input::Input,
    net::{Outside, Recorder, Told},
};

const NEAR: Sid = Sid(1);
const FAR: Sid = Sid(2);

/// Bytes of one run.
const BYTES_MAX: usize = 5 << 17;
/// Pieces of one run. The rest is one piece.
const PIECES_MAX: usize = 200;

/// How the far end ends the link.
#[derive(Clone, Copy, Debug)]
enum End {
    Finish,
    Reset,
}

/// How the bytes are split.
#[derive(Debug)]
struct Cut {
    /// Sizes of the pieces, in this order, again and again.
    pieces: Vec<usize>,
    /// The end arrives together with the last piece.
    early: bool,
}

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let end = if flags & 1 == 0 {
        End::Finish
    } else {
        End::Reset
    };
    let cut = Cut {
        pieces: (0..=flags >> 2 & 3).map(|_| input.size()).collect(),
        early: flags & 2 != 0,
    };
    let stream = stream(&mut input);
    let pieces = vec![stream.len().max(1)];
    let whole = read(
        &stream,
        end,
        &Cut {
            pieces,
            early: false,
        },
    );
    assert_eq!(whole, decode(&stream, end));
    assert_eq!(
        read(&stream, end, &cut),
        whole,
        "the splitting changes the result: {cut:?}"
    );
}

/// The bytes of the stream: literal bytes of the input, and generated frames, which would be too long for an input.
fn stream(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() && stream.len() < BYTES_MAX - FRAME_BYTES_MAX {
        let tag = input.byte();
        if tag & 1 == 0 {
            stream.extend_from_slice(input.take(usize::from(tag >> 1)));
        } else {
            let len = input.size();
            stream.extend((len as u32).to_be_bytes());
            stream.extend((0..len).map(|at| (at as u8).wrapping_mul(tag)));
        }
    }
    stream
}

/// An independent decoder, after the table in the crate page.
fn decode(mut stream: &[u8], end: End) -> (Vec<Vec<u8>>, Reason) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = stream.split_at_checked(4) {
        let len = i32::from_be_bytes(prefix.try_into().expect("4 bytes"));
        if len < 1 || len as usize > FRAME_BYTES_MAX {
            return (frames, Reason::BadLength(len));
        }
        let Some((payload, rest)) = rest.split_at_checked(len as usize) else {
            break;
        };
        frames.push(payload.to_vec());
        stream = rest;
    }
    let reason = match end {
        End::Finish if stream.is_empty() => Reason::Closed,
        End::Finish => Reason::ClosedEarly,
        End::Reset => Reason::Io(std::io::ErrorKind::ConnectionReset),
    };
    (frames, reason)
}

/// Lets the loop read the stream. Returns the frames, and why the link ended.
fn read(stream: &[u8], end: End, cut: &Cut) -> (Vec<Vec<u8>>, Reason) {
    let outside = Outside::default();
    let config = Config::builder(NEAR)
        .server(NEAR, "10.0.0.1:3888")
        .server(FAR, "10.0.0.2:3888")
        .seed(1)
        .build()
        .expect("it is sound");
    let mut event_loop = EventLoop::with_net(config, Recorder::default(), outside.net())
        .expect("no socket was handed over");
    let mut turn = || {
        event_loop.turn(None).expect("this system never fails");
        event_loop.timeout() == Some(std::time::Duration::ZERO)
    };
    let addr: SocketAddr = "10.0.0.2:40000".parse().expect("an address");
    let line = outside.arrive(addr);
    outside.say(line, &FAR.0.to_be_bytes());
    let (mut rest, mut sizes) = (stream, cut.pieces.iter().cycle());
    for count in 0.. {
        let size = match sizes.next() {
            Some(size) if count < PIECES_MAX => *size,
            _ => rest.len(),
        };
        let (piece, more) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        outside.say(line, piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
        turn();
    }
    match end {
        End::Finish if cut.early => {}
        // The connection must become a link before the reset.
        End::Reset if cut.early => _ = turn(),
        _ => while turn() {},
    }
    match end {
        End::Finish => outside.finish(line),
        End::Reset => outside.reset(line, std::io::ErrorKind::ConnectionReset),
    }
    while turn() {}
    let stats = event_loop.handle().stats();
    let mut frames = Vec::new();
    let mut reason = None;
    for told in event_loop.handler_mut().told.drain(..) {
        match told {
            Told::Frame(FAR, frame) if reason.is_none() => frames.push(frame),
            Told::Event(Event::Up { sid: FAR, .. }) if frames.is_empty() => {}
            Told::Event(Event::Down {
                sid: FAR,
                reason: why,
                ..
            }) if reason.is_none() => {
                reason = Some(why);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(stats.balances(), "{stats:?}");
    assert_eq!(stats.received.frames, frames.len() as u64);
    (frames, reason.expect("the link has ended"))
}
