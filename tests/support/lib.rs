//! What the tests on loopback share: meshes on ports that the kernel chose, connections whose remote end is the test
//! itself, and waiting for a condition.
//!
//! Nothing here waits for a time to pass. Every wait is for a condition, with a deadline that only a failure reaches.

#![allow(
    clippy::new_without_default,
    clippy::should_implement_trait,
    missing_debug_implementations,
    missing_docs,
    reason = "an interface for the tests of this repository only"
)]

// The simulator has a copy of its own: its mutants are built without this library.
pub mod black_hole;
pub mod command;
pub mod counters;
pub mod crowd;
pub mod ensemble;
pub mod example;
#[cfg(feature = "figures")]
pub mod figures;
pub mod gate;
pub mod hex;
pub mod http;
pub mod many;
pub mod numbered;
pub mod pair;
#[cfg(target_os = "linux")]
pub mod process;
pub mod program;
pub mod proxy;
pub mod renewed;
#[path = "../sim/rng.rs"]
pub mod rng;
#[cfg(target_os = "linux")]
pub mod signal;
#[cfg(target_os = "linux")]
pub mod sockets;
#[cfg(feature = "tls")]
pub mod tls;
pub mod turned;
pub mod worker;

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use quorum_cnx::{
    CnxManager, Config, ConfigBuilder, Event, Handle, Message, Reason, RecvError, Sid,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Deadline of every wait. Only a failure reaches it.
pub const LONG: Duration = Duration::from_secs(20);

/// The address of all members.
pub const MEMBER_IP: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The address of connections from elsewhere: no member has it.
pub const STRANGER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// An address at which nothing listens, for peers that are absent or dial themselves.
pub const NOBODY: &str = "127.0.0.1:1";

/// The directory `target`: cargo puts a test into `target/<profile>/deps`.
pub fn target_dir() -> PathBuf {
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3);
    target
        .expect("cargo puts tests three levels deep")
        .to_owned()
}

/// Waits until the condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        // Leaves the processor to the other threads. Nothing depends on the duration.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the loop, which has a thread of its own, has run a whole turn: it has seen what was asked of it before.
#[track_caller]
pub fn await_turn(handle: &Handle) {
    // The first of these may have begun before.
    for _ in 0..2 {
        let turns = handle.stats().turns;
        handle.wake();
        eventually("the loop turns", || handle.stats().turns > turns);
    }
}

/// Fills the outbox of a peer that reads nothing, again and again, until its socket is full as well.
#[track_caller]
pub fn fill_with_socket(handle: &Handle, peer: Sid, fill: impl Fn()) {
    let written = || handle.peer(peer).unwrap().stats().sent.written;
    eventually("the socket is full", || {
        fill();
        let before = written();
        // However late its thread runs: a loop that could write would do so now.
        await_turn(handle);
        written() == before
    });
}

/// Does some work on a thread of its own, and fails if it does not end in time.
#[track_caller]
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // Fails when the test has given up waiting.
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(LONG) {
        Ok(done) => done,
        Err(_) => panic!("did not end within {LONG:?}, or panicked: {what}"),
    }
}

/// Waits for the first event for which `answer` returns a value. Earlier events are dropped.
#[track_caller]
pub fn wait_for<T>(manager: &CnxManager, answer: impl Fn(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = manager
            .events()
            .recv_timeout(left)
            .expect("no such event in time");
        if let Some(answer) = answer(&event) {
            return answer;
        }
    }
}

/// Takes the next message, which must have this sender and this payload.
#[track_caller]
pub fn expect_message(manager: &CnxManager, from: i64, payload: impl AsRef<[u8]>) {
    assert_message(&manager.recv_timeout(LONG).unwrap(), from, payload);
}

#[track_caller]
pub fn assert_message(message: &Message, from: i64, payload: impl AsRef<[u8]>) {
    let found = (message.from, &message.payload[..]);
    assert_eq!(found, (Sid(from), payload.as_ref()));
}

/// Waits until a link ends: with which peer, and why.
#[track_caller]
pub fn wait_for_down(manager: &CnxManager) -> (Sid, Reason) {
    wait_for(manager, |event| match event {
        Event::Down { sid, reason, .. } => Some((*sid, reason.clone())),
        _ => None,
    })
}

/// Waits until the next link is up, and returns the address of its other end.
#[track_caller]
pub fn wait_for_up(manager: &CnxManager) -> SocketAddr {
    wait_for(manager, |event| match event {
        Event::Up { addr, .. } => Some(*addr),
        _ => None,
    })
}

/// Waits until the manager listens, and returns at which address.
#[track_caller]
pub fn wait_for_listening(manager: &CnxManager) -> SocketAddr {
    wait_for(manager, |event| match event {
        Event::Listening { addr, .. } => Some(*addr),
        _ => None,
    })
}

/// Whether a server could listen on this address.
pub fn is_free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}

/// A listening socket on a port that the kernel chose, and its address.
pub fn listener() -> (TcpListener, String) {
    ReservedAddress::new().open()
}

/// An address at which nothing listens, reserved by a bound socket.
pub struct ReservedAddress {
    socket: Socket,
    pub address: String,
}

impl ReservedAddress {
    pub fn new() -> Self {
        Self::at(MEMBER_IP)
    }

    /// The same with another address of this machine.
    pub fn at(ip: Ipv4Addr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        // As every server does, so that the port can be bound again while connections are in TIME_WAIT.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self {
            socket,
            address: address.to_string(),
        }
    }

    /// Listens at the address. The backlog has room for every burst of these tests: a SYN that finds no room is sent again
    /// only a second later.
    pub fn open(self) -> (TcpListener, String) {
        self.socket.listen(4096).unwrap();
        (self.socket.into(), self.address)
    }
}

/// Managers with one configuration, which may name other servers, too.
pub struct Mesh {
    pub managers: Vec<Arc<CnxManager>>,
    pub addresses: Vec<String>,
}

impl Mesh {
    /// Starts one manager for each sid. `others` are servers that are only in the configuration.
    pub fn start(
        sids: &[i64],
        others: &[(i64, &str)],
        shape: impl Fn(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let (listeners, addresses): (Vec<_>, Vec<_>) = sids.iter().map(|_| listener()).unzip();
        let servers: Vec<(i64, String)> = sids
            .iter()
            .copied()
            .zip(addresses.iter().cloned())
            .chain(others.iter().map(|(sid, at)| (*sid, (*at).to_owned())))
            .collect();
        let start = |(listener, own): (TcpListener, &i64)| {
            let builder = shape(configure(*own, &servers)).listener(listener);
            Arc::new(CnxManager::start(builder.build().unwrap()).unwrap())
        };
        let managers = listeners.into_iter().zip(sids).map(start).collect();
        Self {
            managers,
            addresses,
        }
    }

    /// The same, and waits until every pair is linked.
    #[track_caller]
    pub fn linked(
        sids: &[i64],
        others: &[(i64, &str)],
        shape: impl Fn(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let mesh = Self::start(sids, others, shape);
        mesh.wait_linked();
        mesh
    }

    #[track_caller]
    pub fn wait_linked(&self) {
        eventually("every pair is linked", || {
            self.managers
                .iter()
                .all(|manager| manager.linked_peers().len() + 1 >= self.managers.len())
        });
    }
}

/// A configuration with these servers.
pub fn configure<S: AsRef<str>>(own: i64, servers: &[(i64, S)]) -> ConfigBuilder {
    // Observers are refused unless they are asked for.
    let builder = Config::builder(Sid(own)).observers_max(64);
    servers.iter().fold(builder, |builder, (sid, address)| {
        builder.server(Sid(*sid), address.as_ref())
    })
}

/// One manager. Its peers are connections of the test, or missing.
pub fn single_manager<S: AsRef<str>>(
    own: i64,
    others: &[(i64, S)],
    shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> (CnxManager, String) {
    let (listener, address) = listener();
    let mut servers = vec![(own, address.clone())];
    servers.extend(
        others
            .iter()
            .map(|(sid, address)| (*sid, address.as_ref().to_owned())),
    );
    let builder = shape(configure(own, &servers)).listener(listener);
    (
        CnxManager::start(builder.build().unwrap()).unwrap(),
        address,
    )
}

/// Traffic: a token that goes round all managers, incremented by each hop. It crosses every link of a mesh of two or
/// three. A lost frame stops it. A frame that arrives twice or out of order is an error.
pub struct Ring {
    hops: Arc<AtomicU64>,
    broken: Arc<Mutex<Option<String>>>,
    /// What each manager received from senders outside of the ring.
    pub others: Vec<Receiver<Message>>,
    managers: Vec<Arc<CnxManager>>,
    threads: Vec<JoinHandle<()>>,
}

impl Ring {
    pub fn start(mesh: &Mesh) -> Self {
        let managers = mesh.managers.clone();
        let (hops, broken) = (Arc::default(), Arc::new(Mutex::new(None)));
        let (mut others, mut threads) = (Vec::new(), Vec::new());
        let count = managers.len();
        for at in 0..count {
            let (sender, receiver) = channel();
            others.push(receiver);
            let relay = Relay {
                manager: Arc::clone(&managers[at]),
                before: managers[(at + count - 1) % count].sid(),
                behind: managers[(at + 1) % count].sid(),
                hops: Arc::clone(&hops),
                others: sender,
            };
            let (broken, expected) = (Arc::clone(&broken), (at + count - 1) % count);
            threads.push(thread::spawn(move || {
                if let Err(why) = relay.run(expected as u64, count as u64) {
                    broken.lock().unwrap().get_or_insert(why);
                }
            }));
        }
        managers[0].to_send(managers[1].sid(), token(0)).unwrap();
        let ring = Self {
            hops,
            broken,
            others,
            managers,
            threads,
        };
        ring.wait_rounds(2);
        ring
    }

    /// Waits until the token has gone round some more times.
    #[track_caller]
    pub fn wait_rounds(&self, rounds: u64) {
        let count = self.threads.len() as u64;
        let goal = self.hops.load(Ordering::Acquire) + rounds * count;
        eventually("the token goes round", || {
            let broken = self.broken.lock().unwrap();
            assert_eq!(*broken, None, "the token ring is broken");
            self.hops.load(Ordering::Acquire) >= goal
        });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for manager in &self.managers {
            manager.halt();
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed, and the token no longer goes round.
            let _ = thread.join();
        }
    }
}

struct Relay {
    manager: Arc<CnxManager>,
    before: Sid,
    behind: Sid,
    hops: Arc<AtomicU64>,
    others: Sender<Message>,
}

impl Relay {
    fn run(self, mut expected: u64, count: u64) -> Result<(), String> {
        loop {
            let message = match self.manager.recv() {
                Ok(message) => message,
                Err(RecvError::Halted) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            if message.from != self.before {
                // Fails when the test has dropped the receiver.
                let _ = self.others.send(message);
                continue;
            }
            if message.payload != token(expected) {
                return Err(format!(
                    "{} got {:?}, not token {expected}",
                    self.manager.sid(),
                    message.payload.get(..8)
                ));
            }
            self.hops.fetch_add(1, Ordering::AcqRel);
            match self.manager.to_send(self.behind, token(expected + 1)) {
                Ok(_) => {}
                Err(_) if self.manager.is_halted() => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
            expected += count;
        }
    }
}

/// The frame of a hop: its number, and a length that varies.
fn token(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + (number as usize * 37) % 1500, number as u8);
    bytes
}

/// One end of a connection, controlled by the test.
pub struct TestConnection(pub TcpStream);

impl TestConnection {
    /// Connects from `from`, and writes nothing.
    pub fn dial(from: Ipv4Addr, to: &str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        let to: SocketAddr = to.parse().unwrap();
        socket.connect_timeout(&to.into(), LONG).unwrap();
        Self::new(socket.into())
    }

    /// Connects from `from`, and writes these bytes.
    pub fn dial_and_write(from: Ipv4Addr, to: &str, bytes: &[u8]) -> Self {
        let mut connection = Self::dial(from, to);
        connection.write(bytes);
        connection
    }

    /// Connects as the member with this sid, and sends these frames.
    pub fn member(to: &str, sid: i64, frames: &[&str]) -> Self {
        let frames = frames.iter().flat_map(frame);
        let bytes: Vec<u8> = bare(sid).into_iter().chain(frames).collect();
        Self::dial_and_write(MEMBER_IP, to, &bytes)
    }

    /// Accepts the next connection, from any address.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        eventually("a connection is made", || {
            accepted = match listener.accept() {
                Ok((stream, _)) => Some(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => panic!("cannot accept: {error}"),
            };
            accepted.is_some()
        });
        let stream = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        Self::new(stream)
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self(stream)
    }

    /// Writes these bytes. Does nothing if the other end has closed the connection already.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Ok(()) => {}
            Err(error) if is_hung_up(&error) => {}
            Err(error) => panic!("cannot write: {error}"),
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, payload: impl AsRef<[u8]>) {
        self.write(&frame(payload));
    }

    /// Reads the next frame, and returns its payload.
    #[track_caller]
    pub fn recv(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("a frame follows");
        let mut payload = vec![0; i32::from_be_bytes(length).try_into().unwrap()];
        self.0.read_exact(&mut payload).expect("the frame is whole");
        payload
    }

    /// Reads an initial message.
    #[track_caller]
    pub fn read_initial_message(&mut self) -> InitialMessage {
        let mut long = [0; 8];
        self.0
            .read_exact(&mut long)
            .expect("an initial message follows");
        let version = i64::from_be_bytes(long);
        if version >= 0 {
            return InitialMessage {
                version: None,
                sid: version,
                addresses: String::new(),
            };
        }
        self.0.read_exact(&mut long).expect("a sid follows");
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("a length follows");
        let mut text = vec![0; i32::from_be_bytes(length).try_into().unwrap()];
        self.0.read_exact(&mut text).expect("the addresses follow");
        InitialMessage {
            version: Some(version),
            sid: i64::from_be_bytes(long),
            addresses: String::from_utf8(text).unwrap(),
        }
    }

    /// Closes the write half.
    pub fn finish(&self) {
        // Fails when the other end has closed the connection already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) {
        SockRef::from(&self.0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Waits until the other end has closed the connection, and returns the bytes that came before.
    #[track_caller]
    pub fn wait_closed(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        match self.0.read_to_end(&mut received) {
            Ok(_) => {}
            Err(error) if is_hung_up(&error) => {}
            Err(error) => panic!("the connection was not closed: {error}"),
        }
        received
    }

    /// Waits until the other end has reset the connection.
    #[track_caller]
    pub fn wait_reset(&self) {
        eventually("the connection is reset", || {
            let error = self.0.take_error().unwrap();
            error.is_some_and(|error| is_hung_up(&error))
        });
    }

    /// The address of this end.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

/// A decoded initial message.
#[derive(Debug, PartialEq, Eq)]
pub struct InitialMessage {
    pub version: Option<i64>,
    pub sid: i64,
    pub addresses: String,
}

pub const V1: i64 = -65_536;
pub const V2: i64 = -65_535;

/// An initial message of version `Bare`: a sid alone.
pub fn bare(sid: i64) -> Vec<u8> {
    sid.to_be_bytes().to_vec()
}

/// An initial message with addresses and their true length.
pub fn versioned(version: i64, sid: i64, text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    claiming(version, sid, text.len().try_into().unwrap(), text)
}

/// An initial message with addresses and any length for them.
pub fn claiming(version: i64, sid: i64, length: i32, text: &[u8]) -> Vec<u8> {
    [
        &version.to_be_bytes()[..],
        &sid.to_be_bytes(),
        &length.to_be_bytes(),
        text,
    ]
    .concat()
}

/// A frame on the wire.
pub fn frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = i32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes()[..], payload].concat()
}
