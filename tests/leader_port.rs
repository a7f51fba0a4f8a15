//! The leader's port of the example `election`, by itself: names are the test's own, sockets are real, and time is what the
//! test says.
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
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use mio::{Events, Poll, Token, Waker};
use quorum_cnx::Address;
use support::{LONG, Vacant, eventually};

use crate::{
    leader_port::{LeaderPort, Word},
    names::{Lookup, Names},
};

/// How long a leader waits for a follower to say something.
const PATIENCE: Duration = Duration::from_secs(9);

/// An address of documentation, which no interface has (RFC 5737).
const NOWHERE: &str = "192.0.2.1";

/// What becomes of the lookups of a name.
#[derive(Clone)]
enum Behind {
    Addresses(Vec<&'static str>),
    /// They fail.
    Nothing,
    /// They are not answered.
    Silence,
    /// They cannot be begun.
    NoThread,
}

/// A port in the hands of a test.
struct Stage {
    port: LeaderPort,
    now: Duration,
    names: Arc<Mutex<BTreeMap<String, Behind>>>,
    /// Those that were not answered.
    waiting: Arc<Mutex<Vec<Lookup>>>,
    words: Vec<Word>,
    poll: Poll,
    events: Events,
}

impl Stage {
    fn new(on_all_ips: bool) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let names: Arc<Mutex<BTreeMap<String, Behind>>> = Arc::default();
        let waiting: Arc<Mutex<Vec<Lookup>>> = Arc::default();
        let (known, unanswered) = (Arc::clone(&names), Arc::clone(&waiting));
        let start = move |lookup: Lookup| {
            match known.lock().unwrap().get(&lookup.host).cloned() {
                Some(Behind::Addresses(all)) => lookup.answer(Ok(places(&all))),
                Some(Behind::Silence) => unanswered.lock().unwrap().push(lookup),
                Some(Behind::NoThread) => return Err(io::Error::other("no thread")),
                _ => lookup.answer(Err(io::Error::other("no such name"))),
            }
            Ok(())
        };
        let names_of_port = Names::new(waker, Box::new(start));
        let registry = poll.registry().try_clone().unwrap();
        Self {
            port: LeaderPort::new(registry, Token(1), names_of_port, on_all_ips, PATIENCE),
            now: Duration::from_secs(1000),
            names,
            waiting,
            words: Vec::new(),
            poll,
            events: Events::with_capacity(16),
        }
    }

    fn name(&self, name: &str, behind: Behind) {
        self.names.lock().unwrap().insert(name.into(), behind);
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

    /// Looks until this is said, in no time; forgets everything that was said.
    #[track_caller]
    fn await_word(&mut self, what: &str, is_it: impl Fn(&Word) -> bool) -> Word {
        let mut found = None;
        eventually(what, || {
            self.look();
            let at = self.words.iter().position(&is_it);
            found = at.map(|at| self.words.swap_remove(at));
            found.is_some()
        });
        self.words.clear();
        found.unwrap()
    }

    #[track_caller]
    fn await_reached(&mut self) {
        self.await_word("it is reached", |word| *word == Word::Reached);
    }

    #[track_caller]
    fn await_trouble(&mut self, of: &str) {
        let is_it = |word: &Word| matches!(word, Word::Trouble(why) if why.contains(of));
        self.await_word("it is told what is wrong", is_it);
    }

    /// Lets time pass, as far as anything is to be done in it, and gives whether the leader was given up.
    fn pass(&mut self, time: Duration) -> bool {
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
        self.words.iter().any(|word| matches!(word, Word::Gone(_)))
    }

    /// Looks until the kernel has nothing new. What it does on loopback, it has done before the call returns.
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

fn places(ips: &[&str]) -> Vec<SocketAddr> {
    let place = |ip: &&str| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 0);
    ips.iter().map(place).collect()
}

fn listening_at(word: &Word, at: &str) -> bool {
    matches!(word, Word::Listening(place) if place.to_string() == at)
}

/// A port that is kept from everybody else, at all addresses of loopback.
fn vacant() -> (Vacant, u16) {
    let vacant = Vacant::new();
    let at: SocketAddr = vacant.address.parse().unwrap();
    (vacant, at.port())
}

#[test]
fn a_leader_listens_at_all_addresses_of_its_name_each_failing_alone() {
    let (_vacant, port) = vacant();
    let mut stage = Stage::new(false);
    // The middle one is of no interface.
    let all = vec!["127.0.0.1", NOWHERE, "127.0.0.2"];
    stage.name("zk1", Behind::Addresses(all));
    stage.hold(&format!("zk1:{port}"));
    let opens = |at: String| move |word: &Word| listening_at(word, &at);
    let first = opens(format!("127.0.0.1:{port}"));
    stage.look();
    assert!(stage.words.iter().any(first), "{:?}", stage.words);
    let last = opens(format!("127.0.0.2:{port}"));
    assert!(stage.words.iter().any(last), "{:?}", stage.words);
    stage.await_trouble(NOWHERE);
    for ip in ["127.0.0.1", "127.0.0.2"] {
        TcpStream::connect((ip, port)).unwrap();
    }
    // It is tried again, and the same failure is not told again.
    stage.pass(Duration::from_secs(10));
    assert_eq!(stage.words, []);
    // As soon as it has the address, it listens there.
    stage.name("zk1", Behind::Addresses(vec!["127.0.0.1", "127.0.0.3"]));
    stage.pass(Duration::from_secs(3));
    TcpStream::connect(("127.0.0.3", port)).unwrap();
}

#[test]
fn a_leader_listens_on_all_ips_where_the_configuration_says_so() {
    for (own, expected) in [
        (NOWHERE, "0.0.0.0"),
        ("zk1", "[::]"),
        ("[2001:db8::1]", "[::]"),
    ] {
        let (_vacant, port) = vacant();
        let mut stage = Stage::new(true);
        stage.hold(&format!("{own}:{port}"));
        let at = match stage.await_word("it listens", |word| matches!(word, Word::Listening(_))) {
            Word::Listening(at) => at,
            other => panic!("{other:?}"),
        };
        // A machine without IPv6 has only the one kind.
        let has_v6 = TcpListener::bind("[::]:0").is_ok();
        let expected = if has_v6 { expected } else { "0.0.0.0" };
        assert_eq!(at.to_string(), format!("{expected}:{port}"));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

#[test]
fn a_lookup_that_is_not_answered_keeps_nobody_waiting() {
    let (_vacant, port) = vacant();
    let (leader, address) = support::listener();
    let leading = address.parse::<SocketAddr>().unwrap().port();
    let mut stage = Stage::new(false);
    stage.name("zk1", Behind::Silence);
    for _ in 0..3 {
        stage.hold(&format!("zk1:{port}"));
        stage.pass(Duration::from_secs(5));
        stage.watch(&[&format!("zk1:{leading}")]);
        assert!(!stage.pass(Duration::from_secs(5)), "{:?}", stage.words);
    }
    assert_eq!(stage.words, []);
    // One question at a time, however often it was asked.
    assert_eq!(stage.waiting.lock().unwrap().len(), 1);
    let lookup = stage.waiting.lock().unwrap().pop().unwrap();
    lookup.answer(Ok(places(&["127.0.0.1"])));
    stage.await_reached();
    drop(leader);
    // What is known is used while nobody answers.
    stage.hold(&format!("zk1:{port}"));
    let at = format!("127.0.0.1:{port}");
    stage.await_word("it listens", |word| listening_at(word, &at));
}

#[test]
fn a_follower_tries_all_addresses_of_the_leaders_name() {
    let (leader, address) = support::listener();
    let port = address.parse::<SocketAddr>().unwrap().port();
    // Nobody listens at the first one, the second one is on no interface, and the third one is right.
    let names = [vec!["127.0.0.9", "::1", "127.0.0.1"], vec!["127.0.0.1"]];
    for all in names {
        let mut stage = Stage::new(false);
        stage.name("zk3", Behind::Addresses(all));
        stage.watch(&[&format!("zk3:{port}")]);
        stage.await_reached();
    }
    // The same with several addresses in the configuration, one of them unknown.
    let mut stage = Stage::new(false);
    let all = [format!("zk4:{port}"), format!("127.0.0.9:{port}"), address];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    stage.watch(&all);
    stage.await_reached();
    drop(leader);
}

#[test]
fn a_leader_that_was_never_reached_is_given_up_after_some_tries() {
    let (_vacant, port) = vacant();
    let mut stage = Stage::new(false);
    stage.name("zk3", Behind::Addresses(vec!["127.0.0.1", "127.0.0.2"]));
    stage.watch(&[&format!("zk3:{port}")]);
    assert!(!stage.pass(Duration::from_millis(500)), "{:?}", stage.words);
    assert!(stage.pass(Duration::from_millis(500)), "{:?}", stage.words);
    assert_eq!(stage.port.deadline(), None);
}

#[test]
fn what_is_wrong_on_this_side_is_told_and_is_not_the_leaders_end() {
    let (_leader, address) = support::listener();
    let port = address.parse::<SocketAddr>().unwrap().port();
    for (behind, what) in [
        (Behind::NoThread, "no thread"),
        (Behind::Nothing, "no such name"),
    ] {
        let mut stage = Stage::new(false);
        stage.name("zk3", behind.clone());
        stage.watch(&[&format!("zk3:{port}")]);
        stage.await_trouble(what);
        // Tried again and again, and told once.
        assert!(!stage.pass(Duration::from_secs(100)));
        assert_eq!(stage.words, []);
        stage.name("zk3", Behind::Addresses(vec!["127.0.0.1"]));
        stage.pass(Duration::from_secs(2));
        assert!(stage.words.contains(&Word::Reached), "{:?}", stage.words);

        let mut stage = Stage::new(false);
        stage.name("zk1", behind);
        let (_vacant, port) = vacant();
        stage.hold(&format!("zk1:{port}"));
        stage.await_trouble(what);
        stage.name("zk1", Behind::Addresses(vec!["127.0.0.1"]));
        stage.pass(Duration::from_secs(3));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

#[test]
fn a_leader_that_was_reached_and_closes_its_port_is_gone() {
    let (leader, address) = support::listener();
    let mut stage = Stage::new(false);
    stage.watch(&[&address]);
    stage.await_reached();
    let (follower, _) = leader.accept().unwrap();
    stage.now += PATIENCE;
    // It hangs up, and is there all the same.
    drop(follower);
    stage.await_reached();
    let (follower, _) = leader.accept().unwrap();
    stage.now += PATIENCE;
    drop(leader);
    drop(follower);
    stage.await_word("it is gone", |word| matches!(word, Word::Gone(_)));
}

#[test]
fn a_leader_that_hangs_up_at_once_is_left_alone_for_longer_each_time() {
    let (leader, address) = support::listener();
    let mut stage = Stage::new(false);
    stage.watch(&[&address]);
    stage.await_reached();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        drop(leader.accept().unwrap());
        let now = stage.now;
        eventually("it has noticed", || {
            stage.look();
            let next = stage.port.deadline();
            next.is_some_and(|at| at > now && at != now + PATIENCE / 3)
        });
        pauses.push((stage.port.deadline().unwrap() - now).as_secs());
        stage.now = stage.port.deadline().unwrap();
        stage.await_reached();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

/// All that has come.
fn drain(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    all
}

#[test]
fn a_watched_leader_hears_something_in_time_and_never_a_whole_packet() {
    let (leader, address) = support::listener();
    let mut stage = Stage::new(false);
    stage.watch(&[&address]);
    stage.await_reached();
    let (mut follower, _) = leader.accept().unwrap();
    let mut heard = Vec::new();
    eventually("a packet begins", || {
        heard.extend(drain(&mut follower));
        heard.len() >= 16
    });
    let length = u32::from_be_bytes(heard[12..16].try_into().unwrap()) as usize;
    // A real server believes this much.
    assert!((1..1 << 20).contains(&length));
    // `FOLLOWERINFO`, or it would complain.
    assert_eq!(heard[..4], 11_i32.to_be_bytes());
    let before = heard.len();
    for _ in 0..10 {
        stage.pass(PATIENCE / 2);
        stage.look();
    }
    heard.extend(drain(&mut follower));
    assert!(heard.len() >= before + 10, "too little: {}", heard.len());
    assert!(!stage.words.contains(&Word::Reached), "it has come again");
    // For ever, but not with the same connection.
    let has_come_again = (0..200).any(|_| {
        stage.pass(PATIENCE * 200);
        heard.extend(drain(&mut follower));
        stage.words.contains(&Word::Reached)
    });
    assert!(has_come_again, "{} bytes on one connection", heard.len());
    let whole = 16 + length;
    assert!(heard.len() < whole, "{} bytes are a packet", heard.len());
}

#[test]
fn a_leader_holds_some_followers_and_closes_the_oldest() {
    let (_vacant, port) = vacant();
    let mut stage = Stage::new(false);
    stage.hold(&format!("127.0.0.1:{port}"));
    stage.look();
    let come = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"not listened to").unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    let mut followers: Vec<TcpStream> = Vec::new();
    for nth in 0..100 {
        followers.push(come(nth));
        stage.look();
    }
    // It reads nothing, so that the kernel resets what it closes.
    let is_closed = |follower: &mut TcpStream| !matches!(follower.read(&mut [0]), Ok(1..));
    assert!(followers[..100 - 64].iter_mut().all(is_closed));
    let last = followers.last_mut().unwrap();
    last.set_nonblocking(true).unwrap();
    let read = last.read(&mut [0]).unwrap_err();
    assert_eq!(read.kind(), io::ErrorKind::WouldBlock);
}
