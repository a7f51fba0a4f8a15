//! Many remote ends of connections, served by one thread, which writes frames to all of them or reads from all of them, as
//! fast as each socket allows.
//!
//! Nothing here depends on the content of the frames, or waits for one connection while another could be served.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};

use crate::{MEMBER_IP, TestConnection, bare, is_hung_up};

/// Bytes written to or read from one connection before the next one is served.
const VISIT_BYTES: usize = 64 << 10;

const STOP: Token = Token(usize::MAX);

/// Connections of members with these sids: connected, with the initial message sent.
pub fn members(sids: impl IntoIterator<Item = i64>, to: &str) -> Vec<net::TcpStream> {
    let enter = |sid| TestConnection::dial_and_write(MEMBER_IP, to, &bare(sid)).0;
    sids.into_iter().map(enter).collect()
}

/// A thread that writes to or reads from many connections until this is dropped, or the other ends close them.
pub struct LoadThread {
    stop: Arc<AtomicBool>,
    waker: Waker,
    moved: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl LoadThread {
    /// Writes these frames to each connection, again and again.
    pub fn write(streams: Vec<net::TcpStream>, frames: Vec<u8>) -> Self {
        Self::start(streams, Interest::WRITABLE, move |stream, position| {
            let end = frames.len().min(*position + VISIT_BYTES);
            let n = stream.write(&frames[*position..end])?;
            *position = (*position + n) % frames.len();
            Ok(n)
        })
    }

    /// Reads all that arrives, and discards it.
    pub fn read(streams: Vec<net::TcpStream>) -> Self {
        let mut buffer = vec![0; VISIT_BYTES];
        Self::start(streams, Interest::READABLE, move |stream, _| {
            stream.read(&mut buffer)
        })
    }

    fn start(
        streams: Vec<net::TcpStream>,
        interest: Interest,
        visit: impl FnMut(&mut TcpStream, &mut usize) -> io::Result<usize> + Send + 'static,
    ) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), STOP).unwrap();
        let watch = |(index, stream): (usize, net::TcpStream)| {
            stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(stream);
            let registry = poll.registry();
            registry
                .register(&mut stream, Token(index), interest)
                .unwrap();
            Some((stream, 0))
        };
        let connections = streams.into_iter().enumerate().map(watch).collect();
        let (stop, moved) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let worker = Worker {
            poll,
            connections,
            stop: Arc::clone(&stop),
            moved: Arc::clone(&moved),
        };
        Self {
            stop,
            waker,
            moved,
            thread: Some(thread::spawn(move || worker.run(visit))),
        }
    }

    /// Bytes read or written so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Acquire)
    }
}

impl Drop for LoadThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            matches!(ended, Some(Ok(()))) || thread::panicking(),
            "the thread of the connections has panicked"
        );
    }
}

struct Worker {
    poll: Poll,
    /// Each with its position in the frames that are written.
    connections: Vec<Option<(TcpStream, usize)>>,
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self, mut visit: impl FnMut(&mut TcpStream, &mut usize) -> io::Result<usize>) {
        let mut events = Events::with_capacity(1024);
        // Connections that can be served at once. For the others (send buffer full, or nothing to read) the edge-triggered poll
        // reports an event when that changes.
        let mut busy: Vec<usize> = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            let timeout = (!busy.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.unwrap(),
            }
            let ready = events.iter().map(|event| event.token().0);
            busy.extend(ready.filter(|token| *token < self.connections.len()));
            busy.sort_unstable();
            busy.dedup();
            busy.retain(|index| self.visit(*index, &mut visit));
        }
    }

    /// Returns whether there may be more to do.
    fn visit(
        &mut self,
        index: usize,
        visit: &mut impl FnMut(&mut TcpStream, &mut usize) -> io::Result<usize>,
    ) -> bool {
        let Some((stream, position)) = &mut self.connections[index] else {
            return false;
        };
        match visit(stream, position) {
            Ok(0) => {}
            Ok(n) => {
                self.moved.fetch_add(n as u64, Ordering::AcqRel);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if is_hung_up(&error) => {}
            Err(error) => panic!("cannot serve connection {index}: {error}"),
        }
        self.connections[index] = None;
        false
    }
}
