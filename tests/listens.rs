//! Where a server listens: names with several addresses, sockets that cannot be bound, and sockets that cannot accept.
//!
//! The network is simulated: the test decides what each name means, which call fails, and when time passes.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    mem,
    net::{IpAddr, SocketAddr},
    slice,
    time::Duration,
};

use quorum_cnx::{
    Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, InitialMessageVersion,
    Listening, Sid,
    simulation::limits,
    simulation::{Call, Host, HostNet, Network},
};

const OWN: i64 = 5;
const SMALLER: i64 = 1;

/// More failures than calls of any test.
const FOREVER: usize = 1000;

/// The events, and the state of the listening sockets at each of them.
#[derive(Debug, Default)]
struct Recorder(Vec<(Event, Vec<Listening>)>);

impl Handler for Recorder {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.0.push((event.clone(), handle.listening()));
    }
}

struct World {
    network: Network,
    host: Host,
    event_loop: EventLoop<Recorder, HostNet>,
}

impl World {
    /// A server with these own addresses, and a smaller one that it dials.
    fn with(own: &str, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        Self::on(own, &[], shape)
    }

    /// The same, on a host that does not have these addresses.
    fn on(own: &str, foreign: &[&str], shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let builder = Config::builder(Sid(OWN))
            .server(Sid(OWN), own)
            .server(Sid(SMALLER), "10.9.0.1:4000");
        Self::start(shape(builder), foreign)
    }

    fn start(builder: ConfigBuilder, foreign: &[&str]) -> Self {
        let network = Network::new();
        network.hold_lookups();
        let host = network.host([10, 0, 0, 50]);
        for n in 1..=30 {
            host.add_ip([10, 0, 0, n]);
        }
        for ip in ["127.0.0.1", "::1", "fd00::5", "fd00::6", "10.0.0.77"] {
            host.add_ip(ip.parse::<IpAddr>().unwrap());
        }
        for ip in foreign {
            host.remove_ip(ip.parse::<IpAddr>().unwrap());
        }
        let config = builder.build().unwrap();
        let event_loop = EventLoop::with_net(config, Recorder::default(), host.net()).unwrap();
        let mut world = Self {
            network,
            host,
            event_loop,
        };
        world.settle();
        world
    }

    /// The host gets an address.
    fn add_ip(&self, ip: &str) {
        self.host.add_ip(ip.parse::<IpAddr>().unwrap());
    }

    fn settle(&mut self) {
        let loops = slice::from_mut(&mut self.event_loop);
        self.network.settle(loops).unwrap();
    }

    fn turn(&mut self) {
        assert!(self.event_loop.turn(Some(Duration::ZERO)).unwrap());
    }

    fn pass(&mut self, time: Duration) {
        let loops = slice::from_mut(&mut self.event_loop);
        self.network.run(loops, time).unwrap();
        self.settle();
    }

    /// Answers all lookups with these addresses. Returns how many lookups there were.
    fn answer(&mut self, addresses: &[&str]) -> usize {
        let addresses = addresses.iter().map(|ip| ip.parse::<IpAddr>().unwrap());
        self.answer_with(Ok(addresses.collect()))
    }

    fn answer_with(&mut self, answer: Result<Vec<IpAddr>, &str>) -> usize {
        let names = self.network.waiting_lookups();
        for name in &names {
            match &answer {
                Ok(addresses) => self.network.set_name(name, addresses.clone()),
                Err(message) => self.network.fail_name(name, message),
            }
            self.network.answer_lookups(name);
        }
        self.settle();
        names.len()
    }

    /// The addresses at which the server listens.
    fn bound(&self) -> BTreeSet<String> {
        let bound = self.host.listening();
        bound.iter().map(ToString::to_string).collect()
    }

    /// How often the server has tried to bind a socket.
    fn tries(&self) -> u64 {
        self.host.calls(Call::Listen)
    }

    fn accepts(&self) -> u64 {
        self.host.calls(Call::Accept)
    }

    /// This many connections arrive at each listening socket.
    fn arrive(&self, connections: u16) {
        for at in self.host.listening() {
            for port in 1..=connections {
                let from = SocketAddr::from(([10, 9, 9, 9], port));
                self.network.connect(from, at).unwrap();
            }
        }
    }

    /// How many connections wait at each listening socket.
    fn backlogs(&self) -> Vec<usize> {
        let listening = self.host.listening();
        let backlog = |at| self.host.backlog(at);
        listening.into_iter().map(backlog).collect()
    }

    /// The next calls of `accept` fail.
    fn fail_accepts(&self, calls: usize, error: ErrorKind) {
        for _ in 0..calls {
            self.host.fail_next(Call::Accept, error.into());
        }
    }

    fn listening(&self) -> Vec<Listening> {
        self.event_loop.handle().listening()
    }

    /// The events since the last call.
    fn events(&mut self) -> Vec<(Event, Vec<Listening>)> {
        mem::take(&mut self.event_loop.handler_mut().0)
    }

    /// The failures to listen since the last call: the address, and the reason.
    fn failures(&mut self) -> Vec<(String, String)> {
        let failure = |(event, _): (Event, _)| match event {
            Event::ListenFailed { address, error, .. } => Some((address.to_string(), error)),
            _ => None,
        };
        self.events().into_iter().filter_map(failure).collect()
    }

    /// The own addresses in the initial message of the server.
    fn advertised(&mut self) -> String {
        let end = self.network.take_dials().remove(0);
        end.accept().unwrap();
        self.settle();
        let initial_message = end.received();
        // The version, the sid and the length come before the addresses. A bare sid has none.
        let addresses = initial_message.get(20..).unwrap_or_default();
        assert_eq!(initial_message.len() == 8, addresses.is_empty());
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
    let reported = world
        .events()
        .into_iter()
        .filter_map(|(event, state)| match event {
            Event::Listening { addr, .. } => Some((Listening::Open(addr), state)),
            _ => None,
        });
    let reported: Vec<_> = reported.collect();
    assert_eq!(
        reported,
        both.map(|one| (
            one.clone(),
            vec![open("[::1]:3888"), open("127.0.0.1:3888")]
        ))
    );
}

#[test]
fn an_address_that_cannot_be_bound_does_not_affect_others() {
    // As in a container without IPv6 whose file `hosts` has `::1`.
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
    // A failure for a short time ends soon.
    world.add_ip("::1");
    world.pass(limits::LISTEN_PAUSE);
    world.answer(&["::1", "127.0.0.1"]);
    let both = [open("[::1]:3888"), open("127.0.0.1:3888")];
    assert_eq!(world.listening(), both);
    // A failure for a long time is reported once, and is followed by few tries.
    let mut world = World::on("both.example:3888", &["::1"], |builder| builder);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(world.failures().len(), 1);
    for _ in 0..10 {
        world.pass(limits::LISTEN_LOOKUP_PAUSE);
        world.answer(&["::1", "127.0.0.1"]);
    }
    assert_eq!(world.failures(), []);
    assert!(world.tries() <= 20);
    // The address is still tried.
    world.add_ip("::1");
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["::1", "127.0.0.1"]);
    assert_eq!(world.listening(), both);
}

#[test]
fn a_name_with_one_open_address_is_not_lost() {
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
    assert_eq!(world.tries(), 6);
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
    assert_eq!(world.tries(), 6, "the name is given up");
    // The loop continues, and dials the other server.
    let dial = world.network.take_dials().pop().unwrap();
    dial.accept().unwrap();
    world.settle();
    let handle = world.event_loop.handle();
    assert!(handle.connected_to_peer(Sid(SMALLER)));
}

#[test]
fn listening_is_retried_forever_unless_zoo_cfg_limits_it() {
    let own = "server.5=10.0.0.5:2888:3888\n";
    let zoo = |retry: &str| Config::from_zoo_cfg(&format!("{own}{retry}"), Sid(OWN)).unwrap();
    let builder = Config::builder(Sid(OWN)).server(Sid(OWN), "10.0.0.5:3888");
    for (builder, tries) in [
        (zoo(""), Some(limits::LISTEN_TRIES)),
        (zoo("electionPortBindRetry=7\n"), Some(7)),
        (zoo("electionPortBindRetry=0\n"), None),
        (builder, None),
    ] {
        let mut world = World::start(builder, &["10.0.0.5"]);
        world.pass(Duration::from_secs(3600));
        let failures = u32::try_from(world.failures().len()).unwrap();
        assert!(tries.map_or(failures >= 3600, |tries| failures == tries));
        world.add_ip("10.0.0.5");
        world.pass(Duration::from_secs(1));
        let is_open = world.listening() == [open("10.0.0.5:3888")];
        assert_eq!(is_open, tries.is_none());
    }
}

#[test]
fn a_name_is_looked_up_again_for_each_try() {
    // The address of the host that had the name before.
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
    // No listening socket is closed when a name has fewer addresses for a while.
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["fd00::6"]);
    assert_eq!(world.listening().len(), 3);
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer_with(Err("no name server"));
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
    // Later addresses share it too.
    world.pass(limits::LISTEN_LOOKUP_PAUSE);
    world.answer(&["::1", "127.0.0.1", "10.0.0.5"]);
    assert_eq!(world.listening()[2], open("10.0.0.5:50001"));
}

#[test]
fn addresses_covered_by_a_wildcard_need_no_socket() {
    let mut world = World::with("all.example:3888", |builder| builder);
    world.answer(&["127.0.0.1", "::", "0.0.0.0"]);
    assert_eq!(world.listening(), [open("[::]:3888")]);
    let mut world = World::with("all.example:3888", |builder| builder);
    world.answer(&["127.0.0.1", "0.0.0.0", "::1"]);
    assert_eq!(world.bound(), set(&["0.0.0.0:3888", "[::1]:3888"]));
    // The order of the addresses makes no difference.
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
    let addresses: Vec<IpAddr> = (1..=10_000_u32)
        .map(|n| IpAddr::from((n | 10 << 24).to_be_bytes()))
        .collect();
    // The host has those that are tried.
    for ip in addresses
        .chunks(100)
        .flat_map(|some| &some[..limits::NAME_ADDRESSES_MAX])
    {
        world.host.add_ip(*ip);
    }
    world.answer_with(Ok(addresses.clone()));
    assert_eq!(world.listening().len(), limits::NAME_ADDRESSES_MAX);
    for n in 0..5 {
        world.pass(limits::LISTEN_LOOKUP_PAUSE);
        world.answer_with(Ok(addresses[100 * n..].to_vec()));
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
fn resolver_errors_of_an_own_name_are_reported() {
    let mut world = World::with("nobody.example:3888", |builder| builder);
    world.answer_with(Err("Temporary failure in name resolution"));
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
fn accepting_is_fair_among_listening_sockets() {
    let own: Vec<String> = (1..=30).map(|n| format!("10.0.0.{n}:3888")).collect();
    let mut world = World::with(&own.join("|"), |builder| builder.pending_max(64));
    // More than are accepted at all until each socket has been served.
    let connections = 300;
    world.arrive(connections);
    let (before, mut turns) = (world.accepts(), 0);
    let is_served = |left: usize| left < usize::from(connections);
    while !world.backlogs().into_iter().all(is_served) {
        world.turn();
        turns += 1;
        let accepts = world.accepts() - before;
        assert!(accepts <= turns * limits::ACCEPTS_PER_TURN as u64);
        assert!(turns <= own.len() as u64);
    }
}

#[test]
fn own_addresses_are_advertised_with_their_ports() {
    for (own, listen_on, expected) in [
        // As configured: each address has a port of its own.
        ("10.0.0.5:0|10.0.0.6:0", "", "10.0.0.5:50001|10.0.0.6:50002"),
        ("10.0.0.5:0|10.0.0.5:0", "", "10.0.0.5:50001|10.0.0.5:50002"),
        // A wildcard tells nobody where to dial.
        ("0.0.0.0:0", "", ""),
        // On all addresses: one socket for each port.
        (
            "10.0.0.5:3888|10.0.0.6:0|10.0.0.7:0",
            "all",
            "10.0.0.5:3888|10.0.0.6:50001|10.0.0.7:50001",
        ),
        // On other addresses: an address without a listening socket is not advertised.
        ("10.0.0.5:0|10.0.0.6:3888", "10.0.0.9:0", "10.0.0.6:3888"),
        ("10.0.0.5:0|10.0.0.9:0", "10.0.0.9:0", "10.0.0.9:50001"),
        (
            "10.0.0.5:0|10.0.0.6:0",
            "10.0.0.6:0 10.0.0.5:0",
            "10.0.0.5:50002|10.0.0.6:50001",
        ),
        ("10.0.0.5:0", "10.0.0.9:3888 0.0.0.0:0", "10.0.0.5:50001"),
    ] {
        let mut world = World::with(own, |builder| {
            let builder = builder.initial_message(InitialMessageVersion::V2);
            match listen_on {
                "all" => builder.listen_on_all_ips(true),
                list => list
                    .split_whitespace()
                    .fold(builder, ConfigBuilder::listen_on),
            }
        });
        assert_eq!(world.advertised(), expected, "{own}, {listen_on:?}");
    }
}

#[test]
fn a_preopened_socket_is_advertised_with_its_port() {
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
    assert_eq!(world.advertised(), at.1);
    assert_eq!(with("10.0.0.5:0").advertised(), "");
}

#[test]
fn a_listener_that_always_fails_pauses() {
    for pending_max in [1, 4, 256] {
        for own in ["10.0.0.5:1", "10.0.0.5:1|10.0.0.6:1"] {
            let mut world = World::with(own, |builder| builder.pending_max(pending_max));
            world.fail_accepts(FOREVER, ErrorKind::InvalidInput);
            world.arrive(1);
            let (before, sockets) = (world.accepts(), world.backlogs().len() as u64);
            world.events();
            world.pass(Duration::from_secs(10));
            let accepts = world.accepts() - before;
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
            let stats = world.event_loop.handle().stats();
            assert_eq!(stats.accept_failures, accepts);
            // The connections that wait are accepted when `accept` works again.
            world.host.clear_failures();
            world.pass(limits::ACCEPT_PAUSE_MAX);
            assert!(world.backlogs().iter().all(|waiting| *waiting == 0));
        }
    }
}

#[test]
fn aborted_connections_do_not_delay_others() {
    let mut world = World::with("10.0.0.5:1", |builder| builder);
    world.fail_accepts(1000, ErrorKind::ConnectionAborted);
    world.arrive(1);
    world.events();
    let mut turns = 0;
    while world.backlogs() != [0] {
        world.turn();
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
