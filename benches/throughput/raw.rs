//! The baseline: the same frames over bare sockets, one write for each.
//!
//! Who spins does so on a socket that does not block, yielding in between.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use quorum_cnx::Idle;

use crate::{Flow, Gauge, Task, Trip, histogram};

pub(crate) fn one_way(task: &Task) -> io::Result<Flow> {
    let [mut near, mut far] = pair(task)?;
    let frame = frame(task);
    let gauge = Gauge::default();
    let counter = gauge.clone();
    let receiver = thread::spawn(move || -> io::Result<()> {
        let mut walker = Walker::new();
        loop {
            match walker.read(&mut far)? {
                0 if walker.ended => return Ok(()),
                frames => counter.count(frames),
            }
        }
    });
    let stop = gauge.clone();
    let sender = thread::spawn(move || -> io::Result<()> {
        while !stop.is_stopped() {
            write(&mut near, &frame)?;
        }
        Ok(())
    });
    let delivered = gauge.rate(task.time);
    join(sender)?;
    join(receiver)?;
    Ok(Flow {
        delivered,
        ..Flow::default()
    })
}

pub(crate) fn round_trip(task: &Task) -> io::Result<Trip> {
    let [mut near, mut far] = pair(task)?;
    let frame = frame(task);
    let echo = frame.clone();
    let mirror = thread::spawn(move || -> io::Result<()> {
        let mut walker = Walker::new();
        loop {
            match walker.read(&mut far)? {
                0 if walker.ended => return Ok(()),
                frames => (0..frames).try_for_each(|_| write(&mut far, &echo))?,
            }
        }
    });
    let mut trips = histogram();
    let mut walker = Walker::new();
    let start = Instant::now();
    loop {
        let sent = Instant::now();
        write(&mut near, &frame)?;
        while walker.read(&mut near)? == 0 {
            if walker.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        trips.saturating_record(sent.elapsed().as_nanos() as u64);
        if start.elapsed() >= task.time {
            break;
        }
    }
    drop(near);
    join(mirror)?;
    Ok(Trip::of(&trips))
}

fn pair(task: &Task) -> io::Result<[TcpStream; 2]> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_nonblocking(task.idle != Idle::Block)?;
    }
    Ok([near, far])
}

fn frame(task: &Task) -> Vec<u8> {
    let mut frame = (task.bytes as u32).to_be_bytes().to_vec();
    frame.resize(4 + task.bytes, b'x');
    frame
}

/// `write_all`, and on a socket that does not block as well.
fn write(end: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match end.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads as much as there is, and finds where frames end.
struct Walker {
    buffer: Box<[u8]>,
    /// The prefix of which a part has come.
    prefix: Vec<u8>,
    /// Bytes of the payload that are still to come.
    missing: usize,
    ended: bool,
}

impl Walker {
    fn new() -> Self {
        Self {
            buffer: vec![0; 256 << 10].into_boxed_slice(),
            prefix: Vec::with_capacity(4),
            missing: 0,
            ended: false,
        }
    }

    /// Frames that ended with what one read has brought.
    fn read(&mut self, end: &mut TcpStream) -> io::Result<u64> {
        let n = loop {
            match end.read(&mut self.buffer) {
                Ok(n) => break n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error),
            }
        };
        self.ended = n == 0;
        let (mut bytes, mut frames) = (&self.buffer[..n], 0);
        while !bytes.is_empty() {
            if self.missing == 0 {
                let taken = bytes.len().min(4 - self.prefix.len());
                self.prefix.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if let Ok(prefix) = <[u8; 4]>::try_from(&self.prefix[..]) {
                    self.missing = u32::from_be_bytes(prefix) as usize;
                    self.prefix.clear();
                }
            }
            let taken = bytes.len().min(self.missing);
            self.missing -= taken;
            bytes = &bytes[taken..];
            frames += u64::from(taken > 0 && self.missing == 0);
        }
        Ok(frames)
    }
}

fn join(thread: thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}
