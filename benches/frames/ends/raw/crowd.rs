//! Many connections at once, read by one thread: the far ends of a fan-out, and of threads that send at once.
//!
//! The same for everybody who sends, so that only the sender differs.

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
        payload::wall_nanos,
        received::{Burst, Received},
        walker::Walker,
        waves::Waves,
        window::Window,
        workers::Workers,
    },
    failure::{While, failure},
    workloads::Workload,
};

/// Bytes with which who connects says its number.
const INITIAL_MESSAGE_BYTES: usize = 8;

/// What one read takes at most.
const READ_BUFFER_BYTES: usize = 256 << 10;

const LISTENER: Token = Token(usize::MAX);

pub(crate) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let received = Arc::new(Received::default());
    let waves = Arc::new(Waves::new(task.peers));
    let is_fan_out = task.workload == Workload::FanOut;
    let mut crowd = Crowd {
        burst: Burst::new(&received, false),
        waves: is_fan_out.then(|| Arc::clone(&waves)),
        members: Vec::new(),
        connected: control.connected(),
    };
    let mut workers = Workers::default();
    let options = task.clone();
    workers.spawn("crowd", move || crowd.run(&options, listener))?;
    control.ready(at);
    let mut window = Window::open(received.counts());
    let wanted = control.measure(&mut workers, || {
        waves.forget();
        window = Window::open(received.counts());
    })?;
    let mut results = Map::new();
    if wanted {
        received.tell(&window, false, &mut results);
        if results["delivered"] == 0 {
            return Err(failure("no frame came since the mark"));
        }
        if is_fan_out {
            waves.tell(&mut results);
        }
    }
    Ok(results)
}

struct Member {
    stream: net::TcpStream,
    walker: Walker,
    /// Of its number, which is not a frame.
    greeting: usize,
}

struct Crowd {
    burst: Burst,
    waves: Option<Arc<Waves>>,
    members: Vec<Option<Member>>,
    connected: Arc<AtomicBool>,
}

impl Crowd {
    /// For as long as this process lives.
    fn run(&mut self, task: &Task, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = net::TcpListener::from_std(listener);
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut stage = vec![0; READ_BUFFER_BYTES];
        loop {
            match poll.poll(&mut events, Some(Duration::from_secs(1))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept(task, &listener, &poll)?;
                } else {
                    self.read(event.token().0, &mut stage)?;
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
            let token = Token(self.members.len());
            poll.registry()
                .register(&mut stream, token, Interest::READABLE)?;
            self.members.push(Some(Member {
                stream,
                walker: Walker::default(),
                greeting: INITIAL_MESSAGE_BYTES,
            }));
            self.connected.store(true, Ordering::Release);
        }
    }

    /// Until nothing is left, since the kernel tells only of what is new.
    fn read(&mut self, at: usize, stage: &mut [u8]) -> io::Result<()> {
        let Some(member) = &mut self.members[at] else {
            return Ok(());
        };
        loop {
            let n = match member.stream.read(stage) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error).context("reading"),
            };
            if n == 0 {
                self.members[at] = None;
                return Ok(());
            }
            let greeting = member.greeting.min(n);
            member.greeting -= greeting;
            let now = wall_nanos();
            member.walker.walk(&stage[greeting..n], |head, len| {
                self.burst.frame(head, len);
                if let Some(waves) = &self.waves {
                    waves.on_frame(head, now);
                }
            });
            // A short read has taken all.
            if n < stage.len() {
                return Ok(());
            }
        }
    }
}
