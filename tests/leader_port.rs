//! Tests the leader's port of the example `election`: the test answers the lookups of names, sockets are real, and the clock is
//! the test's.
//!
//! Nothing here waits for a time to pass.

#[path = "../examples/election/leader_listener.rs"]
mod leader_listener;
#[path = "../examples/election/leader_port.rs"]
mod leader_port;
#[path = "../examples/election/leader_watch.rs"]
mod leader_watch;
#[path = "../examples/election/names.rs"]
#[allow(dead_code, reason = "the system is not asked here")]
mod names;

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use mio::{Events, Poll, Token, Waker};
use quorum_cnx::Address;
use support::{ReservedAddress, eventually};

use crate::{
    leader_port::{LeaderPort, PortEvent},
    names::{Lookup, Names},
};

/// How long a leader waits for bytes of a follower.
const FOLLOWER_TIMEOUT: Duration = Duration::from_secs(9);

/// An address for documentation, which no interface has (RFC 5737).
const UNASSIGNED: &str = "192.0.2.1";

/// What a lookup of a name results in.
#[derive(Clone)]
enum Resolution {
    Addresses(Vec<&'static str>),
    /// It fails.
    Fails,
    /// It is not answered.
    Unanswered,
    /// It cannot be started.
    NoThread,
}

/// A port that is driven by the test.
struct TestPort {
    port: LeaderPort,
    now: Duration,
    names: Arc<Mutex<BTreeMap<String, Resolution>>>,
    /// The lookups that were not answered.
    waiting: Arc<Mutex<Vec<Lookup>>>,
    words: Vec<PortEvent>,
    poll: Poll,
    events: Events,
}

impl TestPort {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let names: Arc<Mutex<BTreeMap<String, Resolution>>> = Arc::default();
        let waiting: Arc<Mutex<Vec<Lookup>>> = Arc::default();
        let (known, unanswered) = (Arc::clone(&names), Arc::clone(&waiting));
        let start = move |lookup: Lookup| {
            match known.lock().unwrap().get(&lookup.host).cloned() {
                Some(Resolution::Addresses(all)) => lookup.answer(Ok(socket_addresses(&all))),
                Some(Resolution::Unanswered) => unanswered.lock().unwrap().push(lookup),
                Some(Resolution::NoThread) => return Err(io::Error::other("no thread")),
                _ => lookup.answer(Err(io::Error::other("no such name"))),
            }
            Ok(())
        };
        let names_of_port = Names::new(waker, Box::new(start));
        let registry = poll.registry().try_clone().unwrap();
        Self {
            port: LeaderPort::new(registry, Token(1), names_of_port, false, FOLLOWER_TIMEOUT),
            now: Duration::from_secs(1000),
            names,
            waiting,
            words: Vec::new(),
            poll,
            events: Events::with_capacity(16),
        }
    }

    /// The port of a follower that has reached its leader.
    #[track_caller]
    fn at_the_leader(address: &str) -> Self {
        let mut test_port = Self::new();
        test_port.watch(&[address]);
        test_port.await_reached();
        test_port
    }

    fn name(&self, name: &str, resolution: Resolution) {
        self.names.lock().unwrap().insert(name.into(), resolution);
    }

    fn hold(&mut self, address: &str) {
        self.port.hold(&[address.parse().unwrap()]);
    }

    fn watch(&mut self, addresses: &[&str]) {
        let parse = |text: &&str| text.parse::<Address>().unwrap();
        let addresses = addresses.iter().map(parse).collect();
        self.port.watch(addresses, self.now);
    }

    fn look(&mut self) {
        self.words.extend(self.port.look(self.now));
    }

    /// Looks, without advancing the clock, until the port returns a matching word. Discards all others.
    #[track_caller]
    fn await_word(&mut self, what: &str, matches: impl Fn(&PortEvent) -> bool) -> PortEvent {
        let mut found = None;
        eventually(what, || {
            self.look();
            let at = self.words.iter().position(&matches);
            found = at.map(|at| self.words.swap_remove(at));
            found.is_some()
        });
        self.words.clear();
        found.unwrap()
    }

    #[track_caller]
    fn await_reached(&mut self) {
        self.await_word("the leader is reached", |word| *word == PortEvent::Reached);
    }

    #[track_caller]
    fn await_error(&mut self, part: &str) {
        let matches =
            |word: &PortEvent| matches!(word, PortEvent::Trouble(why) if why.contains(part));
        self.await_word("the error is reported", matches);
    }

    /// Advances the clock from deadline to deadline. Returns whether the leader was given up.
    fn advance(&mut self, time: Duration) -> bool {
        let end = self.now + time;
        loop {
            self.settle();
            match self.port.deadline().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
        }
        self.now = end;
        self.settle();
        self.words
            .iter()
            .any(|word| matches!(word, PortEvent::Gone(_)))
    }

    /// Looks until the kernel reports no event. On loopback an effect is visible when the call that causes it returns.
    fn settle(&mut self) {
        loop {
            self.look();
            self.poll
                .poll(&mut self.events, Some(Duration::ZERO))
                .unwrap();
            if self.events.is_empty() {
                return;
            }
        }
    }
}

fn socket_addresses(ips: &[&str]) -> Vec<SocketAddr> {
    let address = |ip: &&str| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 0);
    ips.iter().map(address).collect()
}

fn listening_at(word: &PortEvent, at: &str) -> bool {
    matches!(word, PortEvent::Listening(address) if address.to_string() == at)
}

/// A reserved port.
fn vacant() -> (ReservedAddress, u16) {
    let vacant = ReservedAddress::new();
    let at: SocketAddr = vacant.address.parse().unwrap();
    (vacant, at.port())
}

#[test]
fn leader_listens_on_each_address_of_its_name() {
    let (_vacant, port) = vacant();
    let mut test_port = TestPort::new();
    // No interface has the second address.
    let all = vec!["127.0.0.1", UNASSIGNED, "127.0.0.2"];
    test_port.name("zk1", Resolution::Addresses(all));
    test_port.hold(&format!("zk1:{port}"));
    let opens = |at: String| move |word: &PortEvent| listening_at(word, &at);
    let first = opens(format!("127.0.0.1:{port}"));
    test_port.look();
    assert!(test_port.words.iter().any(first), "{:?}", test_port.words);
    let last = opens(format!("127.0.0.2:{port}"));
    assert!(test_port.words.iter().any(last), "{:?}", test_port.words);
    test_port.await_error(UNASSIGNED);
    for ip in ["127.0.0.1", "127.0.0.2"] {
        TcpStream::connect((ip, port)).unwrap();
    }
    // It is tried again, and the same error is not reported again.
    test_port.advance(Duration::from_secs(10));
    assert_eq!(test_port.words, []);
    // It listens on a new address of the name.
    test_port.name("zk1", Resolution::Addresses(vec!["127.0.0.1", "127.0.0.3"]));
    test_port.advance(Duration::from_secs(3));
    TcpStream::connect(("127.0.0.3", port)).unwrap();
}

#[test]
fn unanswered_lookup_blocks_nothing() {
    let (_vacant, port) = vacant();
    let (leader, address) = support::listener();
    let leading = address.parse::<SocketAddr>().unwrap().port();
    let mut test_port = TestPort::new();
    test_port.name("zk1", Resolution::Unanswered);
    for _ in 0..3 {
        test_port.hold(&format!("zk1:{port}"));
        test_port.advance(Duration::from_secs(5));
        test_port.watch(&[&format!("zk1:{leading}")]);
        test_port.advance(Duration::from_secs(5));
    }
    assert_eq!(test_port.words, []);
    // One lookup at a time, however often the name was needed.
    assert_eq!(test_port.waiting.lock().unwrap().len(), 1);
    let lookup = test_port.waiting.lock().unwrap().pop().unwrap();
    lookup.answer(Ok(socket_addresses(&["127.0.0.1"])));
    test_port.await_reached();
    drop(leader);
    // A known address is used while a lookup is not answered.
    test_port.hold(&format!("zk1:{port}"));
    let at = format!("127.0.0.1:{port}");
    test_port.await_word("the port listens", |word| listening_at(word, &at));
}

#[test]
fn follower_tries_all_addresses_of_the_leader() {
    let (leader, address) = support::listener();
    let port = address.parse::<SocketAddr>().unwrap().port();
    // Nothing listens at the first two addresses. The third one is right.
    let names = [vec!["127.0.0.9", "::1", "127.0.0.1"], vec!["127.0.0.1"]];
    for all in names {
        let mut test_port = TestPort::new();
        test_port.name("zk3", Resolution::Addresses(all));
        test_port.watch(&[&format!("zk3:{port}")]);
        test_port.await_reached();
    }
    // The same with several addresses in the configuration, one of them unknown.
    let mut test_port = TestPort::new();
    let all = [format!("zk4:{port}"), format!("127.0.0.9:{port}"), address];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    test_port.watch(&all);
    test_port.await_reached();
    drop(leader);
}

#[test]
fn unreached_leader_is_given_up_after_some_attempts() {
    let (_vacant, port) = vacant();
    let mut test_port = TestPort::new();
    test_port.name("zk3", Resolution::Addresses(vec!["127.0.0.1", "127.0.0.2"]));
    test_port.watch(&[&format!("zk3:{port}")]);
    for is_given_up in [false, true] {
        let gone = test_port.advance(Duration::from_millis(500));
        assert_eq!(gone, is_given_up, "{:?}", test_port.words);
    }
    assert_eq!(test_port.port.deadline(), None);
}

#[test]
fn local_errors_are_reported_and_do_not_end_the_watch() {
    let (_leader, address) = support::listener();
    let port = address.parse::<SocketAddr>().unwrap().port();
    for (resolution, what) in [
        (Resolution::NoThread, "no thread"),
        (Resolution::Fails, "no such name"),
    ] {
        let mut test_port = TestPort::new();
        test_port.name("zk3", resolution.clone());
        test_port.watch(&[&format!("zk3:{port}")]);
        test_port.await_error(what);
        // It is tried again and again, and reported once.
        assert!(!test_port.advance(Duration::from_secs(100)));
        assert_eq!(test_port.words, []);
        test_port.name("zk3", Resolution::Addresses(vec!["127.0.0.1"]));
        test_port.advance(Duration::from_secs(2));
        assert_eq!(test_port.words, [PortEvent::Reached]);

        let mut test_port = TestPort::new();
        test_port.name("zk1", resolution);
        let (_vacant, port) = vacant();
        test_port.hold(&format!("zk1:{port}"));
        test_port.await_error(what);
        test_port.name("zk1", Resolution::Addresses(vec!["127.0.0.1"]));
        test_port.advance(Duration::from_secs(3));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

#[test]
fn leader_that_closes_its_port_is_gone() {
    let (leader, address) = support::listener();
    let mut test_port = TestPort::at_the_leader(&address);
    let (follower, _) = leader.accept().unwrap();
    test_port.now += FOLLOWER_TIMEOUT;
    // The leader closes the connection, and its port is still open.
    drop(follower);
    test_port.await_reached();
    let (follower, _) = leader.accept().unwrap();
    test_port.now += FOLLOWER_TIMEOUT;
    drop(leader);
    drop(follower);
    test_port.await_word("the leader is gone", |word| {
        matches!(word, PortEvent::Gone(_))
    });
}

#[test]
fn reconnect_pause_doubles_when_the_leader_closes_at_once() {
    let (leader, address) = support::listener();
    let mut test_port = TestPort::at_the_leader(&address);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        drop(leader.accept().unwrap());
        let now = test_port.now;
        eventually("the port has noticed the end", || {
            test_port.look();
            let next = test_port.port.deadline();
            next.is_some_and(|at| at > now && at != now + FOLLOWER_TIMEOUT / 3)
        });
        pauses.push((test_port.port.deadline().unwrap() - now).as_secs());
        test_port.now = test_port.port.deadline().unwrap();
        test_port.await_reached();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

/// Reads all bytes that have arrived.
fn drain(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    all
}

#[test]
fn watched_leader_gets_bytes_in_time_and_no_whole_packet() {
    let (leader, address) = support::listener();
    let mut test_port = TestPort::at_the_leader(&address);
    let (mut follower, _) = leader.accept().unwrap();
    let mut received = Vec::new();
    eventually("a packet begins", || {
        received.extend(drain(&mut follower));
        received.len() >= 16
    });
    let length = u32::from_be_bytes(received[12..16].try_into().unwrap()) as usize;
    // A real server accepts such a length.
    assert!((1..1 << 20).contains(&length));
    // `FOLLOWERINFO`: for any other type it would log an error.
    assert_eq!(received[..4], 11_i32.to_be_bytes());
    let before = received.len();
    for _ in 0..10 {
        test_port.advance(FOLLOWER_TIMEOUT / 2);
        test_port.look();
    }
    received.extend(drain(&mut follower));
    let count = received.len();
    assert!(count >= before + 10, "too few bytes: {count}");
    let is_second = test_port.words.contains(&PortEvent::Reached);
    assert!(!is_second, "a second connection");
    // It continues with a new connection before the packet is complete.
    let has_reconnected = (0..200).any(|_| {
        test_port.advance(FOLLOWER_TIMEOUT * 200);
        received.extend(drain(&mut follower));
        test_port.words.contains(&PortEvent::Reached)
    });
    let count = received.len();
    assert!(has_reconnected, "{count} bytes on one connection");
    assert!(count < 16 + length, "{count} bytes are a packet");
}

#[test]
fn leader_keeps_some_followers_and_closes_the_oldest() {
    let (_vacant, port) = vacant();
    let mut test_port = TestPort::new();
    test_port.hold(&format!("127.0.0.1:{port}"));
    test_port.look();
    let connect = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"ignored").unwrap();
        stream
    };
    let mut followers: Vec<TcpStream> = Vec::new();
    for nth in 0..100 {
        followers.push(connect(nth));
        test_port.look();
    }
    // The leader reads nothing, so that the kernel resets a connection that it closes.
    let is_closed = |follower: &mut TcpStream| {
        follower.set_nonblocking(true).unwrap();
        match follower.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    eventually("the oldest are closed", || {
        test_port.look();
        followers[..100 - 64].iter_mut().all(is_closed)
    });
    assert!(!followers[100 - 64..].iter_mut().any(is_closed));
}
