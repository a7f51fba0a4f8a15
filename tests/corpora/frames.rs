//! Target `frames`: the bytes after an initial message, in any pieces.
//!
//! However the bytes are cut, the loop reads the same frames, and the link ends for the same reason. Both are what a second
//! implementation of the grammar, in this file, says.

use std::net::SocketAddr;

use quorum_cnx::{Config, Event, FRAME_BYTES_MAX, Reason, Sid};

use crate::{
    input::Input,
    net::{OWN_ADDRESS, Remote, Reported},
};

const NEAR: Sid = Sid(1);
const FAR: Sid = Sid(2);

/// Bytes of one run.
const BYTES_MAX: usize = 5 << 17;
/// Pieces of one run. The rest arrives as one.
const PIECES_MAX: usize = 200;

/// How the far end ends the link.
#[derive(Clone, Copy, Debug)]
enum End {
    Finish,
    Reset,
}

/// How the bytes arrive.
#[derive(Debug)]
struct Cut {
    /// The lengths of the pieces, in order, again and again.
    pieces: Vec<usize>,
    /// True exactly when the end arrives together with the last piece.
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
    assert_eq!(whole, meaning(&stream, end));
    assert_eq!(
        read(&stream, end, &cut),
        whole,
        "other frames when cut: {cut:?}"
    );
}

/// Bytes of the input, and whole frames that would be too long to be in the input.
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

/// The grammar, as the table of the crate page states it.
fn meaning(mut stream: &[u8], end: End) -> (Vec<Vec<u8>>, Reason) {
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

/// Lets the loop read the bytes. Returns the frames, and why the link ended.
fn read(stream: &[u8], end: End, cut: &Cut) -> (Vec<Vec<u8>>, Reason) {
    let config = Config::builder(NEAR)
        .server(NEAR, OWN_ADDRESS)
        .server(FAR, "10.0.0.2:3888")
        .seed(1)
        .build()
        .expect("the configuration is valid");
    let (mut remote, mut event_loop) = Remote::start(config);
    let addr: SocketAddr = "10.0.0.2:40000".parse().expect("an address");
    let link = remote.arrive(addr);
    remote.send(link, &FAR.0.to_be_bytes());
    let (mut rest, mut sizes) = (stream, cut.pieces.iter().cycle());
    for count in 0.. {
        let size = match sizes.next() {
            Some(size) if count < PIECES_MAX => *size,
            _ => rest.len(),
        };
        let (piece, more) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        remote.send(link, piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
        remote.turn(&mut event_loop);
    }
    // Returns whether more is to be done at once.
    let mut turn = |remote: &mut Remote| {
        remote.turn(&mut event_loop);
        event_loop.timeout() == Some(std::time::Duration::ZERO)
    };
    match end {
        End::Finish if cut.early => {}
        // A connection that breaks before it is a link never becomes one.
        End::Reset if cut.early => _ = turn(&mut remote),
        _ => while turn(&mut remote) {},
    }
    let end_of_link = &remote.get(link).end;
    match end {
        // Fails if the loop has ended the link, after a length that cannot be.
        End::Finish => drop(end_of_link.shutdown_write()),
        End::Reset => end_of_link.reset(),
    }
    while turn(&mut remote) {}
    let stats = event_loop.handle().stats();
    let mut frames = Vec::new();
    let mut reason = None;
    for reported in event_loop.handler_mut().reported.drain(..) {
        match reported {
            Reported::Frame(FAR, frame) if reason.is_none() => frames.push(frame),
            Reported::Event(Event::Up { sid: FAR, .. }) if frames.is_empty() => {}
            Reported::Event(Event::Down {
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
