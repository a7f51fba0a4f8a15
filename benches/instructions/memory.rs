//! A network without a system: one far end in memory, which says what it was told to say and swallows all that it is sent.
//!
//! Nothing here waits, and time stands still, so that two runs do the same.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorum_cnx::{Found, Net, Ready, Stream, Waker, Wire, limits};

/// What is copied at once. Longer copies may be one instruction of the processor, which valgrind counts once a byte.
const PIECE: usize = 1 << 10;

/// The net of a loop with one peer, which it dials.
#[derive(Debug)]
pub(crate) struct Memory {
    far: Far,
    now: Instant,
    rung: Arc<AtomicBool>,
    found: Vec<Found>,
}

/// The far end. All its connections are one.
#[derive(Clone, Debug)]
pub(crate) struct Far(Arc<Peer>);

#[derive(Debug)]
struct Peer {
    speech: Mutex<Speech>,
    full: AtomicBool,
    swallowed: AtomicU64,
}

/// What is to be read.
#[derive(Debug, Default)]
struct Speech {
    /// The same frame again and again, for a full read buffer and one frame more.
    text: Vec<u8>,
    frame_bytes: usize,
    /// How far into a frame the next read begins.
    begun: usize,
    left: usize,
    token: usize,
    ready: Vec<Ready>,
}

impl Memory {
    /// A net, and its far end, which sends frames with payloads of this length.
    pub(crate) fn new(payload_bytes: usize) -> (Self, Far) {
        let mut frame = (payload_bytes as u32).to_be_bytes().to_vec();
        frame.resize(4 + payload_bytes, b'x');
        let speech = Speech {
            text: frame.repeat(limits::READ_BUFFER_BYTES / frame.len() + 2),
            frame_bytes: frame.len(),
            ..Speech::default()
        };
        let far = Far(Arc::new(Peer {
            speech: Mutex::new(speech),
            full: AtomicBool::new(false),
            swallowed: AtomicU64::new(0),
        }));
        let net = Self {
            far: far.clone(),
            now: Instant::now(),
            rung: Arc::default(),
            found: Vec::new(),
        };
        (net, far)
    }
}

impl Far {
    /// Has this many more frames to be read.
    pub(crate) fn say(&self, frames: u64) {
        let mut speech = self.speech();
        speech.left += frames as usize * speech.frame_bytes;
        let ready = speech.ready(true);
        speech.ready.push(ready);
    }

    pub(crate) fn has_said_all(&self) -> bool {
        self.speech().left == 0
    }

    /// From now on nothing can be written.
    pub(crate) fn fill(&self) {
        self.0.full.store(true, Ordering::Relaxed);
    }

    /// Bytes that were written to it.
    pub(crate) fn swallowed(&self) -> u64 {
        self.0.swallowed.load(Ordering::Relaxed)
    }

    fn speech(&self) -> MutexGuard<'_, Speech> {
        self.0.speech.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speech {
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
    type Stream = Far;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.append(&mut self.far.speech().ready);
        if self.rung.load(Ordering::Relaxed) {
            self.rung.store(false, Ordering::Relaxed);
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

    fn accept(&mut self, _: usize) -> io::Result<(Far, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn close_listeners(&mut self) {}

    fn dial(&mut self, _: SocketAddr) -> io::Result<Far> {
        Ok(self.far.clone())
    }

    fn watch(&mut self, _: &Far, token: usize) -> io::Result<()> {
        let mut speech = self.far.speech();
        speech.token = token;
        // The connect has ended.
        let ready = speech.ready(false);
        speech.ready.push(ready);
        Ok(())
    }

    fn unwatch(&mut self, _: &Far) {}

    fn lookup(&mut self, lookup_id: u64, _: &str) {
        let answer = Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
        self.found.push(Found { lookup_id, answer });
    }

    fn found(&mut self) -> Option<Found> {
        self.found.pop()
    }

    fn waker(&self) -> Waker {
        let rung = Arc::clone(&self.rung);
        Arc::new(move || rung.store(true, Ordering::Relaxed))
    }
}

impl Wire for Far {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.full.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.0.swallowed.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Stream for Far {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut speech = self.speech();
        let n = buf.len().min(speech.left);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = n.min(speech.text.len() - speech.begun);
        let text = &speech.text[speech.begun..][..n];
        for (to, from) in buf[..n].chunks_mut(PIECE).zip(text.chunks(PIECE)) {
            to.copy_from_slice(from);
        }
        speech.left -= n;
        speech.begun = (speech.begun + n) % speech.frame_bytes;
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
