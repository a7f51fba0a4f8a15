//! Many far ends in the hands of one thread, which pours frames into them or drains them, each as fast as it goes.
//!
//! Nothing here knows what the frames say, or waits for one connection while another could be served.

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

use crate::{HOME, Puppet, bare, is_hung_up};

/// What one visit moves at most, before the next connection has its turn.
const VISIT_BYTES: usize = 64 << 10;

const STOP: Token = Token(usize::MAX);

/// Links of members with these sids, from the members' side: connected, and named.
pub fn members(sids: impl IntoIterator<Item = i64>, to: &str) -> Vec<net::TcpStream> {
    let enter = |sid| Puppet::say(HOME, to, &bare(sid)).0;
    sids.into_iter().map(enter).collect()
}

/// A thread that moves many connections until this is dropped, or the far ends hang up.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    waker: Waker,
    moved: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Writes these frames into each, again and again.
    pub fn pour(streams: Vec<net::TcpStream>, frames: Vec<u8>) -> Self {
        Self::start(streams, Interest::WRITABLE, move |stream, at| {
            let end = frames.len().min(*at + VISIT_BYTES);
            let n = stream.write(&frames[*at..end])?;
            *at = (*at + n) % frames.len();
            Ok(n)
        })
    }

    /// Reads whatever comes.
    pub fn drain(streams: Vec<net::TcpStream>) -> Self {
        let mut stage = vec![0; VISIT_BYTES];
        Self::start(streams, Interest::READABLE, move |stream, _| {
            stream.read(&mut stage)
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
        let mover = Mover {
            poll,
            connections,
            stop: Arc::clone(&stop),
            moved: Arc::clone(&moved),
        };
        Self {
            stop,
            waker,
            moved,
            thread: Some(thread::spawn(move || mover.run(visit))),
        }
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Acquire)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            matches!(ended, Some(Ok(()))) || thread::panicking(),
            "the crowd has panicked"
        );
    }
}

struct Mover {
    poll: Poll,
    /// Each with where it is in what it says.
    connections: Vec<Option<(TcpStream, usize)>>,
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
}

impl Mover {
    fn run(mut self, mut visit: impl FnMut(&mut TcpStream, &mut usize) -> io::Result<usize>) {
        let mut events = Events::with_capacity(1024);
        // Those that are neither full nor dry; the edge of the others comes when they are that no more.
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

    /// Says whether there is more to be done.
    fn visit(
        &mut self,
        index: usize,
        visit: &mut impl FnMut(&mut TcpStream, &mut usize) -> io::Result<usize>,
    ) -> bool {
        let Some((stream, at)) = &mut self.connections[index] else {
            return false;
        };
        match visit(stream, at) {
            Ok(0) => {}
            Ok(n) => {
                self.moved.fetch_add(n as u64, Ordering::AcqRel);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if is_hung_up(&error) => {}
            Err(error) => panic!("cannot move connection {index}: {error}"),
        }
        self.connections[index] = None;
        false
    }
}
