//! Tests that strangers cannot harm a mesh with live links and traffic: they can end their own connection, and nothing else.
//!
//! Every test checks all members afterwards, not only the one under attack. The strangers connect from another loopback
//! address than the members. Only Linux has such addresses without configuration.

#![cfg(target_os = "linux")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{
    CnxManager, ConfigBuilder, Dial, Event, Reason, ReasonKind, Replace, SendError, SendOutcome,
    Sid, Stats, Unknown,
};
use support::{
    LONG, MEMBER_IP, Mesh, ReservedAddress, Ring, STRANGER_IP, TestConnection, V1, V2,
    assert_message, await_turn, bare, claiming, configure, eventually, expect_message, frame,
    listener,
    pair::Pair,
    rng::Rng,
    single_manager,
    turned::{PEER, TurnedLoop},
    versioned, wait_for, wait_for_down, wait_for_up,
};

/// A configured member that is absent: a stranger can take its place.
const ABSENT: i64 = 90;

/// The member under attack. It has a smaller and a larger peer.
const OWN: i64 = 2;

/// A mesh of three with traffic, whose middle member is attacked.
struct Attack {
    mesh: Mesh,
    ring: Ring,
    before: Vec<Stats>,
    _absent: ReservedAddress,
}

impl Attack {
    fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    fn start_with(shape: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Self {
        let absent = ReservedAddress::new();
        let mesh = Mesh::linked(&[OWN, 1, 3], &[(ABSENT, &absent.address)], shape);
        let ring = Ring::start(&mesh);
        let before = mesh.managers.iter().map(|one| one.stats()).collect();
        Self {
            mesh,
            ring,
            before,
            _absent: absent,
        }
    }

    fn target(&self) -> &CnxManager {
        &self.mesh.managers[0]
    }

    fn address(&self) -> &str {
        &self.mesh.addresses[0]
    }

    /// A stranger connects and writes these bytes.
    fn stranger(&self, bytes: &[u8]) -> TestConnection {
        TestConnection::dial_and_write(STRANGER_IP, self.address(), bytes)
    }

    /// Takes the next message that the target has received from a stranger.
    #[track_caller]
    fn expect_message(&self, from: i64, payload: &str) {
        let message = self.ring.others[0].recv_timeout(LONG).unwrap();
        assert_message(&message, from, payload);
    }

    /// Connections that were refused since the start, by reason.
    fn rejected(&self) -> BTreeMap<ReasonKind, u64> {
        since(&self.target().stats().rejected, &self.before[0].rejected)
    }

    /// Links that ended since the start, by reason.
    fn downs(&self) -> BTreeMap<ReasonKind, u64> {
        since(&self.target().stats().downs, &self.before[0].downs)
    }

    /// Waits until the target has refused as many connections.
    #[track_caller]
    fn wait_rejected(&self, count: u64) {
        eventually("the strangers are refused", || {
            self.rejected().values().sum::<u64>() >= count
        });
    }

    /// Waits until as many links of the target have ended.
    #[track_caller]
    fn wait_downs(&self, count: u64) {
        eventually("the links of the strangers end", || {
            self.downs().values().sum::<u64>() >= count
        });
    }

    /// Waits until so many connections were refused and so many links have ended. Checks that exactly these connections of
    /// strangers were refused, that these links of strangers came up and ended, by reason, and that nothing else has happened to the
    /// members.
    #[track_caller]
    fn finish(self, rejected: &[(ReasonKind, u64)], downs: &[(ReasonKind, u64)]) {
        let sum = |counts: &[(ReasonKind, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
        self.wait_rejected(sum(rejected));
        self.wait_downs(sum(downs));
        assert_eq!(self.rejected(), rejected.iter().copied().collect());
        assert_eq!(self.downs(), downs.iter().copied().collect());
        self.ring.wait_rounds(3);
        for (manager, before) in self.mesh.managers.iter().zip(&self.before) {
            let is_target = manager.sid() == Sid(OWN);
            // A dial to the absent member may be under way for a while.
            eventually("only the links between members are left", || {
                manager.stats().connections == 2
            });
            eventually("the counters balance", || manager.stats().balances());
            let now = manager.stats();
            let strangers = if is_target { sum(downs) } else { 0 };
            assert_eq!(now.ups, before.ups + strangers);
            if !is_target {
                assert_eq!(now.downs, before.downs);
                assert_eq!(now.rejected, before.rejected);
            }
            let members =
                |stats: &Stats| stats.peers.iter().map(|peer| peer.sid).collect::<Vec<_>>();
            assert_eq!(members(&now), members(before));
            for (peer, before) in now.peers.iter().zip(&before.peers) {
                if peer.sid != Sid(ABSENT) {
                    assert!(peer.linked, "{} has lost {}", manager.sid(), peer.sid);
                    assert_eq!(peer.ups, before.ups, "a link was replaced");
                    assert_eq!(peer.dials, before.dials, "a member was dialed");
                    assert_eq!(
                        peer.sent.resent, before.sent.resent,
                        "a frame was sent again"
                    );
                }
                assert!(peer.sent.balances());
            }
        }
    }
}

/// The difference of two sets of counters.
fn since(
    now: &BTreeMap<ReasonKind, u64>,
    before: &BTreeMap<ReasonKind, u64>,
) -> BTreeMap<ReasonKind, u64> {
    now.iter()
        .map(|(name, count)| (*name, count - before.get(name).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[test]
fn random_bytes_are_refused() {
    let attack = Attack::start();
    let mut random = Rng::new(42);
    let mut expected = BTreeMap::new();
    for round in 0..150 {
        let mut bytes: Vec<u8> = (0..round % 50).map(|_| random.below(256) as u8).collect();
        match round % 3 {
            // A valid beginning, and then an invalid text.
            0 => bytes = claiming(V1, ABSENT, 16, &[&bytes[..], &[0xff; 16]].concat()),
            // A negative number that is no version.
            1 if !bytes.is_empty() => bytes[0] |= 0x80,
            _ => {}
        }
        let reason = match bytes.first() {
            _ if bytes.len() < 8 => ReasonKind::ClosedEarly,
            Some(0x80..) => ReasonKind::BadInitialMessage,
            _ => ReasonKind::UnknownSid,
        };
        *expected.entry(reason).or_default() += 1;
        let mut stranger = attack.stranger(&bytes);
        stranger.finish();
        assert_eq!(stranger.wait_closed(), b"", "a stranger gets no answer");
    }
    assert_eq!(expected.len(), 3, "{expected:?}");
    attack.finish(&expected.into_iter().collect::<Vec<_>>(), &[]);
}

#[test]
fn other_protocols_are_refused() {
    let attack = Attack::start();
    let http = b"GET /metrics HTTP/1.1\r\nHost: zk2\r\nAccept: */*\r\n\r\n";
    // A TLS record with a minimal ClientHello of TLS 1.2.
    let tls = [
        &[0x16, 3, 1, 0, 0x2f, 1, 0, 0, 0x2b, 3, 3][..],
        &[0x5a; 32],
        &[0, 0, 4, 0x13, 1, 0, 0xff, 1, 0],
    ]
    .concat();
    let four_letter_word = b"ruok\n";
    let mut strangers = vec![
        attack.stranger(http),
        attack.stranger(&tls),
        attack.stranger(four_letter_word),
    ];
    strangers[2].finish();
    for stranger in &mut strangers {
        assert_eq!(stranger.wait_closed(), b"");
    }
    attack.finish(
        &[(ReasonKind::UnknownSid, 2), (ReasonKind::ClosedEarly, 1)],
        &[],
    );
}

#[test]
fn invalid_frame_length_ends_the_link_after_earlier_frames() {
    let attack = Attack::start();
    let valid = [bare(ABSENT), frame("good")].concat();
    // The last one is the beginning of a SASL message.
    let lengths = [0, -1, i32::MIN, i32::MAX, 524_289, 0x5f24_3501];
    for (round, length) in (1..).zip(lengths) {
        let bytes = [&valid[..], &length.to_be_bytes(), b"behind"].concat();
        let mut stranger = attack.stranger(&bytes);
        attack.expect_message(ABSENT, "good");
        stranger.wait_closed();
        attack.wait_downs(round);
    }
    assert!(attack.ring.others[0].try_recv().is_err());
    attack.finish(&[], &[(ReasonKind::BadLength, 6)]);
}

#[test]
fn reason_tells_whether_a_link_ended_within_a_frame() {
    let attack = Attack::start();
    let whole = [bare(ABSENT), frame([7; 10_000])].concat();
    for (round, cut) in (1..).zip([8, 9, 11, 12, 13, 9000, whole.len()]) {
        let mut stranger = attack.stranger(&whole[..cut]);
        stranger.finish();
        stranger.wait_closed();
        attack.wait_downs(round);
    }
    attack.finish(
        &[],
        &[(ReasonKind::Closed, 2), (ReasonKind::ClosedEarly, 5)],
    );
}

#[test]
fn unknown_versions_and_malformed_addresses_are_refused() {
    let attack = Attack::start();
    let many = vec!["127.0.0.1:1"; 33].join("|");
    let texts: [&[u8]; 14] = [
        b"what's going on here?",
        b"\xff\xfe\xfd:",
        b"127.0.0.1",
        b"127.0.0.1:",
        b"127.0.0.1:65536",
        b"127.0.0.1:-1",
        b"127.0.0.1:99999999999999999999",
        b"127.0.0.1:\xff",
        b"::1:3888",
        b"[::1:3888",
        b"[127.0.0.1]",
        b"|127.0.0.1:3888",
        b"127.0.0.1:3888||127.0.0.1:3889",
        many.as_bytes(),
    ];
    let mut messages: Vec<Vec<u8>> = texts
        .iter()
        .flat_map(|text| [versioned(V1, ABSENT, text), versioned(V2, ABSENT, text)])
        .collect();
    for version in [-65_530, -65_534, -65_537, -1, i64::MIN] {
        messages.push(versioned(version, ABSENT, "127.0.0.1:3888"));
    }
    // Refused without waiting for the text.
    for length in [0, -1, i32::MIN, i32::MAX, 2049, 1 << 20] {
        messages.push(claiming(V1, ABSENT, length, b""));
    }
    let count = messages.len() as u64;
    for message in messages {
        attack.stranger(&message).wait_closed();
    }
    attack.finish(&[(ReasonKind::BadInitialMessage, count)], &[]);
}

/// The address of a larger server is not used. ZooKeeper keeps its connection whatever host name it sends, for instance one in
/// another character set (ZOOKEEPER-4787).
#[test]
fn larger_server_may_send_any_host_name() {
    let long = format!("{}:1", "h".repeat(254));
    let texts: [&[u8]; 12] = [
        b"zk-m\xfcnchen:3888",
        b"zk-m?nchen:3888",
        b"zk3/10.0.0.3:3888",
        b"zk3 :3888",
        b"${HOSTNAME}:3888",
        b"[fe80::3%eth0@if7]:3888",
        b"[zk3]:+3888",
        b"256.1.1.1:3888:",
        b"127.0.0.1\0\x1b[0m\n:3888",
        b":3888",
        b"127.0.0.1:0",
        long.as_bytes(),
    ];
    for version in [V1, V2] {
        let (manager, address) = single_manager(1, &[(ABSENT, "127.0.0.1:1")], |builder| {
            builder.dial(Dial::OnDemand)
        });
        for text in texts {
            let initial_message = versioned(version, ABSENT, text);
            let bytes = [initial_message, frame("vote")].concat();
            let _peer = TestConnection::dial_and_write(MEMBER_IP, &address, &bytes);
            expect_message(&manager, ABSENT, "vote");
        }
        let stats = manager.stats();
        assert_eq!(stats.rejected, BTreeMap::new());
        assert_eq!(stats.dials, 0, "an address of the larger server was dialed");
    }
}

#[test]
fn truncated_initial_message_is_refused() {
    let attack = Attack::start();
    let message = versioned(V1, ABSENT, "127.0.0.1:3888");
    for cut in 0..message.len() {
        let mut stranger = attack.stranger(&message[..cut]);
        stranger.finish();
        stranger.wait_closed();
    }
    attack.finish(&[(ReasonKind::ClosedEarly, message.len() as u64)], &[]);
}

#[test]
fn unfinished_initial_message_times_out() {
    let attack =
        Attack::start_with(|builder| builder.handshake_timeout(Duration::from_millis(300)));
    let message = versioned(V2, ABSENT, "127.0.0.1:3888|[::1]:3888");
    let strangers: Vec<TestConnection> = (0..message.len())
        .map(|cut| attack.stranger(&message[..cut]))
        .collect();
    for mut stranger in strangers {
        assert_eq!(stranger.wait_closed(), b"");
    }
    attack.finish(&[(ReasonKind::HandshakeTimeout, message.len() as u64)], &[]);
}

#[test]
fn slow_bytes_do_not_extend_the_handshake_deadline() {
    let attack =
        Attack::start_with(|builder| builder.handshake_timeout(Duration::from_millis(300)));
    let host = "h".repeat(200);
    let message = versioned(V2, ABSENT, [&host[..]; 10].join(":1|"));
    let mut stranger = attack.stranger(&[]);
    // The read timeout sets the pace. At this pace the whole message would take half a minute.
    let pace = Duration::from_millis(15);
    stranger.0.set_read_timeout(Some(pace)).unwrap();
    let mut written = 0;
    while attack.rejected().is_empty() {
        assert!(written < message.len(), "the whole message was accepted");
        stranger.write(&message[written..=written]);
        written += 1;
        let _ = std::io::Read::read(&mut stranger.0, &mut [0]);
    }
    stranger.0.set_read_timeout(Some(LONG)).unwrap();
    stranger.wait_closed();
    attack.finish(&[(ReasonKind::HandshakeTimeout, 1)], &[]);
}

#[test]
fn initial_message_is_read_byte_by_byte() {
    let attack = Attack::start();
    let mut stranger = attack.stranger(&[]);
    for byte in [versioned(V2, ABSENT, "127.0.0.1:3888"), frame("slow")].concat() {
        stranger.write(&[byte]);
        // The byte is read before the next one is written. A turn that the traffic of the members has caused may have begun before.
        await_turn(&attack.target().handle());
    }
    attack.expect_message(ABSENT, "slow");
    drop(stranger);
    attack.finish(&[], &[(ReasonKind::Closed, 1)]);
}

#[test]
fn connection_with_the_own_sid_is_refused() {
    let attack = Attack::start();
    for message in [
        bare(OWN),
        versioned(V1, OWN, "127.0.0.1:3888"),
        versioned(V2, OWN, "127.0.0.1:3888|127.0.0.1:3889"),
    ] {
        attack.stranger(&message).wait_closed();
        // It is refused from the address of a member, too.
        TestConnection::dial_and_write(MEMBER_IP, attack.address(), &message).wait_closed();
    }
    attack.finish(&[(ReasonKind::OwnSid, 6)], &[]);
}

#[test]
fn unknown_sids_leave_no_state() {
    let attack = Attack::start();
    let threads = 4;
    thread::scope(|scope| {
        for thread in 0..threads {
            let address = attack.address();
            scope.spawn(move || {
                for round in 0..10_000 / threads {
                    let sid = 1000 + round * threads + thread;
                    let message = match round % 4 {
                        0 => bare(sid),
                        1 => versioned(V1, sid, "127.0.0.1:3888"),
                        // The smallest sid: not dialed back either.
                        2 => versioned(V2, 0, "127.0.0.1:3888"),
                        _ => versioned(V1, -sid, "127.0.0.1:3888"),
                    };
                    TestConnection::dial_and_write(STRANGER_IP, address, &message).wait_closed();
                }
            });
        }
    });
    attack.finish(&[(ReasonKind::UnknownSid, 10_000)], &[]);
}

#[test]
fn a_stranger_cannot_take_the_link_of_a_larger_member() {
    let attack = Attack::start_with(|builder| builder.peer_dead_after(Duration::from_secs(2)));
    // More than the receive buffer takes. None of it is read.
    let large = [bare(3), frame("forged"), frame([0; 100_000])].concat();
    let mut first = attack.stranger(&large);
    let mut second = attack.stranger(&versioned(V1, 3, "127.0.0.1:3888"));
    second.wait_closed();
    assert_eq!(
        attack.rejected(),
        [(ReasonKind::ContenderWaiting, 1)].into()
    );
    first.wait_closed();
    attack.wait_rejected(2);
    assert!(attack.ring.others[0].try_recv().is_err());
    attack.finish(
        &[
            (ReasonKind::ContenderWaiting, 1),
            (ReasonKind::OlderLinkAlive, 1),
        ],
        &[],
    );
}

#[test]
fn contender_at_a_resolved_address_replaces_the_link_at_once() {
    let vacant = ReservedAddress::new();
    let port = vacant.address.rsplit(':').next().unwrap().to_owned();
    // The name is not looked up before the contender appears, and the older link never times out.
    let (manager, address) = single_manager(1, &[(2, format!("localhost:{port}"))], |builder| {
        builder
            .dial(Dial::OnDemand)
            .peer_dead_after(Duration::from_secs(3600))
    });
    let mut old = TestConnection::member(&address, 2, &[]);
    assert_eq!(wait_for_up(&manager), old.addr());
    let new = TestConnection::member(&address, 2, &[]);
    assert_eq!(wait_for_down(&manager), (Sid(2), Reason::Replaced));
    old.wait_closed();
    assert_eq!(wait_for_up(&manager), new.addr());
}

#[test]
fn closed_contender_makes_room_for_the_next() {
    let attack = Attack::start();
    for round in 1..4 {
        let mut stranger = attack.stranger(&bare(3));
        stranger.finish();
        stranger.wait_closed();
        attack.wait_rejected(round);
    }
    attack.finish(&[(ReasonKind::ClosedEarly, 3)], &[]);
}

#[test]
fn contender_that_closes_at_once_is_dropped() {
    // The test turns the loop, so that the initial message and the FIN come in one event after the accept.
    let mut test_loop =
        TurnedLoop::passive(|builder| builder.peer_dead_after(Duration::from_secs(3600)));
    let _member = test_loop.connect(PEER, &[]);
    let mut stranger = TestConnection::dial(STRANGER_IP, &test_loop.address);
    test_loop.until("both are accepted", |handle, _| {
        handle.stats().accepted == 2 && handle.connected_to_peer(Sid(PEER))
    });
    stranger.write(&bare(PEER));
    stranger.finish();
    test_loop.until("the stranger is dropped", |handle, _| {
        handle.stats().rejected == [(ReasonKind::ClosedEarly, 1)].into()
    });
    assert!(test_loop.handle().stats().balances());
}

#[test]
fn immediately_reset_connections_are_counted_and_dropped() {
    let attack = Attack::start();
    let accepted = attack.target().stats().accepted;
    let mut random = Rng::new(42);
    for round in 1..=1000_u64 {
        let written = random.below(8);
        attack.stranger(&[0xff; 8][..written]).reset();
        if round % 100 == 0 {
            // The accept queue of the kernel is limited.
            eventually("they are accepted", || {
                attack.target().stats().accepted == accepted + round
            });
        }
    }
    attack.finish(&[(ReasonKind::Io, 1000)], &[]);
}

#[test]
fn silent_connections_do_not_keep_a_member_out() {
    let absent = ReservedAddress::new();
    let late = ReservedAddress::new();
    let others = [(ABSENT, &absent.address[..]), (4, &late.address[..])];
    let pending = 100;
    let mesh = Mesh::linked(&[OWN, 1, 3], &others, |builder| {
        // None of them times out.
        builder
            .pending_max(pending)
            .handshake_timeout(Duration::from_secs(3600))
    });
    let ring = Ring::start(&mesh);
    let (target, address) = (&*mesh.managers[0], &mesh.addresses[0]);
    let before: Vec<Stats> = mesh.managers.iter().map(|one| one.stats()).collect();
    let (silent, linked) = (AtomicU64::new(0), AtomicBool::new(false));
    // Accepted connections that are no members': these become links, or are knocks.
    let strangers = |stats: &Stats| stats.accepted - stats.kept - stats.knocks;
    let wait_accepted = |count: u64| {
        eventually("they are accepted", || {
            strangers(&target.stats()) >= strangers(&before[0]) + count
        });
    };
    let fourth = thread::scope(|scope| {
        scope.spawn(|| {
            // More connections than the target keeps. The target closes them by eviction. Both ends are in this process, whose
            // limit may be 1024 descriptors.
            let mut kept = VecDeque::new();
            for round in 1.. {
                kept.push_back(TestConnection::dial(STRANGER_IP, address));
                silent.store(round, Ordering::Release);
                if round % 100 == 0 {
                    wait_accepted(round);
                    assert!(target.stats().connections <= pending as u64 + 64 + 8);
                }
                if kept.len() > 2 * pending {
                    kept.pop_front();
                }
                if round >= 10_000 && linked.load(Ordering::Acquire) {
                    // One that is reset before that takes the place of an earlier one without an eviction.
                    wait_accepted(round);
                    break;
                }
            }
            for stranger in kept {
                stranger.reset();
            }
        });
        eventually("all places for pending connections are taken", || {
            silent.load(Ordering::Acquire) > 1000
        });
        let mut servers: Vec<(i64, &str)> = [OWN, 1, 3]
            .into_iter()
            .zip(mesh.addresses.iter().map(String::as_str))
            .collect();
        let (listener, own) = late.open();
        servers.extend([(ABSENT, &absent.address[..]), (4, &own)]);
        let config = configure(4, &servers).listener(listener).build().unwrap();
        let fourth = CnxManager::start(config).unwrap();
        eventually("the late member is linked", || {
            target.connected_to_peer(Sid(4)) && fourth.linked_peers().len() == 3
        });
        linked.store(true, Ordering::Release);
        fourth
    });
    fourth.to_send(Sid(OWN), "linked").unwrap();
    assert_eq!(ring.others[0].recv_timeout(LONG).unwrap().payload, "linked");
    let silent = silent.load(Ordering::Acquire);
    let rejected = || since(&target.stats().rejected, &before[0].rejected);
    eventually("all silent connections are dropped", || {
        rejected().values().sum::<u64>() >= silent
    });
    eventually("only the links of members are left", || {
        target.stats().connections == 3
    });
    let rejected = rejected();
    assert_eq!(rejected.values().sum::<u64>(), silent, "{rejected:?}");
    assert!(
        rejected[&ReasonKind::Evicted] >= silent - pending as u64,
        "{rejected:?}"
    );
    ring.wait_rounds(3);
    for (manager, before) in mesh.managers.iter().zip(&before) {
        let now = manager.stats();
        assert_eq!(now.ups, before.ups + 1, "only the late member is linked");
        assert_eq!(now.downs, before.downs);
    }
}

#[test]
fn received_initial_message_is_read_before_an_eviction() {
    // The test turns the loop, so that it accepts the member and the silent connections after it in one turn.
    let mut test_loop = TurnedLoop::passive(|builder| builder.pending_max(2));
    let _member = test_loop.connect(PEER, &[]);
    let _silent: Vec<TestConnection> = (0..10)
        .map(|_| TestConnection::dial(STRANGER_IP, &test_loop.address))
        .collect();
    test_loop.until("all are accepted", |handle, _| {
        handle.stats().accepted == 11
    });
    test_loop.until("the member is linked", |handle, _| {
        handle.connected_to_peer(Sid(PEER))
    });
}

/// Whatever address a knock has, and wherever it comes from.
#[test]
fn knock_for_an_absent_member_dials_its_configured_address() {
    let other_listener = listener();
    for (from, text) in [
        (STRANGER_IP, other_listener.1.as_bytes()),
        (MEMBER_IP, b"zk-m\xfcnchen:3888"),
        (MEMBER_IP, b"${HOSTNAME}:3888"),
        (MEMBER_IP, b"127.0.0.1:0"),
    ] {
        let configured = listener();
        let (manager, address) = single_manager(5, &[(2, &configured.1)], |builder| {
            builder.dial(Dial::OnDemand)
        });
        let mut knock = TestConnection::dial_and_write(from, &address, &versioned(V1, 2, text));
        knock.wait_closed();
        let mut dialed = TestConnection::accept(&configured.0);
        assert_eq!(dialed.read_initial_message().sid, 5);
        eventually("the member is linked", || {
            manager.linked_peers() == [Sid(2)]
        });
        assert_eq!(manager.stats().rejected, BTreeMap::new());
    }
    other_listener.0.set_nonblocking(true).unwrap();
    let dial = other_listener.0.accept();
    assert!(dial.is_err(), "a stranger's address was dialed");
}

/// Manager 5, the link of its larger peer 9, which is the test itself, and the connection of a stranger that claims sid 9.
fn contended(replace: Replace) -> (Arc<CnxManager>, TestConnection, TestConnection) {
    let hour = Duration::from_secs(3600);
    let pair = Pair::with(|builder| builder.replace(replace).peer_dead_after(hour));
    let older = pair.link();
    let Pair { manager, address } = pair;
    let accepted = manager.stats().accepted;
    let stranger =
        TestConnection::dial_and_write(STRANGER_IP, &address, &[bare(9), frame("early")].concat());
    eventually("the stranger is accepted", || {
        manager.stats().accepted > accepted
    });
    (manager, older, stranger)
}

#[test]
fn a_contender_takes_over_when_the_older_link_ends() {
    let (manager, mut older, mut stranger) = contended(Replace::Proven);
    // The older link continues in both directions, and the contender is not read.
    older.send("older");
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "older");
    assert_eq!(
        manager.to_send(Sid(9), "to the older"),
        Ok(SendOutcome::Written)
    );
    assert_eq!(older.recv(), b"to the older");
    assert_eq!(manager.stats().ups, 1);

    older.finish();
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "early");
    // The last frame may have been lost with the older link, and is sent once more.
    assert_eq!(stranger.recv(), b"to the older");
    stranger.send("late");
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "late");
    let stats = manager.stats();
    assert_eq!(
        (stats.ups, stats.downs),
        (2, [(ReasonKind::Closed, 1)].into())
    );
    assert!(stats.rejected.is_empty());
    let addr = wait_for(&manager, |event| match event {
        Event::Up { addr, .. } if addr.ip() == STRANGER_IP => Some(*addr),
        _ => None,
    });
    assert_eq!(addr, stranger.addr());
}

#[test]
fn member_replaces_its_link_and_the_contender_is_refused() {
    let (manager, mut older, mut stranger) = contended(Replace::Proven);
    let address = older.0.peer_addr().unwrap().to_string();
    let mut newer = TestConnection::member(&address, 9, &["newer"]);
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "newer");
    older.wait_closed();
    stranger.wait_closed();
    let stats = manager.stats();
    assert_eq!(stats.downs, [(ReasonKind::Replaced, 1)].into());
    assert_eq!(stats.rejected, [(ReasonKind::OlderLinkAlive, 1)].into());
    manager.to_send(Sid(9), "again").unwrap();
    assert_eq!(newer.recv(), b"again");
}

#[test]
fn replace_newest_lets_a_stranger_take_over_at_once() {
    let (manager, mut older, mut stranger) = contended(Replace::Newest);
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "early");
    assert_eq!(older.wait_closed(), b"");
    manager.to_send(Sid(9), "welcome").unwrap();
    assert_eq!(stranger.recv(), b"welcome");
    let stats = manager.stats();
    assert_eq!(
        (stats.ups, stats.downs),
        (2, [(ReasonKind::Replaced, 1)].into())
    );
}

#[test]
fn joiners_are_admitted_up_to_a_limit_and_dialed_back() {
    let attack = Attack::start_with(|builder| builder.unknown(Unknown::admit(2)));
    let target = attack.target();
    // A joiner with a larger sid keeps its connection.
    let mut larger = attack.stranger(&[bare(50), frame("from 50")].concat());
    attack.expect_message(50, "from 50");
    target.to_send(Sid(50), "to 50").unwrap();
    assert_eq!(larger.recv(), b"to 50");
    // A joiner with a smaller sid is dialed back at the first of its addresses that answers.
    let (dead, live) = (ReservedAddress::new(), listener());
    let addresses = format!("{}|{}", dead.address, live.1);
    attack.stranger(&versioned(V2, 0, &addresses)).wait_closed();
    let mut smaller = TestConnection::accept(&live.0);
    let message = smaller.read_initial_message();
    assert_eq!((message.version, message.sid), (Some(V1), OWN));
    assert_eq!(message.addresses, attack.address());
    smaller.send("from 0");
    attack.expect_message(0, "from 0");
    target.to_send(Sid(0), "to 0").unwrap();
    assert_eq!(smaller.recv(), b"to 0");
    // Both places are taken. A smaller joiner without an address cannot be dialed, and gets no place.
    attack.stranger(&bare(51)).wait_closed();
    attack.wait_rejected(1);
    attack.stranger(&bare(0)).wait_closed();
    assert_eq!(attack.rejected(), [(ReasonKind::AdmittedFull, 1)].into());
    assert_eq!(target.stats().peers.len(), 3 + 2);
    // A joiner whose link has ended keeps its place until another one needs it.
    drop(larger);
    attack.wait_downs(1);
    assert_eq!(
        target.to_send(Sid(50), "come back"),
        Ok(SendOutcome::Queued)
    );
    let mut next = attack.stranger(&bare(51));
    eventually("the next joiner is linked", || {
        target.connected_to_peer(Sid(51))
    });
    assert_eq!(
        target.to_send(Sid(50), "gone"),
        Err(SendError::UnknownPeer(Sid(50)))
    );
    let stats = target.stats();
    assert_eq!(stats.peers.len(), 3 + 2);
    assert!(stats.sent.balances());
    target.to_send(Sid(51), "to 51").unwrap();
    assert_eq!(next.recv(), b"to 51");
    attack.ring.wait_rounds(3);
    assert_eq!(attack.downs(), [(ReasonKind::Closed, 1)].into());
}

#[test]
fn observers_get_a_sid_and_keep_their_link() {
    let attack = Attack::start_with(|builder| builder.observers_max(2));
    let target = attack.target();
    let message = versioned(V1, i64::MAX, "127.0.0.1:3888");
    let mut observers = Vec::new();
    for (sid, message) in [(-1, bare(i64::MAX)), (-2, message.clone())] {
        let mut observer = attack.stranger(&[message, frame("observing")].concat());
        attack.expect_message(sid, "observing");
        assert_eq!(
            target.to_send(Sid(sid), "observe this"),
            Ok(SendOutcome::Written)
        );
        assert_eq!(observer.recv(), b"observe this");
        observers.push(observer);
    }
    // A sid that was assigned cannot be claimed.
    attack
        .stranger(&versioned(V1, -1, "127.0.0.1:3888"))
        .wait_closed();
    attack.wait_rejected(1);
    // A third observer has no place until one of the two is unlinked.
    attack.stranger(&message).wait_closed();
    attack.wait_rejected(2);
    assert_eq!(
        attack.rejected(),
        [(ReasonKind::UnknownSid, 1), (ReasonKind::ObserversFull, 1)].into()
    );
    drop(observers.remove(0));
    attack.wait_downs(1);
    eventually("the observer is forgotten", || {
        target.to_send(Sid(-1), "hello?") == Err(SendError::UnknownPeer(Sid(-1)))
    });
    let third = attack.stranger(&message);
    eventually("a third observer is linked", || {
        target.connected_to_peer(Sid(-3))
    });
    drop((observers, third));
    attack.wait_downs(3);
    eventually("the observers are forgotten", || {
        target.stats().peers.len() == 3
    });
    attack.finish(
        &[(ReasonKind::UnknownSid, 1), (ReasonKind::ObserversFull, 1)],
        &[(ReasonKind::Closed, 3)],
    );
}

#[test]
fn observers_can_be_refused() {
    let attack = Attack::start_with(|builder| builder.observers_max(0));
    attack.stranger(&bare(i64::MAX)).wait_closed();
    attack.finish(&[(ReasonKind::ObserversFull, 1)], &[]);
}

#[test]
fn rejection_event_has_address_sid_and_reason() {
    let attack = Attack::start();
    let rejection = |bytes: &[u8]| {
        let mut stranger = attack.stranger(bytes);
        stranger.wait_closed();
        let addr = stranger.addr();
        wait_for(attack.target(), |event| match event {
            Event::Rejected {
                addr: from,
                sid,
                reason,
                ..
            } if *from == addr => Some((*sid, reason.clone())),
            _ => None,
        })
    };
    assert_eq!(rejection(&bare(OWN)), (Some(Sid(OWN)), Reason::OwnSid));
    assert_eq!(
        rejection(&bare(77)),
        (Some(Sid(77)), Reason::UnknownSid(Sid(77)))
    );
    let (sid, reason) = rejection(&versioned(V1, ABSENT, "nonsense"));
    assert_eq!((sid, reason.kind().name()), (None, "bad-initial-message"));
}

#[test]
fn flood_on_one_link_does_not_starve_the_others() {
    let absent = ReservedAddress::new();
    let mesh = Mesh::linked(&[OWN, 1, 3], &[(ABSENT, &absent.address)], |builder| {
        builder
    });
    let target = &mesh.managers[0];
    let before = target.stats();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let frames: Vec<u8> = (0..4000).flat_map(|_| frame([9; 60])).collect();
            let mut stranger =
                TestConnection::dial_and_write(STRANGER_IP, &mesh.addresses[0], &bare(ABSENT));
            while !stop.load(Ordering::Acquire) {
                stranger.write(&frames);
            }
        });
        eventually("the flood is received", || {
            target.stats().received.bytes > 10 << 20
        });
        // The flood fills the inbox: hence the counters of received frames, not the messages in the inbox.
        for round in 1..=100 {
            for member in &mesh.managers[1..] {
                member.to_send(Sid(OWN), "in between").unwrap();
            }
            eventually("the frames of the members are received", || {
                let now = target.stats();
                let new_frames = |sid| received(&now, sid) - received(&before, sid);
                new_frames(1) >= round && new_frames(3) >= round
            });
        }
        TestConnection::dial_and_write(STRANGER_IP, &mesh.addresses[0], &bare(77)).wait_closed();
        stop.store(true, Ordering::Release);
    });
    // The end is counted after the link is removed.
    let mut now = target.stats();
    eventually("the flood is over", || {
        now = target.stats();
        now.downs != before.downs
    });
    assert_eq!(target.linked_peers().len(), 2);
    assert_eq!(now.ups, before.ups + 1);
    assert_eq!(
        since(&now.downs, &before.downs),
        [(ReasonKind::Closed, 1)].into()
    );
}

/// The number of frames received from a peer.
fn received(stats: &Stats, sid: i64) -> u64 {
    let of_sid = |peer: &&quorum_cnx::PeerStats| peer.sid == Sid(sid);
    stats
        .peers
        .iter()
        .find(of_sid)
        .map_or(0, |peer| peer.received.frames)
}

#[test]
fn duplicate_sid_is_reported() {
    let pair = Pair::new();
    let duplicates: Vec<TestConnection> = (0..5).map(|_| pair.link()).collect();
    let sid = wait_for(&pair.manager, |event| match event {
        Event::Flapping { sid, .. } => Some(*sid),
        _ => None,
    });
    assert_eq!(sid, Sid(PEER));
    drop(duplicates);
}
