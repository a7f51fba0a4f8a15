//! Connections with a handshake of their own, as with TLS: how many steps one turn takes, and in which order. Also which of the
//! connections without an initial message are evicted. On a simulated network.
//!
//! The handshake of these tests is one byte.

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, Reason, Sid,
    simulation::{
        Clock, Found, HostNet, HostStream, Net, Network, Ready, RemoteEnd, Stream, Waker, Wire,
        limits::HANDSHAKES_PER_TURN,
    },
};

/// The far ends of the handshakes, one for each step.
type Steps = Arc<Mutex<Vec<SocketAddr>>>;

struct HandshakingNet {
    net: HostNet,
    steps: Steps,
}

/// A connection whose handshake is the first byte that arrives, if it was accepted.
#[derive(Debug)]
struct HandshakingStream {
    stream: HostStream,
    from: Option<SocketAddr>,
    is_done: AtomicBool,
    steps: Steps,
}

impl HandshakingNet {
    fn stream(&self, stream: HostStream, from: Option<SocketAddr>) -> HandshakingStream {
        HandshakingStream {
            stream,
            from,
            is_done: AtomicBool::new(from.is_none()),
            steps: Arc::clone(&self.steps),
        }
    }
}

impl Net for HandshakingNet {
    type Stream = HandshakingStream;

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn clock(&self) -> Clock {
        self.net.clock()
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.net.wait(timeout, ready)
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.net.listen(listener, at)
    }

    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr> {
        self.net.adopt(listener, bound)
    }

    fn accept(&mut self, listener: usize) -> io::Result<(HandshakingStream, SocketAddr)> {
        let (stream, from) = self.net.accept(listener)?;
        Ok((self.stream(stream, Some(from)), from))
    }

    fn close_listener(&mut self, listener: usize) {
        self.net.close_listener(listener);
    }

    fn close_listeners(&mut self) {
        self.net.close_listeners();
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<HandshakingStream> {
        let stream = self.net.dial(to)?;
        Ok(self.stream(stream, None))
    }

    fn watch(&mut self, stream: &HandshakingStream, token: usize) -> io::Result<()> {
        self.net.watch(&stream.stream, token)
    }

    fn unwatch(&mut self, stream: &HandshakingStream) {
        self.net.unwatch(&stream.stream);
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.net.lookup(lookup_id, host);
    }

    fn found(&mut self) -> Option<Found> {
        self.net.found()
    }

    fn waker(&self) -> Waker {
        self.net.waker()
    }
}

impl Wire for HandshakingStream {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write(bufs)
    }
}

impl Stream for HandshakingStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_handshaking() {
            self.steps.lock().unwrap().extend(self.from);
            match self.stream.read(&mut [0])? {
                0 => return Ok(0),
                _ => self.is_done.store(true, Ordering::Relaxed),
            }
        }
        self.stream.read(buf)
    }

    fn connected(&self) -> io::Result<bool> {
        self.stream.connected()
    }

    fn is_handshaking(&self) -> bool {
        !self.is_done.load(Ordering::Relaxed)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn abort(&self) -> io::Result<()> {
        self.stream.abort()
    }
}

#[derive(Default)]
struct App {
    frames: u64,
    evicted: Vec<SocketAddr>,
}

impl Handler for App {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
        self.frames += 1;
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::Rejected {
            addr,
            reason: Reason::Evicted,
            ..
        } = event
        {
            self.evicted.push(*addr);
        }
    }
}

/// Server 1, which accepts the connections of servers 2 and 3.
struct Server {
    network: Network,
    event_loop: EventLoop<App, HandshakingNet>,
    steps: Steps,
}

const MEMBER: [u8; 4] = [10, 0, 0, 2];
const NAMED: [u8; 4] = [10, 0, 0, 3];

impl Server {
    fn start(pending_max: usize) -> Self {
        let network = Network::new();
        network.set_name("three.example", [NAMED]);
        let config = Config::builder(Sid(1))
            .server(Sid(1), "10.0.0.1:3888")
            .server(Sid(2), "10.0.0.2:3888")
            .server(Sid(3), "three.example:3888")
            .pending_max(pending_max)
            .build()
            .unwrap();
        let steps = Steps::default();
        let net = HandshakingNet {
            net: network.host([10, 0, 0, 1]).net(),
            steps: Arc::clone(&steps),
        };
        let event_loop = EventLoop::with_net(config, App::default(), net).unwrap();
        let mut server = Self {
            network,
            event_loop,
            steps,
        };
        // It listens, and has looked the name up.
        server.turn();
        server.turn();
        server
    }

    /// A connection from this address, with these first bytes.
    fn connect(&self, from: ([u8; 4], u16), bytes: &[u8]) -> RemoteEnd {
        let to = "10.0.0.1:3888".parse().unwrap();
        let end = self.network.connect(from.into(), to).unwrap();
        if !bytes.is_empty() {
            end.send(bytes).unwrap();
        }
        end
    }

    /// Runs one turn. Returns the steps of handshakes in it.
    fn turn(&mut self) -> Vec<SocketAddr> {
        self.event_loop.turn(Some(Duration::ZERO)).unwrap();
        std::mem::take(&mut self.steps.lock().unwrap())
    }

    fn evicted(&mut self) -> Vec<SocketAddr> {
        self.turn();
        std::mem::take(&mut self.event_loop.handler_mut().evicted)
    }
}

/// The initial message of server 2, after its handshake.
fn initial_message_of_2() -> Vec<u8> {
    let mut bytes = vec![b'h'];
    bytes.extend(2_i64.to_be_bytes());
    bytes
}

#[test]
fn a_flood_of_handshakes_leaves_the_links_their_turns() {
    let mut server = Server::start(256);
    let link = server.connect((MEMBER, 40_000), &initial_message_of_2());
    for _ in 0..3 {
        server.turn();
    }
    assert!(server.event_loop.handle().connected_to_peer(Sid(2)));

    let strangers: Vec<_> = (1..=20)
        .map(|host| ([10, 9, 0, host], 1000))
        .map(|from| server.connect(from, b"h"))
        .collect();
    let mut seen = Vec::new();
    for turn in 1..=strangers.len() {
        link.send(b"\x00\x00\x00\x01x").unwrap();
        let steps = server.turn();
        assert_eq!(steps.len(), HANDSHAKES_PER_TURN, "in turn {turn}");
        assert_eq!(server.event_loop.handler().frames, turn as u64);
        seen.extend(steps);
    }
    let order: Vec<_> = strangers.iter().map(RemoteEnd::local_addr).collect();
    assert_eq!(seen, order, "the oldest is first, and none is left out");
}

#[test]
fn handshakes_of_members_come_before_those_of_strangers() {
    let mut server = Server::start(256);
    let strangers: Vec<_> = (1..=5)
        .map(|host| server.connect(([10, 9, 0, host], 1000), b"h"))
        .collect();
    assert_eq!(server.turn(), [strangers[0].local_addr()]);
    let members = [
        server.connect((MEMBER, 40_000), b"h"),
        server.connect((NAMED, 40_000), b"h"),
    ];
    for end in members.iter().chain(&strangers[1..]) {
        assert_eq!(server.turn(), [end.local_addr()]);
    }
}

#[test]
fn strangers_are_evicted_before_connections_of_members() {
    let mut server = Server::start(3);
    let member = server.connect((MEMBER, 40_000), b"");
    let strangers = [1, 2].map(|host| server.connect(([10, 9, 0, host], 1000), b""));
    assert_eq!(server.evicted(), []);
    // The member's connection is the oldest, and stays. The older stranger goes.
    let another = server.connect((MEMBER, 40_001), b"");
    assert_eq!(server.evicted(), [strangers[0].local_addr()]);
    let third = server.connect((NAMED, 40_000), b"");
    assert_eq!(server.evicted(), [strangers[1].local_addr()]);
    // Without strangers, the oldest goes.
    let fourth = server.connect((NAMED, 40_001), b"");
    assert_eq!(server.evicted(), [member.local_addr()]);
    assert!([another, third, fourth].iter().all(RemoteEnd::is_open));
}

#[test]
fn addresses_of_members_are_known_after_each_lookup() {
    const NEW: [u8; 4] = [10, 0, 7, 3];
    let mut server = Server::start(2);
    for (home, other) in [(NAMED, NEW), (NEW, NAMED)] {
        if home == NEW {
            server.network.set_name("three.example", [NEW]);
            for end in server.network.take_dials() {
                end.refuse().unwrap();
            }
            // It looks the name up again, to dial the server once more.
            for _ in 0..20 {
                server.turn();
                server.network.advance(Duration::from_millis(100));
            }
        }
        let at_home = server.connect((home, 40_000), b"");
        let elsewhere = server.connect((other, 40_000), b"");
        assert_eq!(server.evicted(), []);
        let next = server.connect((MEMBER, 40_000), b"");
        assert_eq!(server.evicted(), [elsewhere.local_addr()]);
        for end in [at_home, next] {
            end.reset();
        }
        server.turn();
    }
}
