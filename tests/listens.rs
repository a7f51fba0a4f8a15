//! Where a server listens, on a network in memory: what each name means, what the system refuses, and the time are the
//! test's own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind, IoSlice},
    mem,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, InitialMessageVersion,
    Listening, Sid, limits,
    simulation::{Found, Net, Ready, Stream, Waker, Wire},
};

const OWN: i64 = 5;
const SMALLER: i64 = 1;

/// One end of a connection, and what the loop wrote there.
#[derive(Clone, Debug, Default)]
struct End(Arc<Mutex<Vec<u8>>>);

impl Wire for End {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap();
        let before = written.len();
        bufs.iter().for_each(|buf| written.extend_from_slice(buf));
        Ok(written.len() - before)
    }
}

impl Stream for End {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
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

/// The machine of the server.
#[derive(Debug)]
struct Machine {
    now: Instant,
    ready: Vec<Ready>,
    /// Addresses that are none of this machine.
    foreign: BTreeSet<IpAddr>,
    /// The listening sockets, by number.
    bound: BTreeMap<usize, SocketAddr>,
    /// Tries to bind, in order.
    tried: Vec<SocketAddr>,
    next_port: u16,
    /// Connections that wait at each listening socket.
    waiting: BTreeMap<usize, usize>,
    /// Listening sockets at which every `accept` fails.
    broken: BTreeSet<usize>,
    /// Connections in front of those that wait, which were reset before they were accepted.
    aborted: usize,
    accepts: u64,
    asked: Vec<(u64, String)>,
    answers: VecDeque<Found>,
    dialed: Vec<End>,
}

impl Net for Machine {
    type Stream = End;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.append(&mut self.ready);
        Ok(())
    }

    fn listen(&mut self, listener: usize, mut at: SocketAddr) -> io::Result<SocketAddr> {
        self.tried.push(at);
        if self.foreign.contains(&at.ip()) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        if at.port() == 0 {
            self.next_port += 1;
            at.set_port(self.next_port);
        }
        // As Linux does: a wildcard takes all addresses of its kind, `::` those of both.
        let takes = |one: &SocketAddr, other: &SocketAddr| {
            one.ip() == other.ip()
                || one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4())
        };
        let is_taken = |other: &SocketAddr| {
            other.port() == at.port() && (takes(other, &at) || takes(&at, other))
        };
        if self.bound.values().any(is_taken) {
            return Err(ErrorKind::AddrInUse.into());
        }
        assert_eq!(self.bound.insert(listener, at), None, "its number is taken");
        Ok(at)
    }

    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr> {
        let at = bound.local_addr()?;
        self.bound.insert(listener, at);
        Ok(at)
    }

    fn accept(&mut self, listener: usize) -> io::Result<(End, SocketAddr)> {
        self.accepts += 1;
        if self.broken.contains(&listener) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if self.aborted > 0 {
            self.aborted -= 1;
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match self.waiting.get_mut(&listener) {
            Some(waiting) if *waiting > 0 => {
                *waiting -= 1;
                Ok((End::default(), "10.9.9.9:9".parse().unwrap()))
            }
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn close_listeners(&mut self) {}

    fn dial(&mut self, _: SocketAddr) -> io::Result<End> {
        let end = End::default();
        self.dialed.push(end.clone());
        Ok(end)
    }

    fn watch(&mut self, _: &End, token: usize) -> io::Result<()> {
        self.ready.push(Ready::Connection {
            token,
            readable: false,
            writable: true,
            ended: false,
        });
        Ok(())
    }

    fn unwatch(&mut self, _: &End) {}

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.asked.push((lookup_id, host.to_owned()));
    }

    fn found(&mut self) -> Option<Found> {
        self.answers.pop_front()
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }
}

/// The events, and the state of the listening sockets at each of them.
#[derive(Debug, Default)]
struct Recorder(Vec<(Event, Vec<Listening>)>);

impl Handler for Recorder {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.0.push((event.clone(), handle.listening()));
    }
}

struct World(EventLoop<Recorder, Machine>);

impl World {
    /// A server with these own addresses, and a smaller one that it dials.
    fn with(own: &str, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        Self::on(own, &[], shape)
    }

    /// The same, on a machine that does not have these addresses.
    fn on(own: &str, foreign: &[&str], shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let builder = Config::builder(Sid(OWN))
            .server(Sid(OWN), own)
            .server(Sid(SMALLER), "10.0.0.1:4000");
        Self::of(shape(builder), foreign)
    }

    fn of(builder: ConfigBuilder, foreign: &[&str]) -> Self {
        let machine = Machine {
            now: Instant::now(),
            ready: Vec::new(),
            foreign: foreign.iter().map(|ip| ip.parse().unwrap()).collect(),
            bound: BTreeMap::new(),
            tried: Vec::new(),
            next_port: 50_000,
            waiting: BTreeMap::new(),
            broken: BTreeSet::new(),
            aborted: 0,
            accepts: 0,
            asked: Vec::new(),
            answers: VecDeque::new(),
            dialed: Vec::new(),
        };
        let config = builder.build().unwrap();
        let mut world =
            Self(EventLoop::with_net(config, Recorder::default(), machine).expect("it starts"));
        world.go_on();
        world
    }

    fn machine(&mut self) -> &mut Machine {
        self.0.net()
    }

    /// More turns than anything here takes.
    fn go_on(&mut self) {
        for _ in 0..8 {
            assert!(self.0.turn(Some(Duration::ZERO)).unwrap());
        }
    }

    /// Lets the time pass that the loop would wait for.
    fn pass(&mut self, time: Duration) {
        let until = self.machine().now + time;
        while let Some(wait) = self.0.timeout() {
            let wait = wait.max(Duration::from_millis(1));
            if self.machine().now + wait > until {
                break;
            }
            self.machine().now += wait;
            assert!(self.0.turn(Some(Duration::ZERO)).unwrap());
        }
        self.machine().now = until;
        self.go_on();
    }

    /// All lookups under way are answered like this. Returns how many there were.
    fn answer(&mut self, addresses: &[&str]) -> usize {
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect();
        self.answer_with(|| Ok(addresses.clone()))
    }

    fn answer_with(&mut self, answer: impl Fn() -> io::Result<Vec<SocketAddr>>) -> usize {
        let machine = self.machine();
        let asked = mem::take(&mut machine.asked);
        for (lookup_id, _) in &asked {
            let answer = answer();
            machine.answers.push_back(Found {
                lookup_id: *lookup_id,
                answer,
            });
        }
        machine.ready.push(Ready::Waker);
        self.go_on();
        asked.len()
    }

    fn bound(&mut self) -> BTreeSet<String> {
        let bound = self.machine().bound.values();
        bound.map(ToString::to_string).collect()
    }

    fn listening(&self) -> Vec<Listening> {
        self.0.handle().listening()
    }

    /// The events since the last call.
    fn events(&mut self) -> Vec<(Event, Vec<Listening>)> {
        mem::take(&mut self.0.handler_mut().0)
    }

    /// The failures to listen since the last call: where, and why.
    fn failures(&mut self) -> Vec<(String, String)> {
        let failure = |(event, _): (Event, _)| match event {
            Event::ListenFailed { address, error, .. } => Some((address.to_string(), error)),
            _ => None,
        };
        self.events().into_iter().filter_map(failure).collect()
    }

    /// The own addresses that the loop has named to whom it dialed.
    fn introduction(&mut self) -> String {
        let said = self.machine().dialed[0].0.lock().unwrap();
        // The version, the sid and the length come before them; a bare sid has none.
        let addresses = said.get(20..).unwrap_or_default();
        String::from_utf8(addresses.to_vec()).unwrap()
    }
}

fn open(at: &str) -> Listening {
    Listening::Open(at.parse().unwrap())
}

fn trying(at: &str) -> Listening {
    Listening::Trying(at.parse().unwrap())
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn every_address_of_a_name_is_listened_on() {
    let mut world = World::with("both.example:3888", |builder| builder);
    assert_eq!(world.listening(), [trying("both.example:3888")]);
    assert_eq!(world.answer(&["::1", "127.0.0.1"]), 1);
    assert_eq!(world.bound(), set(&["[::1]:3888", "127.0.0.1:3888"]));
    let both = [open("[::1]:3888"), open("127.0.0.1:3888")];
    assert_eq!(world.listening(), both);
    let told = world
        .events()
        .into_iter()
        .filter_map(|(event, state)| match event {
            Event::Listening { addr, .. } => Some((Listening::Open(addr), state)),
            _ => None,
        });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        both.map(|one| (
            one.clone(),
            vec![open("[::1]:3888"), open("127.0.0.1:3888")]
        ))
    );
}

#[test]
fn an_address_that_cannot_be_bound_fails_alone() {
    // As in a container without IPv6 whose hosts file knows `::1`.
    let mut world = World::on("both.example:3888", &["::1"], |builder| builder);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(world.bound(), set(&["127.0.0.1:3888"]));
    assert_eq!(
        world.listening(),
        [trying("[::1]:3888"), open("127.0.0.1:3888")]
    );
    let failures = world.failures();
    assert_eq!(failures.len(), 1);
    let (at, why) = &failures[0];
    assert_eq!(at, "[::1]:3888");
    assert!(why.contains("both.example"), "{why}");
    // A short trouble is soon over.
    world.machine().foreign.clear();
    world.pass(limits::LISTEN_PAUSE);
    world.answer(&["::1", "127.0.0.1"]);
    let both = [open("[::1]:3888"), open("127.0.0.1:3888")];
    assert_eq!(world.listening(), both);
    // A long one is told once and costs little.
    let mut world = World::on("both.example:3888", &["::1"], |builder| builder);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(world.failures().len(), 1);
    for _ in 0..10 {
        world.pass(limits::LISTEN_LOOKUP_PAUSE);
        world.answer(&["::1", "127.0.0.1"]);
    }
    assert_eq!(world.failures(), []);
    assert!(world.machine().tried.len() <= 20);
    // It is tried again all the same.
    world.machine().foreign.clear();
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(world.listening(), both);
}

#[test]
fn one_address_is_enough_for_a_few_tries() {
    let mut world = World::on("both.example:3888", &["::1"], |builder| {
        builder.listen_tries(3)
    });
    for _ in 0..10 {
        world.answer(&["::1", "127.0.0.1"]);
        world.pass(limits::LISTEN_LOOKUP_PAUSE);
    }
    let lost = |(event, _): &(Event, _)| matches!(event, Event::ListenerLost { .. });
    assert!(!world.events().iter().any(lost));
    assert_eq!(
        world.listening(),
        [trying("[::1]:3888"), open("127.0.0.1:3888")]
    );
}

#[test]
fn tries_of_a_name_are_counted_together() {
    let mut world = World::on("both.example:3888", &["::1", "127.0.0.1"], |builder| {
        builder.listen_tries(3)
    });
    for _ in 0..3 {
        world.answer(&["::1", "127.0.0.1"]);
        world.pass(limits::LISTEN_PAUSE);
    }
    assert_eq!(world.machine().tried.len(), 6);
    let events = world.events();
    let lost: Vec<_> = events
        .iter()
        .filter_map(|(event, state)| match event {
            Event::ListenerLost { address, .. } => Some((address.to_string(), &state[..])),
            _ => None,
        })
        .collect();
    let state = [Listening::Lost("both.example:3888".parse().unwrap())];
    assert_eq!(lost, [("both.example:3888".to_owned(), &state[..])]);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.machine().tried.len(), 6, "it is given up");
}

#[test]
fn listening_is_tried_for_ever_unless_a_zoo_cfg_asks_for_less() {
    let own = "server.5=10.0.0.5:2888:3888\n";
    let zoo = |retry: &str| Config::from_zoo_cfg(&format!("{own}{retry}"), Sid(OWN)).unwrap();
    let builder = Config::builder(Sid(OWN)).server(Sid(OWN), "10.0.0.5:3888");
    for (builder, tries) in [
        (zoo(""), Some(limits::LISTEN_TRIES)),
        (zoo("electionPortBindRetry=7\n"), Some(7)),
        (zoo("electionPortBindRetry=0\n"), None),
        (builder, None),
    ] {
        let mut world = World::of(builder, &["10.0.0.5"]);
        world.pass(Duration::from_secs(3600));
        let failures = u32::try_from(world.failures().len()).unwrap();
        assert!(tries.map_or(failures >= 3600, |tries| failures == tries));
        world.machine().foreign.clear();
        world.pass(Duration::from_secs(1));
        let is_open = world.listening() == [open("10.0.0.5:3888")];
        assert_eq!(is_open, tries.is_none());
    }
}

#[test]
fn a_name_is_looked_up_again_for_each_try() {
    // The record of the machine that had the name before.
    let mut world = World::on("moved.example:3888", &["10.0.0.77"], |builder| builder);
    world.answer(&["10.0.0.77"]);
    assert_eq!(world.listening(), [trying("10.0.0.77:3888")]);
    world.pass(limits::LISTEN_PAUSE);
    assert_eq!(world.answer(&["10.0.0.5"]), 1);
    assert_eq!(world.listening(), [open("10.0.0.5:3888")]);
}

#[test]
fn an_address_that_appears_later_is_listened_on() {
    let mut world = World::with("late.example:3888", |builder| builder);
    world.answer(&["10.0.0.5"]);
    assert_eq!(world.listening(), [open("10.0.0.5:3888")]);
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    assert_eq!(world.answer(&["fd00::5", "10.0.0.5"]), 1);
    assert_eq!(
        world.listening(),
        [open("10.0.0.5:3888"), open("[fd00::5]:3888")]
    );
    // A name that means less for a while costs no listening socket.
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["fd00::6"]);
    assert_eq!(world.listening().len(), 3);
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer_with(|| Err(io::Error::other("no name server")));
    assert_eq!(world.listening().len(), 3);
}

#[test]
fn addresses_of_one_name_share_a_chosen_port() {
    let mut world = World::with("both.example:0", |builder| builder);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(
        world.listening(),
        [open("[::1]:50001"), open("127.0.0.1:50001")]
    );
    // And with the next ones.
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["::1", "127.0.0.1", "10.0.0.5"]);
    assert_eq!(world.listening()[2], open("10.0.0.5:50001"));
}

#[test]
fn what_a_wildcard_takes_needs_no_socket() {
    let mut world = World::with("all.example:3888", |builder| builder);
    world.answer(&["127.0.0.1", "::", "0.0.0.0"]);
    assert_eq!(world.listening(), [open("[::]:3888")]);
    let mut world = World::with("all.example:3888", |builder| builder);
    world.answer(&["127.0.0.1", "0.0.0.0", "::1"]);
    assert_eq!(world.bound(), set(&["0.0.0.0:3888", "[::1]:3888"]));
    // In the order in which they can be had.
    let mut world = World::with("10.0.0.5:3888|0.0.0.0:3888|[::]:3888", |builder| builder);
    assert_eq!(world.listening(), [open("[::]:3888")]);
    assert_eq!(world.failures(), []);
}

#[test]
fn an_address_with_two_names_is_listened_on_once() {
    let mut world = World::with("one.example:3888|10.0.0.5:3888|two.example:3888", |b| b);
    world.answer(&["10.0.0.5"]);
    assert_eq!(world.bound(), set(&["10.0.0.5:3888"]));
    assert_eq!(world.listening(), [open("10.0.0.5:3888")]);
    assert_eq!(world.failures(), []);
}

#[test]
fn a_name_with_thousands_of_addresses_has_few_sockets() {
    let mut world = World::with("everywhere.example:3888", |builder| builder);
    let addresses: Vec<SocketAddr> = (1..=10_000_u32)
        .map(|n| SocketAddr::new(IpAddr::from((n | 10 << 24).to_be_bytes()), 0))
        .collect();
    world.answer_with(|| Ok(addresses.clone()));
    assert_eq!(world.listening().len(), limits::NAME_ADDRESSES_MAX);
    for n in 0..5 {
        world.pass(limits::LISTEN_LOOKUP_PAUSE);
        world.answer_with(|| Ok(addresses[100 * n..].to_vec()));
    }
    assert_eq!(world.listening().len(), limits::NAME_ADDRESSES_MAX);
    let failures = world.failures();
    assert!(
        failures.iter().all(|(_, why)| why.contains("32 addresses")),
        "{failures:?}"
    );
    assert!(!failures.is_empty() && failures.len() <= 5 * limits::NAME_ADDRESSES_MAX);
}

#[test]
fn what_the_resolver_says_of_an_own_name_is_told() {
    let mut world = World::with("nobody.example:3888", |builder| builder);
    world.answer_with(|| Err(io::Error::other("Temporary failure in name resolution")));
    let failures = world.failures();
    assert_eq!(failures.len(), 1);
    let (at, why) = &failures[0];
    assert_eq!(at, "nobody.example:3888");
    assert!(
        why.contains("Temporary failure in name resolution"),
        "{why}"
    );
    assert_eq!(world.listening(), [trying("nobody.example:3888")]);
}

#[test]
fn all_listening_sockets_get_their_turn() {
    let own: Vec<String> = (1..=30).map(|n| format!("10.0.0.{n}:3888")).collect();
    let mut world = World::with(&own.join("|"), |builder| builder.pending_max(64));
    let machine = world.machine();
    let listeners: Vec<usize> = machine.bound.keys().copied().collect();
    for listener in &listeners {
        machine.waiting.insert(*listener, 1000);
        machine.ready.push(Ready::Listener(*listener));
    }
    let (before, mut turns) = (machine.accepts, 0);
    while world.machine().waiting.values().any(|left| *left == 1000) {
        world.0.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
        let accepts = world.machine().accepts - before;
        assert!(accepts <= turns * limits::ACCEPTS_PER_TURN as u64);
        assert!(turns <= listeners.len() as u64);
    }
}

#[test]
fn own_addresses_are_named_with_their_own_ports() {
    let name = |own: &str, shape: fn(ConfigBuilder) -> ConfigBuilder| {
        World::with(own, |builder| {
            shape(builder.initial_message(InitialMessageVersion::V2))
        })
        .introduction()
    };
    // As configured: each its own.
    assert_eq!(
        name("10.0.0.5:0|10.0.0.6:0", |b| b),
        "10.0.0.5:50001|10.0.0.6:50002"
    );
    assert_eq!(
        name("10.0.0.5:0|10.0.0.5:0", |b| b),
        "10.0.0.5:50001|10.0.0.5:50002"
    );
    // On all addresses: one socket for each port.
    assert_eq!(
        name("10.0.0.5:3888|10.0.0.6:0|10.0.0.7:0", |b| b
            .listen_on_all_ips(true)),
        "10.0.0.5:3888|10.0.0.6:50001|10.0.0.7:50001"
    );
    // Elsewhere: what is not listened on is not named.
    let elsewhere: fn(ConfigBuilder) -> ConfigBuilder = |b| b.listen_on("10.0.0.9:0");
    assert_eq!(name("10.0.0.5:0|10.0.0.6:3888", elsewhere), "10.0.0.6:3888");
    assert_eq!(name("10.0.0.5:0|10.0.0.9:0", elsewhere), "10.0.0.9:50001");
    let swapped: fn(ConfigBuilder) -> ConfigBuilder =
        |b| b.listen_on("10.0.0.6:0").listen_on("10.0.0.5:0");
    assert_eq!(
        name("10.0.0.5:0|10.0.0.6:0", swapped),
        "10.0.0.5:50002|10.0.0.6:50001"
    );
    let anywhere: fn(ConfigBuilder) -> ConfigBuilder =
        |b| b.listen_on("10.0.0.9:3888").listen_on("0.0.0.0:0");
    assert_eq!(name("10.0.0.5:0", anywhere), "10.0.0.5:50001");
}

#[test]
fn a_socket_that_was_handed_over_is_named_by_its_own_port() {
    let at = support::listener();
    let with = |own: &str| {
        let listener = at.0.try_clone().unwrap();
        World::with(own, |builder| {
            builder
                .initial_message(InitialMessageVersion::V2)
                .listener(listener)
        })
    };
    let mut world = with("10.0.0.5:0|127.0.0.1:0");
    assert_eq!(world.introduction(), at.1);
    assert_eq!(with("10.0.0.5:0").introduction(), "");
}

#[test]
fn a_listener_that_fails_for_ever_rests() {
    for pending_max in [1, 4, 256] {
        for own in ["10.0.0.5:1", "10.0.0.5:1|10.0.0.6:1"] {
            let mut world = World::with(own, |builder| builder.pending_max(pending_max));
            let machine = world.machine();
            let listeners: Vec<usize> = machine.bound.keys().copied().collect();
            for listener in &listeners {
                machine.broken.insert(*listener);
                machine.ready.push(Ready::Listener(*listener));
            }
            let (before, sockets) = (machine.accepts, listeners.len() as u64);
            world.events();
            world.pass(Duration::from_secs(10));
            let accepts = world.machine().accepts - before;
            assert!(
                accepts <= sockets * 13 * u64::from(limits::ACCEPT_ERRORS_MAX),
                "{accepts} calls in 10 s"
            );
            let failed = |(event, _): &(Event, _)| matches!(event, Event::AcceptFailed { .. });
            let events = world.events().iter().filter(|event| failed(event)).count() as u64;
            assert!(
                (sockets..=sockets * 11).contains(&events),
                "{events} events"
            );
            assert_eq!(world.0.handle().stats().accept_failures, accepts);
            // Whoever waits there is accepted when it works again.
            world.machine().broken.clear();
            for listener in listeners {
                world.machine().waiting.insert(listener, 1);
            }
            world.pass(limits::ACCEPT_PAUSE_MAX);
            assert!(world.machine().waiting.values().all(|left| *left == 0));
        }
    }
}

#[test]
fn connections_that_are_gone_keep_nobody_waiting() {
    let mut world = World::with("10.0.0.5:1", |builder| builder);
    let machine = world.machine();
    machine.aborted = 1000;
    machine.waiting.insert(0, 1);
    machine.ready.push(Ready::Listener(0));
    world.events();
    let mut turns = 0;
    while world.machine().waiting[&0] > 0 {
        world.0.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
        assert!(turns <= 1000 / limits::ACCEPTS_PER_TURN + 1);
    }
    world.pass(limits::ACCEPT_REPORT_PAUSE);
    let counts = world.events().into_iter().map(|(event, _)| match event {
        Event::AcceptFailed { count, .. } => count,
        _ => 0,
    });
    assert_eq!(
        counts.filter(|count| *count > 0).collect::<Vec<_>>(),
        [1, 999]
    );
}
