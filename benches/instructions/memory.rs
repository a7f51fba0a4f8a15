//! An in-memory network with one peer, which sends prepared frames and discards everything that it receives.
//!
//! Nothing blocks, and the clock does not move, so that two runs do the same.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorum_cnx::{
    simulation::limits,
    simulation::{Clock, Found, Net, Ready, Stream, Waker, Wire},
};

/// Bytes copied at once. A longer copy may be one instruction (`rep movsb`), which valgrind counts once per byte.
const COPY_BYTES: usize = 1 << 10;

/// The network of a loop with one peer, which the loop dials.
#[derive(Debug)]
pub(crate) struct Memory {
    peer: Peer,
    now: Instant,
    woken: Arc<AtomicBool>,
    found: Vec<Found>,
}

/// The peer. All its connections share one state.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Arc<State>);

#[derive(Debug)]
struct State {
    outgoing: Mutex<SendStats>,
    full: AtomicBool,
    received: AtomicU64,
}

/// The bytes that the loop can read.
#[derive(Debug, Default)]
struct SendStats {
    /// Copies of one frame: a full read buffer and one more.
    frames: Vec<u8>,
    frame_bytes: usize,
    /// Offset in a frame at which the next read begins.
    offset: usize,
    /// Bytes that are not read yet.
    left: usize,
    token: usize,
    ready: Vec<Ready>,
}

impl Memory {
    /// A network and its peer, which sends frames with payloads of this length.
    pub(crate) fn new(payload_bytes: usize) -> (Self, Peer) {
        let mut frame = (payload_bytes as u32).to_be_bytes().to_vec();
        frame.resize(4 + payload_bytes, b'x');
        let outgoing = SendStats {
            frames: frame.repeat(limits::READ_BUFFER_BYTES / frame.len() + 2),
            frame_bytes: frame.len(),
            ..SendStats::default()
        };
        let peer = Peer(Arc::new(State {
            outgoing: Mutex::new(outgoing),
            full: AtomicBool::new(false),
            received: AtomicU64::new(0),
        }));
        let net = Self {
            peer: peer.clone(),
            now: Instant::now(),
            woken: Arc::default(),
            found: Vec::new(),
        };
        (net, peer)
    }
}

impl Peer {
    /// Sends so many more frames.
    pub(crate) fn send(&self, frames: u64) {
        let mut outgoing = self.outgoing();
        outgoing.left += frames as usize * outgoing.frame_bytes;
        let ready = outgoing.ready(true);
        outgoing.ready.push(ready);
    }

    /// Whether the loop has read everything.
    pub(crate) fn is_drained(&self) -> bool {
        self.outgoing().left == 0
    }

    /// From now on every write to the peer would block.
    pub(crate) fn fill(&self) {
        self.0.full.store(true, Ordering::Relaxed);
    }

    /// Bytes that were written to the peer.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    fn outgoing(&self) -> MutexGuard<'_, SendStats> {
        self.0
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendStats {
    fn ready(&self, readable: bool) -> Ready {
        Ready::Connection {
            token: self.token,
            readable,
            writable: !readable,
            ended: false,
        }
    }
}

impl Net for Memory {
    type Stream = Peer;

    fn now(&self) -> Instant {
        self.now
    }

    fn clock(&self) -> Clock {
        // The real one, since what it costs is a part of what a send costs.
        Clock::new(Instant::now)
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.append(&mut self.peer.outgoing().ready);
        if self.woken.load(Ordering::Relaxed) {
            self.woken.store(false, Ordering::Relaxed);
            ready.push(Ready::Waker);
        }
        Ok(())
    }

    fn listen(&mut self, _: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: usize) -> io::Result<(Peer, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn close_listener(&mut self, _: usize) {}

    fn close_listeners(&mut self) {}

    fn dial(&mut self, _: SocketAddr) -> io::Result<Peer> {
        Ok(self.peer.clone())
    }

    fn watch(&mut self, _: &Peer, token: usize) -> io::Result<()> {
        let mut outgoing = self.peer.outgoing();
        outgoing.token = token;
        // The connection is established.
        let ready = outgoing.ready(false);
        outgoing.ready.push(ready);
        Ok(())
    }

    fn unwatch(&mut self, _: &Peer) {}

    fn lookup(&mut self, lookup_id: u64, _: &str) {
        let answer = Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
        self.found.push(Found { lookup_id, answer });
    }

    fn found(&mut self) -> Option<Found> {
        self.found.pop()
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.woken);
        Arc::new(move || woken.store(true, Ordering::Relaxed))
    }
}

impl Wire for Peer {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.full.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Stream for Peer {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing();
        let n = buf.len().min(outgoing.left);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = n.min(outgoing.frames.len() - outgoing.offset);
        let bytes = &outgoing.frames[outgoing.offset..][..n];
        for (to, from) in buf[..n]
            .chunks_mut(COPY_BYTES)
            .zip(bytes.chunks(COPY_BYTES))
        {
            to.copy_from_slice(from);
        }
        outgoing.left -= n;
        outgoing.offset = (outgoing.offset + n) % outgoing.frame_bytes;
        Ok(n)
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }

    fn abort(&self) -> io::Result<()> {
        Ok(())
    }
}
