//! Native handshakes: who answers, and what both ends learn of a refusal, on a simulated network.
//!
//! The golden bytes are beside the grammar. Here the test writes them by hand where it is one of the two ends.

use std::{io::ErrorKind, slice, time::Duration};

use quorum_cnx::{
    Config, ConfigBuilder, ConfigError, Event, EventLoop, Frame, Handle, Handler,
    InitialMessageVersion, Leave, Reason, Refusal, Sid,
    simulation::{
        HostNet, Network, RemoteEnd,
        limits::{
            BACKOFF_MAX, CONTENDER_MARGIN, HANDSHAKE_TIMEOUT, PEER_DEAD_AFTER, RETIRING_MAX,
            SILENT_AFTER,
        },
    },
};

const SECOND: Duration = Duration::from_secs(1);
const CLUSTER: [u8; 16] = *b"the test cluster";

/// The frames and the events of a loop.
#[derive(Default)]
struct Recorder {
    frames: Vec<(Sid, Vec<u8>)>,
    events: Vec<Event>,
}

impl Handler for Recorder {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.frames.push((from, frame.to_vec()));
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.events.push(event.clone());
    }
}

type Server = EventLoop<Recorder, HostNet>;

/// The configuration of a server of a mesh of three. Server `n` has the address 10.0.0.n.
fn config(sid: i64) -> ConfigBuilder {
    let servers = (1..=3).map(|n| (Sid(n), format!("10.0.0.{n}:3888")));
    Config::builder(Sid(sid)).servers(servers)
}

fn native(sid: i64) -> ConfigBuilder {
    config(sid)
        .initial_message(InitialMessageVersion::Native)
        .cluster_id(CLUSTER)
}

/// Starts a server on the host 10.0.0.`host`.
fn start(network: &Network, host: u8, config: ConfigBuilder) -> Server {
    let net = network.host([10, 0, 0, host]).net();
    EventLoop::with_net(config.build().unwrap(), Recorder::default(), net).unwrap()
}

fn is_linked(server: &Server, sid: i64) -> bool {
    server.handle().connected_to_peer(Sid(sid))
}

fn restarts(server: &Server, of: i64) -> Vec<bool> {
    let restarted = |event: &Event| match event {
        Event::Up { sid, restarted, .. } if *sid == Sid(of) => Some(*restarted),
        _ => None,
    };
    server
        .handler()
        .events
        .iter()
        .filter_map(restarted)
        .collect()
}

/// Why connections to this peer failed, except that it had not started yet.
fn failures(server: &Server, of: i64) -> Vec<Reason> {
    let failure = |event: &Event| match event {
        Event::DialFailed { sid, reason, .. } if *sid == Sid(of) => {
            (*reason != Reason::Io(ErrorKind::ConnectionRefused)).then(|| reason.clone())
        }
        _ => None,
    };
    server.handler().events.iter().filter_map(failure).collect()
}

/// The claimed sids and the reasons of the connections that were refused.
fn rejections(server: &Server) -> Vec<(i64, Reason)> {
    let rejection = |event: &Event| match event {
        Event::Rejected { sid, reason, .. } => Some((sid.map_or(-1, |sid| sid.0), reason.clone())),
        _ => None,
    };
    server
        .handler()
        .events
        .iter()
        .filter_map(rejection)
        .collect()
}

/// Checks that this connection was refused at both ends, for these reasons and for no other.
#[track_caller]
fn assert_refused((dialer, to): (&Server, i64), acceptor: &Server, told: Refusal, reason: &Reason) {
    let failures = failures(dialer, to);
    assert!(!failures.is_empty());
    for failure in failures {
        assert_eq!(failure, Reason::Refused(told));
    }
    let refused: Vec<_> = rejections(acceptor)
        .into_iter()
        .filter(|(sid, _)| *sid == dialer.handle().sid().0)
        .collect();
    assert!(!refused.is_empty());
    for (_, refused) in refused {
        assert_eq!(&refused, reason);
    }
    assert!(!is_linked(dialer, to));
    assert_eq!(dialer.handle().stats().ups, 0);
    for server in [dialer, acceptor] {
        let stats = server.handle().stats();
        assert!(stats.balances(), "{stats:?}");
    }
}

/// The native initial message of a server that advertises no address.
fn initial_message(from: i64, to: i64, cluster: [u8; 16], incarnation: u64) -> Vec<u8> {
    let mut bytes = (-65_533_i64).to_be_bytes().to_vec();
    bytes.extend(from.to_be_bytes());
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(cluster);
    bytes.extend(incarnation.to_be_bytes());
    bytes.extend(CONTROLS.to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes
}

fn answer(sid: i64, incarnation: u64, code: i32) -> Vec<u8> {
    answer_with(CONTROLS, sid, incarnation, code)
}

fn answer_with(features: u64, sid: i64, incarnation: u64, code: i32) -> Vec<u8> {
    let mut bytes = (-65_533_i64).to_be_bytes().to_vec();
    bytes.extend(sid.to_be_bytes());
    bytes.extend(incarnation.to_be_bytes());
    bytes.extend(features.to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes
}

/// The feature of a server that understands control frames.
const CONTROLS: u64 = 1;

/// A ping (-1) or its answer (-2).
fn control(kind: i32, number: u64) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend(payload);
    bytes
}

/// One loop. The test is its peers.
struct World {
    network: Network,
    server: Server,
}

impl World {
    /// Server 2, of which servers 1 and 3 are dialed.
    fn new() -> Self {
        Self::with(native(2))
    }

    fn with(config: ConfigBuilder) -> Self {
        let network = Network::new();
        let server = start(&network, 2, config);
        let mut world = Self { network, server };
        world.settle();
        world
    }

    fn settle(&mut self) {
        self.network
            .settle(slice::from_mut(&mut self.server))
            .unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.network.advance(time);
        self.settle();
    }

    /// Completes the dial of this peer.
    fn accept_dial(&mut self, of: u8) -> RemoteEnd {
        let dials = self.network.take_dials();
        let is_it = |end: &&RemoteEnd| end.local_addr() == ([10, 0, 0, of], 3888).into();
        let end = dials.iter().find(is_it).expect("the peer is dialed");
        end.accept().unwrap();
        self.settle();
        end.clone()
    }

    fn send(&mut self, end: &RemoteEnd, bytes: &[u8]) {
        end.send(bytes).unwrap();
        self.settle();
    }

    /// A connection with this initial message arrives from there.
    fn arrive(&mut self, from: &str, initial_message: &[u8]) -> RemoteEnd {
        let to = "10.0.0.2:3888".parse().unwrap();
        let end = self.network.connect(from.parse().unwrap(), to).unwrap();
        self.send(&end, initial_message);
        end
    }

    fn is_linked(&self, sid: i64) -> bool {
        is_linked(&self.server, sid)
    }
}

#[test]
fn dialed_link_is_up_after_the_answer() {
    let mut world = World::new();
    let end = world.accept_dial(1);
    let sent = end.received();
    let text = b"10.0.0.2:3888";
    let incarnation: [u8; 8] = sent[44..52].try_into().unwrap();
    let mut expected = initial_message(2, 1, CLUSTER, u64::from_be_bytes(incarnation));
    expected[63] = text.len() as u8;
    expected.extend(text);
    assert_eq!(sent, expected);

    world.server.handle().to_send(Sid(1), "waits").unwrap();
    // The answer arrives byte by byte, and a frame follows it.
    let bytes = answer(1, 77, 0);
    for byte in &bytes[..bytes.len() - 1] {
        world.send(&end, slice::from_ref(byte));
        assert!(!world.is_linked(1));
    }
    assert_eq!(end.received(), expected, "no frame before the answer");
    let rest = [&bytes[bytes.len() - 1..], &frame(b"first")].concat();
    world.send(&end, &rest);
    assert!(world.is_linked(1));
    assert_eq!(world.server.handler().frames, [(Sid(1), b"first".to_vec())]);
    assert_eq!(end.received(), [expected, frame(b"waits")].concat());
    assert_eq!(restarts(&world.server, 1), [false]);
    let stats = world.server.handle().stats();
    assert_eq!(stats.peers[0].incarnation, Some(77));
    assert_eq!(stats.peers[1].incarnation, None);
    assert!(stats.balances(), "{stats:?}");
}

#[test]
fn accepted_link_is_answered_before_its_frames() {
    let mut world = World::new();
    world.server.handle().to_send(Sid(3), "waits").unwrap();
    let bytes = initial_message(3, 2, CLUSTER, 99);
    let end = world.arrive("10.0.0.3:40000", &bytes[..bytes.len() - 1]);
    assert_eq!(end.received(), b"");
    world.send(&end, &bytes[bytes.len() - 1..]);
    assert!(world.is_linked(3));
    let own = world.server.handle().stats().peers[1].incarnation;
    assert_eq!(own, Some(99));
    // The one loop of this network has the incarnation 1.
    let expected = [answer(2, 1, 0), frame(b"waits")].concat();
    assert_eq!(end.received(), expected);
}

#[test]
fn silent_acceptor_is_given_up() {
    let mut world = World::new();
    let dials = world.network.take_dials();
    let (of_link, of_knock) = (&dials[0], &dials[1]);
    of_link.accept().unwrap();
    of_knock.accept().unwrap();
    world.settle();
    world.pass(HANDSHAKE_TIMEOUT - SECOND);
    assert_eq!(failures(&world.server, 3), []);
    world.pass(SECOND);
    assert_eq!(failures(&world.server, 3), [Reason::HandshakeTimeout]);
    assert!(of_knock.was_reset(), "it must not arrive later");
    // The far end may wait for the end of an older link.
    let longer = PEER_DEAD_AFTER + 2 * CONTENDER_MARGIN;
    world.pass(longer - HANDSHAKE_TIMEOUT - SECOND);
    assert_eq!(failures(&world.server, 1), []);
    world.pass(SECOND);
    assert_eq!(failures(&world.server, 1), [Reason::HandshakeTimeout]);
    assert!(of_link.was_reset());
    world.pass(BACKOFF_MAX);
    assert!(!world.network.take_dials().is_empty(), "it is dialed again");
}

#[test]
fn acceptor_that_hangs_up_does_not_know_native_handshakes() {
    let mut world = World::new();
    let dials = world.network.take_dials();
    for end in &dials {
        end.accept().unwrap();
    }
    world.settle();
    dials[0].shutdown_write().unwrap();
    dials[1].reset();
    world.settle();
    for peer in [1, 3] {
        assert_eq!(failures(&world.server, peer), [Reason::ClosedAtOnce]);
    }
    assert_eq!(world.server.handle().stats().dial_failures, 2);
}

#[test]
fn other_servers_and_other_protocols_are_no_peers() {
    for (bytes, reason) in [
        (
            answer(3, 7, 0),
            Reason::Refused(Refusal::WrongServer(Sid(3))),
        ),
        (
            answer(3, 7, 2),
            Reason::Refused(Refusal::WrongServer(Sid(3))),
        ),
        (answer(1, 7, 4), Reason::Refused(Refusal::UnknownSid)),
        (answer(1, 7, 999), Reason::Refused(Refusal::Other)),
        (
            b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(),
            Reason::BadAnswer(i64::from_be_bytes(*b"SSH-2.0-")),
        ),
    ] {
        let mut world = World::new();
        let end = world.accept_dial(1);
        world.send(&end, &bytes);
        assert_eq!(failures(&world.server, 1), [reason]);
        assert!(!world.is_linked(1) && end.is_closed());
    }
}

#[test]
fn refused_dial_goes_on_with_the_next_address() {
    let network = Network::new();
    let config = Config::builder(Sid(2))
        .initial_message(InitialMessageVersion::Native)
        .server(Sid(1), "10.0.0.9:3888|10.0.0.1:3888")
        .server(Sid(2), "10.0.0.2:3888");
    let server = start(&network, 2, config);
    let mut world = World { network, server };
    world.settle();
    let wrong = world.accept_dial(9);
    world.send(&wrong, &answer(7, 7, 2));
    let right = world.accept_dial(1);
    world.send(&right, &answer(1, 7, 0));
    assert!(world.is_linked(1));
    assert_eq!(failures(&world.server, 1), []);
}

/// Server 2 has moved away, and another server has its address. That one is dialed by servers with larger sids, and knocked at by
/// servers with smaller ones.
#[test]
fn wrong_server_is_refused_at_both_ends() {
    let network = Network::new();
    let moved = |sid| {
        Config::builder(Sid(sid))
            .initial_message(InitialMessageVersion::Native)
            .server(Sid(sid), "10.0.0.2:3888")
    };
    let elsewhere = |sid| {
        Config::builder(Sid(sid))
            .initial_message(InitialMessageVersion::Native)
            .server(Sid(sid), format!("10.0.0.{sid}:3888"))
            .server(Sid(2), "10.0.0.2:3888")
    };
    let mut servers = [
        start(&network, 1, elsewhere(1)),
        start(&network, 2, moved(7)),
        start(&network, 3, elsewhere(3)),
    ];
    network.run(&mut servers, 5 * SECOND).unwrap();
    let told = Refusal::WrongServer(Sid(7));
    for dialer in [0, 2] {
        let reason = Reason::WrongServer(Sid(2));
        assert_refused((&servers[dialer], 2), &servers[1], told, &reason);
    }
}

#[test]
fn server_that_reaches_itself_is_the_wrong_server() {
    let network = Network::new();
    let own = native(3).listen_on("10.0.0.1:3888");
    // The address of server 1 leads to the host of server 3.
    network.host([10, 0, 0, 3]).add_ip([10, 0, 0, 1]);
    let mut servers = [start(&network, 3, own)];
    network.run(&mut servers, SECOND).unwrap();
    let failures = failures(&servers[0], 1);
    assert!(!failures.is_empty());
    let reason = Reason::Refused(Refusal::WrongServer(Sid(3)));
    assert!(failures.iter().all(|failure| *failure == reason));
    let refused = (3, Reason::WrongServer(Sid(1)));
    assert!(rejections(&servers[0]).contains(&refused));
}

#[test]
fn wrong_cluster_is_refused_at_both_ends() {
    let network = Network::new();
    let other = native(2).cluster_id([7; 16]);
    let mut servers = [
        start(&network, 1, native(1)),
        start(&network, 2, other),
        start(&network, 3, native(3)),
    ];
    network.run(&mut servers, 5 * SECOND).unwrap();
    assert!(is_linked(&servers[0], 3));
    let (told, reason) = (Refusal::WrongCluster, Reason::WrongCluster);
    let refused = |server: &Server, of| rejections(server).contains(&(of, reason.clone()));
    for (dialer, acceptor) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        let [dialer, acceptor] =
            [dialer, acceptor].map(|sid: i64| (&servers[sid as usize - 1], sid));
        let failures = failures(dialer.0, acceptor.1);
        assert!(!failures.is_empty());
        assert!(failures.iter().all(|it| *it == Reason::Refused(told)));
        assert!(refused(acceptor.0, dialer.1));
    }
    assert_eq!(servers[1].handle().stats().ups, 0);
}

#[test]
fn unknown_server_is_told_so() {
    let network = Network::new();
    let unknown = |sid: i64| {
        Config::builder(Sid(sid))
            .initial_message(InitialMessageVersion::Native)
            .cluster_id(CLUSTER)
            .server(Sid(sid), format!("10.0.0.{}:3888", sid + 10))
            .server(Sid(2), "10.0.0.2:3888")
    };
    // One dials, the other knocks.
    let mut servers = [
        start(&network, 10, unknown(0)),
        start(&network, 2, native(2)),
        start(&network, 19, unknown(9)),
    ];
    network.run(&mut servers, 5 * SECOND).unwrap();
    for (dialer, sid) in [(0, 0), (2, 9)] {
        let reason = Reason::UnknownSid(Sid(sid));
        let told = Refusal::UnknownSid;
        assert_refused((&servers[dialer], 2), &servers[1], told, &reason);
    }
}

/// The process on the host of server 2 has the sid 1.
#[test]
fn own_sid_of_the_acceptor_is_a_duplicate() {
    let network = Network::new();
    let mut servers = [
        start(&network, 1, native(1)),
        start(&network, 2, native(1).listen_on("10.0.0.2:3888")),
    ];
    network.run(&mut servers, 5 * SECOND).unwrap();
    let told = failures(&servers[0], 2);
    assert!(!told.is_empty());
    let duplicate = Reason::Refused(Refusal::DuplicateSid);
    assert!(told.iter().all(|reason| *reason == duplicate));
    let refused = rejections(&servers[1]);
    assert!(refused.contains(&(1, Reason::OwnSid)));
    // It has dialed server 2 as well, and has reached itself.
    assert!(refused.contains(&(1, Reason::WrongServer(Sid(2)))));
}

/// Two processes have the sid of the smaller peer. One of them has its address, and its link brings frames. The other knocks.
#[test]
fn knock_of_a_second_process_is_refused_as_a_duplicate() {
    let mut world = World::new();
    let link = world.accept_dial(1);
    world.send(&link, &answer(1, 7, 0));
    let knock = initial_message(1, 2, CLUSTER, 8);
    let knock = |world: &mut World| {
        let end = world.arrive("10.0.0.77:40000", &knock);
        world.pass(2 * SILENT_AFTER);
        end.received()
    };
    // It may be the peer, which has restarted. What the link brings may have been under way.
    for _ in 0..4 {
        assert_eq!(knock(&mut world), answer(2, 1, 0));
        world.send(&link, &frame(b"alive"));
    }
    assert_eq!(knock(&mut world), answer(2, 1, 5));
    assert_eq!(rejections(&world.server), [(1, Reason::DuplicateSid)]);
    let stats = world.server.handle().stats();
    assert_eq!((stats.knocks, stats.ups), (4, 1));
    assert!(stats.balances(), "{stats:?}");
}

/// The same for the larger peer. The second process waits as a contender meanwhile.
#[test]
fn contender_is_answered_when_it_is_refused() {
    for (incarnation, brings, code, told) in [
        (8, true, 5, Reason::DuplicateSid),
        (8, false, 6, Reason::OlderLinkAlive),
        (7, true, 6, Reason::OlderLinkAlive),
    ] {
        let mut world = World::new();
        let link = world.arrive("10.0.0.3:40000", &initial_message(3, 2, CLUSTER, 7));
        let claim = initial_message(3, 2, CLUSTER, incarnation);
        // The first one may be the peer, which has restarted.
        for (code, told) in [(6, Reason::OlderLinkAlive), (code, told)] {
            let second = world.arrive("10.0.0.77:40000", &claim);
            assert_eq!(second.received(), b"", "the older link may be dead");
            world.pass(PEER_DEAD_AFTER);
            if brings {
                world.send(&link, &frame(b"alive"));
            }
            world.pass(CONTENDER_MARGIN);
            assert_eq!(second.received(), answer(2, 1, code));
            assert!(second.is_closed() && link.is_open());
            assert_eq!(rejections(&world.server).pop(), Some((3, told)));
        }
    }
}

#[test]
fn contender_is_answered_when_it_takes_over() {
    let mut world = World::new();
    let link = world.arrive("10.0.0.3:40000", &initial_message(3, 2, CLUSTER, 7));
    let second = world.arrive("10.0.0.77:40000", &initial_message(3, 2, CLUSTER, 8));
    world.pass(SECOND);
    assert_eq!(second.received(), b"");
    link.reset();
    world.settle();
    assert_eq!(second.received(), answer(2, 1, 0));
    assert_eq!(restarts(&world.server, 3), [false, true]);
    let stats = world.server.handle().stats();
    assert_eq!(stats.peers[1].incarnation, Some(8));
    assert!(stats.balances(), "{stats:?}");
}

#[test]
fn replaced_links_of_two_processes_are_told_from_reconnects() {
    for (incarnations, is_duplicate) in [([7, 8], true), ([7, 7], false)] {
        let mut world = World::new();
        for n in 0..8 {
            let claim = initial_message(3, 2, CLUSTER, incarnations[n % 2]);
            world.arrive("10.0.0.3:40000", &claim);
            // Four within ten seconds are reported.
            world.pass(Duration::from_millis(2400));
        }
        let flapping: Vec<_> = world
            .server
            .handler()
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Flapping { duplicate, .. } => Some(*duplicate),
                _ => None,
            })
            .collect();
        assert_eq!(flapping, [is_duplicate]);
    }
}

#[test]
fn restart_is_told_from_a_reconnect_at_both_ends() {
    let network = Network::new();
    let mut servers = vec![start(&network, 1, native(1)), start(&network, 3, native(3))];
    let linked = |servers: &mut [Server]| is_linked(&servers[0], 3) && is_linked(&servers[1], 1);
    let link = |servers: &mut Vec<Server>| {
        assert!(network.run_until(servers, 20 * SECOND, linked).unwrap());
        network.run(servers, SECOND).unwrap();
    };
    link(&mut servers);
    let first = servers[0].handle().stats().peers[1].incarnation;
    // A reconnect.
    servers[1].handle().disconnect(Sid(1)).unwrap();
    network.run(&mut servers, SECOND).unwrap();
    link(&mut servers);
    assert_eq!(restarts(&servers[0], 3), [false, false]);
    assert_eq!(servers[0].handle().stats().peers[1].incarnation, first);
    // A restart.
    drop(servers.remove(1));
    servers.push(start(&network, 3, native(3)));
    link(&mut servers);
    assert_eq!(restarts(&servers[0], 3), [false, false, true]);
    assert_ne!(servers[0].handle().stats().peers[1].incarnation, first);
    // It is the other server that restarts.
    drop(servers.remove(0));
    servers.insert(0, start(&network, 1, native(1)));
    link(&mut servers);
    assert_eq!(restarts(&servers[1], 1), [false, true]);
}

/// Each server is restarted with the next configuration, one after the other, and the mesh is whole after each restart.
#[test]
fn mesh_moves_to_native_handshakes_by_rolling_restarts() {
    let steps: [fn(i64) -> ConfigBuilder; 4] = [
        config,
        |sid| config(sid).cluster_id(CLUSTER),
        native,
        |sid| native(sid).native_only(true),
    ];
    let network = Network::new();
    let mut servers: Vec<_> = (1..=3)
        .map(|sid| start(&network, sid as u8, steps[0](sid)))
        .collect();
    let is_whole = |servers: &mut [Server]| {
        let peers = |server: &Server| server.handle().linked_peers().len();
        servers.iter().all(|server| peers(server) == 2)
    };
    assert!(
        network
            .run_until(&mut servers, 5 * SECOND, is_whole)
            .unwrap()
    );
    for (number, step) in steps.iter().enumerate().skip(1) {
        for sid in 1..=3_i64 {
            let place = sid as usize - 1;
            drop(servers.remove(place));
            servers.insert(place, start(&network, sid as u8, step(sid)));
            let whole = network
                .run_until(&mut servers, 20 * SECOND, is_whole)
                .unwrap();
            assert!(whole, "step {number}, server {sid}");
            for server in &servers {
                // The cluster of a server without native handshakes does not matter.
                assert_eq!(rejections(server), [], "step {number}, server {sid}");
                assert!(server.handle().stats().balances());
            }
        }
    }
    for server in &servers {
        let stats = server.handle().stats();
        assert!(stats.peers.iter().all(|peer| peer.incarnation.is_some()));
    }
}

#[test]
fn native_only_refuses_initial_messages_of_zookeeper() {
    let network = Network::new();
    let mut servers = [
        start(&network, 1, config(1).cluster_id(CLUSTER)),
        start(&network, 2, native(2).native_only(true)),
        start(&network, 3, config(3)),
    ];
    network.run(&mut servers, 5 * SECOND).unwrap();
    let refused = rejections(&servers[1]);
    assert!(refused.contains(&(3, Reason::NotNative)));
    assert!(
        refused
            .iter()
            .all(|(_, reason)| *reason == Reason::NotNative)
    );
    // It has dialed server 1 nevertheless, which accepts any initial message.
    assert!(is_linked(&servers[1], 1));
    let error = config(1).native_only(true).build().unwrap_err();
    assert!(matches!(
        error,
        ConfigError::BadOption {
            option: "native_only",
            ..
        }
    ));
}

/// A link of server 2, which has dialed server 1, that has these features.
fn dialed(world: &mut World, features: u64) -> RemoteEnd {
    let end = world.accept_dial(1);
    world.send(&end, &answer_with(features, 1, 7, 0));
    assert!(world.is_linked(1));
    end
}

/// The round-trip times over the link to server 1: smoothed, and the last one.
fn round_trips(world: &World) -> Option<(Duration, Duration)> {
    let stats = world.server.handle().stats();
    let link = stats.peers[0].link.as_ref().unwrap();
    link.round_trip.zip(link.last_round_trip)
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn pings_measure_the_round_trip_one_at_a_time() {
    let mut world = World::with(native(2).ping_every(SECOND));
    let end = dialed(&mut world, CONTROLS);
    let mut expected = world_begins(&end, &control(-1, 1));
    assert_eq!(round_trips(&world), None);
    for (number, took, smoothed) in [(1, 8, 8), (2, 16, 9), (3, 1, 8)] {
        world.pass(took * MILLISECOND);
        // The second one is no answer to what is under way.
        for answered in [number, number, number + 1] {
            world.send(&end, &control(-2, answered));
        }
        let times = (smoothed * MILLISECOND, took * MILLISECOND);
        assert_eq!(round_trips(&world), Some(times));
        world.pass(SECOND);
        expected.extend(control(-1, number + 1));
        assert_eq!(end.received(), expected);
    }
    // The last one is not answered. Nothing ends, and no other follows.
    world.pass(60 * SECOND);
    assert_eq!(end.received(), expected);
    assert!(world.is_linked(1));
    assert_eq!(world.server.handler().frames, []);
    let stats = world.server.handle().stats();
    assert_eq!((stats.sent.accepted, stats.received.frames), (0, 0));
    assert_eq!(stats.sent.bytes, 0);
}

/// What has arrived at this end, which is a native initial message and these bytes.
#[track_caller]
fn world_begins(end: &RemoteEnd, then: &[u8]) -> Vec<u8> {
    let received = end.received();
    let at = received.len() - then.len();
    assert_eq!(decoded_len(&received), at);
    assert_eq!(&received[at..], then);
    received
}

/// Bytes of the native initial message at the front.
fn decoded_len(received: &[u8]) -> usize {
    let len: [u8; 4] = received[60..64].try_into().unwrap();
    64 + u32::from_be_bytes(len) as usize
}

#[test]
fn pings_are_answered_by_the_loop_once_per_read() {
    // It sends none itself.
    let mut world = World::new();
    let end = dialed(&mut world, CONTROLS);
    world_begins(&end, &[]);
    let _ = end.take_received();
    let sent = [frame(b"one"), control(-1, 7), frame(b"two")].concat();
    for byte in sent {
        world.send(&end, &[byte]);
    }
    assert_eq!(end.take_received(), control(-2, 7));
    // As many as one read takes.
    let many: Vec<u8> = (0..5000).flat_map(|number| control(-1, number)).collect();
    world.send(&end, &many);
    assert_eq!(end.take_received(), control(-2, 4999));
    // Behind the frame that is being written.
    end.set_room(5);
    world.server.handle().to_send(Sid(1), "ours").unwrap();
    world.send(&end, &control(-1, 8));
    world.server.handle().to_send(Sid(1), "newer").unwrap();
    end.set_room(1000);
    world.settle();
    let expected = [frame(b"ours"), control(-2, 8), frame(b"newer")].concat();
    assert_eq!(end.take_received(), expected);
    let frames = &world.server.handler().frames;
    assert_eq!(
        frames[..],
        [(Sid(1), b"one".to_vec()), (Sid(1), b"two".to_vec())]
    );
}

#[test]
fn servers_without_control_frames_get_none_and_send_none() {
    let mut world = World::with(native(2).ping_every(SECOND));
    let end = dialed(&mut world, !CONTROLS);
    world.pass(5 * SECOND);
    world_begins(&end, &[]);
    world.send(&end, &control(-1, 1));
    let is_down = |event: &Event| matches!(event, Event::Down { sid, reason, .. } if *sid == Sid(1) && *reason == Reason::BadLength(-1));
    assert!(world.server.handler().events.iter().any(is_down));
}

#[test]
fn both_ends_of_a_link_measure_it_and_no_application_sees_that() {
    for form in [InitialMessageVersion::Native, InitialMessageVersion::V2] {
        let network = Network::new();
        let config = |sid| native(sid).initial_message(form).ping_every(SECOND);
        let mut servers = [1, 2, 3].map(|sid| start(&network, sid as u8, config(sid)));
        network.run(&mut servers, 5 * SECOND).unwrap();
        for server in &servers {
            let stats = server.handle().stats();
            assert_eq!(stats.peers.len(), 2);
            for peer in stats.peers {
                let measured = peer.link.unwrap().round_trip.is_some();
                assert_eq!(measured, form == InitialMessageVersion::Native);
                assert_eq!(peer.received.frames, 0);
            }
            assert_eq!(server.handler().frames, []);
        }
    }
}

/// Nobody can dial it: it would hold up the peers behind it, and be counted as given up.
#[test]
fn link_of_an_observer_is_not_renewed() {
    let mut world = World::with(native(2).observers_max(1));
    let end = world.arrive("10.0.0.9:40000", &i64::MAX.to_be_bytes());
    assert!(world.is_linked(-1));
    world.server.handle().renew();
    for _ in 0..60 {
        world.pass(SECOND);
    }
    assert!(world.is_linked(-1) && end.is_open());
    assert_eq!(world.server.handle().stats().renewals_given_up, 0);
}

/// Its link comes up in the turn in which it is removed.
#[test]
fn accepted_link_of_a_server_whose_time_is_over_is_counted() {
    let mut world = World::new();
    let handle = world.server.handle().clone();
    handle.to_send(Sid(3), "never read").unwrap();
    handle.remove_server(Sid(3), Leave::After(SECOND)).unwrap();
    world.settle();
    let (from, to) = ("10.0.0.3:40000", "10.0.0.2:3888");
    let connect = world
        .network
        .connect(from.parse().unwrap(), to.parse().unwrap());
    let bytes = initial_message(3, 2, CLUSTER, 99);
    connect.unwrap().send(&bytes).unwrap();
    world.pass(SECOND);
    let stats = handle.stats();
    assert_eq!((stats.ups, stats.kept), (1, 1));
    assert!(stats.balances(), "{stats:?}");
}

/// Its link ends when nothing waits for it any more, and a dial beside the link is answered in the same turn.
#[test]
fn dialed_connection_of_a_removed_server_is_no_rejected_one() {
    let mut world = World::new();
    let handle = world.server.handle().clone();
    let link = dialed(&mut world, CONTROLS);
    link.set_room(0);
    handle.to_send(Sid(1), "you are removed").unwrap();
    handle.initiate_connection(Sid(1)).unwrap();
    world.settle();
    let other = world.accept_dial(1);
    handle.remove_server(Sid(1), Leave::After(SECOND)).unwrap();
    world.settle();
    link.make_room(1000);
    world.settle();
    link.shutdown_write().unwrap();
    world.send(&other, &answer(1, 77, 0));
    assert!(other.is_closed());
    let stats = handle.stats();
    assert_eq!((stats.ups, stats.rejected.len()), (1, 0));
    assert!(stats.balances(), "{stats:?}");
}

/// The far end may still read what was written before, for as long as the server may take to leave.
#[test]
fn pings_do_not_reset_the_link_of_a_server_that_leaves() {
    let mut world = World::with(native(2).ping_every(SECOND));
    let end = world.arrive("10.0.0.3:40000", &initial_message(3, 2, CLUSTER, 99));
    let handle = world.server.handle().clone();
    handle.to_send(Sid(3), "you are removed").unwrap();
    let leave = Leave::After(60 * SECOND);
    handle.remove_server(Sid(3), leave).unwrap();
    world.settle();
    assert!(end.is_closed());
    assert!(end.received().ends_with(&frame(b"you are removed")));
    world.send(&end, &control(-1, 7));
    world.pass(5 * SECOND);
    assert!(!end.was_reset());
    world.send(&end, &frame(b"I know"));
    assert_eq!(
        world.server.handler().frames,
        [(Sid(3), b"I know".to_vec())]
    );
    end.shutdown_write().unwrap();
    world.settle();
    let ends =
        |event: &Event| matches!(event, Event::Down { reason, .. } if *reason == Reason::Removed);
    assert!(world.server.handler().events.iter().any(ends));
}

/// The last frame may have been lost with the link on which it was written first.
#[test]
fn last_frame_is_written_once_more_to_a_server_that_leaves() {
    let mut world = World::new();
    let message = initial_message(3, 2, CLUSTER, 99);
    let older = world.arrive("10.0.0.3:40000", &message);
    let handle = world.server.handle().clone();
    handle.to_send(Sid(3), "you are removed").unwrap();
    assert!(older.received().ends_with(&frame(b"you are removed")));
    let from = "10.0.0.3:40001".parse().unwrap();
    let newer = world.network.connect(from, older.peer_addr()).unwrap();
    // For the answer and a part of the frame.
    newer.set_room(answer(2, 0, 0).len() + 7);
    world.send(&newer, &message);
    assert!(newer.is_blocked());
    let leave = Leave::After(60 * SECOND);
    handle.remove_server(Sid(3), leave).unwrap();
    world.pass(SECOND);
    assert!(!newer.is_closed());
    newer.make_room(1000);
    world.pass(SECOND);
    assert!(newer.received().ends_with(&frame(b"you are removed")));
    assert!(newer.is_closed() && !newer.was_reset());
}

/// Its certificate, for instance, is the one that was to be replaced.
#[test]
fn link_of_a_dial_that_was_under_way_at_a_renewal_is_renewed() {
    let mut world = World::new();
    world.pass(MILLISECOND);
    world.server.handle().renew();
    world.settle();
    let old = dialed(&mut world, 0);
    let new = dialed(&mut world, 0);
    assert!(old.is_closed() && !new.is_closed());
    let stats = world.server.handle().stats();
    assert_eq!((stats.ups, stats.renewals_given_up), (2, 0));
    world.pass(60 * SECOND);
    assert_eq!(world.server.handle().stats().ups, 2);
}

/// The feature of a dialer whose link to this server is to be retired.
const RETIRES: u64 = 2;

/// The end frame of a link that is retired.
fn end_frame() -> Vec<u8> {
    control(-3, 0)
}

fn received(world: &World) -> Vec<&[u8]> {
    let frames = world.server.handler().frames.iter();
    frames.map(|(_, payload)| &payload[..]).collect()
}

/// The numbers of the links to this peer that came up, and why those that went down did.
fn links(world: &World, of: i64) -> (usize, Vec<Reason>) {
    let (mut ups, mut downs) = (0, Vec::new());
    for event in &world.server.handler().events {
        match event {
            Event::Up { sid, .. } if *sid == Sid(of) => ups += 1,
            Event::Down { sid, reason, .. } if *sid == Sid(of) => downs.push(reason.clone()),
            _ => {}
        }
    }
    (ups, downs)
}

/// A link that server 3 has dialed, and a new connection of the process with this incarnation, which asks for it to be retired.
fn claimed(world: &mut World, incarnation: u64) -> [RemoteEnd; 2] {
    let mut bytes = initial_message(3, 2, CLUSTER, 99);
    let old = world.arrive("10.0.0.3:40000", &bytes);
    assert_eq!(old.take_received(), answer(2, 1, 0));
    bytes[44..52].copy_from_slice(&incarnation.to_be_bytes());
    bytes[59] |= RETIRES as u8;
    let new = world.arrive("10.0.0.3:40001", &bytes);
    [old, new]
}

#[test]
fn accepted_link_is_retired_before_the_new_one_is_answered() {
    let mut world = World::new();
    let [old, new] = claimed(&mut world, 99);
    assert_eq!(old.received(), end_frame());
    world.server.handle().to_send(Sid(3), "ours").unwrap();
    let last = [frame(b"one"), frame(b"two"), end_frame()].concat();
    for byte in last {
        assert!(old.is_open());
        assert_eq!(new.received(), b"");
        world.send(&old, &[byte]);
    }
    assert_eq!(received(&world), [b"one", b"two"]);
    assert!(old.was_reset());
    assert_eq!(old.received(), end_frame());
    world.send(&new, &frame(b"three"));
    assert_eq!(received(&world), [&b"one"[..], b"two", b"three"]);
    assert_eq!(new.received(), [answer(2, 1, 0), frame(b"ours")].concat());
    assert_eq!(links(&world, 3), (2, vec![Reason::Replaced]));
    assert!(world.server.handle().stats().balances());
}

#[test]
fn end_frame_waits_for_what_is_being_written() {
    let mut world = World::new();
    let bytes = initial_message(3, 2, CLUSTER, 99);
    let old = world.arrive("10.0.0.3:40000", &bytes);
    let _ = old.take_received();
    old.set_room(5);
    for payload in ["being written", "waits"] {
        world.server.handle().to_send(Sid(3), payload).unwrap();
        world.settle();
    }
    let mut bytes = bytes;
    bytes[59] |= RETIRES as u8;
    let new = world.arrive("10.0.0.3:40001", &bytes);
    old.set_room(1000);
    world.settle();
    let expected = [frame(b"being written"), end_frame()].concat();
    assert_eq!(old.received(), expected);
    world.send(&old, &end_frame());
    assert_eq!(new.received(), [answer(2, 1, 0), frame(b"waits")].concat());
}

#[test]
fn link_of_another_process_or_of_one_that_does_not_ask_is_replaced_at_once() {
    for (incarnation, asks) in [(98, true), (99, false)] {
        let mut world = World::new();
        let bytes = initial_message(3, 2, CLUSTER, 99);
        let old = world.arrive("10.0.0.3:40000", &bytes);
        let mut bytes = initial_message(3, 2, CLUSTER, incarnation);
        bytes[59] |= if asks { RETIRES as u8 } else { 0 };
        let new = world.arrive("10.0.0.3:40001", &bytes);
        assert_eq!(new.received(), answer(2, 1, 0));
        assert_eq!(old.received(), answer(2, 1, 0));
        assert!(old.was_reset());
    }
}

#[test]
fn link_that_breaks_while_it_is_retired_is_replaced() {
    let mut world = World::new();
    let [old, new] = claimed(&mut world, 99);
    world.pass(10 * SECOND);
    assert_eq!(new.received(), b"");
    old.reset();
    world.settle();
    assert_eq!(new.received(), answer(2, 1, 0));
    assert!(world.is_linked(3));
}

/// A kernel without memory for 36 bytes may do that.
#[test]
fn answer_that_is_written_in_part_loses_no_frame() {
    let mut world = World::new();
    let [old, new] = claimed(&mut world, 99);
    world.server.handle().to_send(Sid(3), "ours").unwrap();
    new.set_room(10);
    world.send(&old, &[frame(b"last"), end_frame()].concat());
    assert_eq!(received(&world), [b"last"]);
    assert_eq!(new.received(), answer(2, 1, 0)[..10]);
    assert!(!world.is_linked(3) && !new.is_open());
    // The dialer tries again.
    let bytes = initial_message(3, 2, CLUSTER, 99);
    let newer = world.arrive("10.0.0.3:40002", &bytes);
    let expected = [answer(2, 1, 0), frame(b"ours")].concat();
    assert_eq!(newer.received(), expected);
}

#[test]
fn link_that_brings_nothing_while_it_is_retired_is_replaced() {
    let mut world = World::new();
    let [old, new] = claimed(&mut world, 99);
    world.pass(RETIRING_MAX);
    assert_eq!(new.received(), answer(2, 1, 0));
    assert!(old.was_reset() && world.is_linked(3));
}

#[test]
fn new_link_is_refused_if_the_older_one_still_brings_frames() {
    let mut world = World::new();
    let [old, new] = claimed(&mut world, 99);
    world.pass(RETIRING_MAX - MILLISECOND);
    assert_eq!(new.received(), b"");
    world.send(&old, &frame(b"slow"));
    world.pass(MILLISECOND);
    assert_eq!(new.received(), answer(2, 1, 1));
    // Nothing is lost: it is read to its end nevertheless, and then the peer has no link.
    world.send(&old, &[frame(b"late"), end_frame()].concat());
    assert_eq!(received(&world), [b"slow", b"late"]);
    assert!(old.was_reset() && !world.is_linked(3));
    assert_eq!(links(&world, 3), (1, vec![Reason::Replaced]));
}

/// A link to server 1, and the connection that is dialed to renew it, which has asked for it to be retired.
fn renewed(world: &mut World) -> [RemoteEnd; 2] {
    let old = dialed(world, CONTROLS);
    let _ = old.take_received();
    world.server.handle().renew();
    world.settle();
    let new = world.accept_dial(1);
    let said = new.take_received();
    assert_eq!(said[52..60], (CONTROLS | RETIRES).to_be_bytes());
    assert_eq!(old.received(), b"");
    [old, new]
}

#[test]
fn dialed_link_is_retired_when_the_far_end_has_ended_it() {
    let mut world = World::new();
    let [old, new] = renewed(&mut world);
    world.send(&old, &[frame(b"last"), end_frame()].concat());
    assert_eq!(received(&world), [b"last"]);
    world.server.handle().to_send(Sid(1), "ours").unwrap();
    world.settle();
    assert_eq!(old.received(), end_frame());
    assert!(world.is_linked(1) && old.is_open());
    old.reset();
    world.settle();
    world.send(&new, &answer(1, 7, 0));
    assert_eq!(new.received(), frame(b"ours"));
    assert_eq!(links(&world, 1), (2, vec![Reason::Replaced]));
    assert!(world.server.handle().stats().balances());
}

/// The far end renews its links at the same time. It has accepted the dial, and may have written to it.
#[test]
fn knock_does_not_give_up_a_dial_for_which_a_link_is_retired() {
    let mut world = World::new();
    let [old, new] = renewed(&mut world);
    world.send(&old, &end_frame());
    // It has not read the old link to its end yet. A younger dial would not be given up in any case.
    world.pass(2 * SECOND);
    let knock = initial_message(1, 2, CLUSTER, 7);
    world.arrive("10.0.0.1:40000", &knock);
    assert!(new.is_open() && old.is_open());
    old.reset();
    world.settle();
    world.send(&new, &[answer(1, 7, 0), frame(b"next")].concat());
    assert_eq!(received(&world), [b"next"]);
    assert_eq!(links(&world, 1), (2, vec![Reason::Replaced]));
}

#[test]
fn answer_may_take_longer_while_a_link_is_retired() {
    let longest = RETIRING_MAX + CONTENDER_MARGIN;
    let mut world = World::new();
    let [_old, new] = renewed(&mut world);
    world.pass(longest - MILLISECOND);
    assert!(new.is_open());
    world.pass(MILLISECOND);
    assert!(new.was_reset() && world.is_linked(1));
    // But not when it has ended.
    let mut world = World::new();
    let [old, new] = renewed(&mut world);
    old.reset();
    world.settle();
    let usual = PEER_DEAD_AFTER + 2 * CONTENDER_MARGIN;
    world.pass(usual - MILLISECOND);
    assert!(new.is_open());
    world.pass(MILLISECOND);
    assert!(new.was_reset());
}

#[test]
fn far_end_that_does_not_retire_links_has_them_replaced_at_once() {
    let mut world = World::new();
    let [old, new] = renewed(&mut world);
    world.send(&new, &answer(1, 7, 0));
    assert!(old.was_reset() && world.is_linked(1));
    assert_eq!(old.received(), b"");
    assert_eq!(links(&world, 1), (2, vec![Reason::Replaced]));
}

#[test]
fn silent_link_is_not_retired() {
    let mut world = World::new();
    let old = dialed(&mut world, CONTROLS);
    // Server 1 seems to have started again behind a proxy.
    let knock = initial_message(1, 2, CLUSTER, 8);
    for n in 0..2 {
        world.pass(SILENT_AFTER);
        world.arrive(&format!("10.0.0.99:{}", 40_000 + n), &knock);
    }
    world.pass(SILENT_AFTER);
    let new = world.accept_dial(1);
    assert_eq!(new.received()[52..60], CONTROLS.to_be_bytes());
    assert!(old.is_open());
}
