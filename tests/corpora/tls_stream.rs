//! Target `tls_stream`: a TLS connection in memory, whose reads and writes are cut anywhere.
//!
//! In each direction, the bytes that were reported as written arrive once and in order. Nothing else arrives, and no end fails.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    sync::LazyLock,
};

use quorum_cnx::{
    Sid,
    rustls::{
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    },
    simulation::{Identity, Stream as _, TlsStream, Wire as _},
};

use crate::{
    certificates::{own, tls},
    input::Input,
    tls_memory::{End, connect},
};

static OWN: LazyLock<[CertifiedKey; 2]> = LazyLock::new(|| ["zk1.example", "zk2.example"].map(own));

/// Bytes of one offer and of one read.
const CALL_BYTES_MAX: usize = 300_000;
/// Bytes that one end writes.
const BYTES_MAX: usize = 2 << 20;
const STEPS_MAX: usize = 400;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let versions: &[_] = if flags & 1 == 0 { &[&TLS13] } else { &[&TLS12] };
    let names = [1, 2].map(|sid| {
        let name = format!("zk{sid}.example").parse().expect("it is a name");
        (Sid(sid), name)
    });
    let [dialer, acceptor] = connect(tls(&OWN[1], versions), tls(&OWN[0], versions), &names);
    let mut ends = [Side::new(dialer, true), Side::new(acceptor, false)];
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut ends, &mut input);
    }
    for _ in 0..3000 {
        for side in &ends {
            let mut pipe = side.end.pipe();
            (pipe.room, pipe.at_once) = (usize::MAX, usize::MAX);
        }
        for side in 0..2 {
            ends[side].stream.on_writable();
            ends[side].write(0, 1);
            let sent = ends[1 - side].offered;
            ends[side].read(CALL_BYTES_MAX, sent);
        }
        let is_over = |side: usize| {
            ends[side].is_ready()
                && ends[side].reported == ends[side].offered
                && ends[1 - side].received == ends[side].reported
        };
        if is_over(0) && is_over(1) {
            break;
        }
    }
    for side in 0..2 {
        let [this, that] = [&ends[side], &ends[1 - side]];
        assert!(this.is_ready(), "the handshake has ended");
        assert_eq!(this.reported, this.offered, "there was room for all");
        assert_eq!(that.received, this.reported, "all of it has arrived");
    }
    assert_eq!(ends[0].stream.identify(Sid(1)), Ok(Identity::Proved));
    assert_eq!(ends[1].stream.identify(Sid(2)), Ok(Identity::Proved));
    ends[0]
        .stream
        .shutdown(Shutdown::Write)
        .expect("it never fails");
    assert_eq!(ends[1].stream.read(&mut [0; 10]).expect("the end"), 0);
}

/// One end, and what it has sent and received.
struct Side {
    stream: TlsStream<End>,
    end: End,
    dialed: bool,
    is_connected: bool,
    /// Bytes that were offered to be written, those that were reported as written, and those that were read.
    offered: usize,
    reported: usize,
    received: usize,
}

fn step(ends: &mut [Side; 2], input: &mut Input<'_>) {
    let what = input.byte();
    let side = usize::from(what & 1);
    match what >> 1 & 7 {
        0 | 1 => {
            let parts = usize::from(input.byte() & 7) + 1;
            ends[side].write(input.size().min(CALL_BYTES_MAX), parts);
        }
        2 | 3 => {
            let sent = ends[1 - side].offered;
            ends[side].read(input.size().min(CALL_BYTES_MAX), sent);
        }
        4 | 5 => {
            let room = input.size();
            let mut pipe = ends[side].end.pipe();
            pipe.room = pipe.room.saturating_add(room).min(BYTES_MAX);
        }
        6 => ends[side].end.pipe().at_once = input.size(),
        _ => ends[side].stream.on_writable(),
    }
}

/// The byte at this place of what one end sends.
fn pattern(dialed: bool, at: usize) -> u8 {
    (at % 251) as u8 ^ u8::from(dialed)
}

impl Side {
    fn new((stream, end): (TlsStream<End>, End), dialed: bool) -> Self {
        Self {
            stream,
            end,
            dialed,
            is_connected: false,
            offered: 0,
            reported: 0,
            received: 0,
        }
    }

    fn is_ready(&self) -> bool {
        match self.dialed {
            true => self.is_connected,
            false => !self.stream.is_handshaking(),
        }
    }

    /// Offers what was offered before and not reported, and so many bytes more.
    fn write(&mut self, more: usize, parts: usize) {
        if !self.is_ready() {
            return;
        }
        self.offered = (self.offered + more).min(BYTES_MAX);
        let bytes: Vec<u8> = (self.reported..self.offered)
            .map(|at| pattern(self.dialed, at))
            .collect();
        if bytes.is_empty() {
            return;
        }
        let slices: Vec<_> = bytes
            .chunks(bytes.len().div_ceil(parts))
            .map(IoSlice::new)
            .collect();
        match self.stream.write(&slices) {
            Ok(n) => self.reported += n,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        assert!(self.reported <= self.offered);
    }

    /// Reads at most so many bytes, of at most `sent` in all.
    fn read(&mut self, len: usize, sent: usize) {
        if self.dialed && !self.is_connected {
            self.is_connected = self.stream.connected().expect("nothing fails");
            return;
        }
        let mut buf = vec![0; len];
        match self.stream.read(&mut buf) {
            Ok(n) => {
                assert!(n > 0, "nobody has closed it");
                for byte in &buf[..n] {
                    assert_eq!(*byte, pattern(!self.dialed, self.received));
                    self.received += 1;
                }
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        assert!(self.received <= sent, "more has arrived than was sent");
        assert!(
            !self.stream.has_more(),
            "there is neither an error nor an end"
        );
    }
}
