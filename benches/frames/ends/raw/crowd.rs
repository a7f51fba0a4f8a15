//! Reads many connections on one thread: the receivers of `fan-out` and `contended`.
//!
//! All participants use these receivers, so that only the senders differ.

use std::{
    io::{self, ErrorKind, Read},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net};
use serde_json::{Map, Value};
use socket2::SockRef;

use super::link::listen;
use crate::{
    ends::{
        Control, Task,
        fan_out_counts::FanOutCounts,
        frame_parser::FrameParser,
        payload::wall_nanos,
        received::{Burst, Received},
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
    workloads::Workload,
};

/// The first bytes of a connection, with the number of its sender.
const INITIAL_MESSAGE_BYTES: usize = 8;

/// Bytes of one read.
const READ_BUFFER_BYTES: usize = 256 << 10;

const LISTENER: Token = Token(usize::MAX);

pub(crate) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let received = Arc::new(Received::default());
    let fan_out = Arc::new(FanOutCounts::new(task.peers));
    let is_fan_out = task.workload == Workload::FanOut;
    let mut receivers = Receivers {
        burst: Burst::new(&received, false),
        fan_out: is_fan_out.then(|| Arc::clone(&fan_out)),
        connections: Vec::new(),
        connected: control.connected(),
    };
    let mut workers = Workers::default();
    let options = task.clone();
    workers.spawn("receivers", move || receivers.run(&options, listener))?;
    control.ready(at);
    let mut window = Window::open(received.counts());
    let wanted = control.measure(&mut workers, || {
        fan_out.reset();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        received.report(&window, false, &mut results);
        if results["delivered"] == 0 {
            return Err(failure("no frame arrived since `mark`"));
        }
        if is_fan_out {
            fan_out.report(&mut results);
        }
    }
    Ok(results)
}

struct Connection {
    stream: net::TcpStream,
    parser: FrameParser,
    /// Bytes of the initial message that are missing.
    initial_message: usize,
}

struct Receivers {
    burst: Burst,
    fan_out: Option<Arc<FanOutCounts>>,
    connections: Vec<Option<Connection>>,
    connected: Arc<AtomicBool>,
}

impl Receivers {
    /// Runs until the process exits.
    fn run(&mut self, task: &Task, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = net::TcpListener::from_std(listener);
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            match poll.poll(&mut events, Some(Duration::from_secs(1))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept(task, &listener, &poll)?;
                } else {
                    self.read(event.token().0, &mut buffer)?;
                }
            }
            self.burst.end();
        }
    }

    fn accept(&mut self, task: &Task, listener: &net::TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting a connection"),
            };
            super::link::options(task, SockRef::from(&stream))?;
            let token = Token(self.connections.len());
            poll.registry()
                .register(&mut stream, token, Interest::READABLE)?;
            self.connections.push(Some(Connection {
                stream,
                parser: FrameParser::default(),
                initial_message: INITIAL_MESSAGE_BYTES,
            }));
            self.connected.store(true, Ordering::Release);
        }
    }

    /// Reads until nothing is left, since readiness is edge-triggered.
    fn read(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(connection) = &mut self.connections[at] else {
            return Ok(());
        };
        loop {
            let n = match connection.stream.read(buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error).context("reading"),
            };
            if n == 0 {
                self.connections[at] = None;
                return Ok(());
            }
            let initial_message = connection.initial_message.min(n);
            connection.initial_message -= initial_message;
            let now = wall_nanos();
            connection
                .parser
                .parse(&buffer[initial_message..n], |head, len| {
                    self.burst.frame(head, len);
                    if let Some(fan_out) = &self.fan_out {
                        fan_out.on_frame(head, now);
                    }
                });
            // A short read has emptied the socket.
            if n < buffer.len() {
                return Ok(());
            }
        }
    }
}
