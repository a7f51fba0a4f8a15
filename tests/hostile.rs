//! What strangers can do to a mesh with live links and traffic: end their own connection, and nothing else.
//!
//! Every test looks at all members afterwards, not only at the one that was besieged. The strangers come from another
//! loopback address than the members, which only Linux answers at without being asked to.

#![cfg(target_os = "linux")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use quorum_cnx::{
    CnxManager, ConfigBuilder, Dial, Event, EventLoop, Frame, Handle, Handler, Reason, ReasonKind,
    Replace, SendError, SendOutcome, Sid, Stats, Unknown,
};
use support::{
    ABROAD, HOME, LONG, Mesh, Puppet, Ring, V1, V2, Vacant, alone, bare, claiming, configure,
    eventually, frame, listener, versioned, wait_for,
};

/// A member that is configured and never there: a stranger can take its place.
const AWAY: i64 = 90;

/// The besieged member, who has a smaller and a larger peer.
const OWN: i64 = 2;

/// A mesh of three with a token going round, its middle member besieged.
struct Siege {
    mesh: Mesh,
    ring: Ring,
    before: Vec<Stats>,
    _away: Vacant,
}

impl Siege {
    fn lay() -> Self {
        Self::lay_with(|builder| builder)
    }

    fn lay_with(shape: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Self {
        let away = Vacant::new();
        let mesh = Mesh::linked(&[OWN, 1, 3], &[(AWAY, &away.address)], shape);
        let ring = Ring::start(&mesh);
        let before = mesh.managers.iter().map(|one| one.stats()).collect();
        Self {
            mesh,
            ring,
            before,
            _away: away,
        }
    }

    fn target(&self) -> &CnxManager {
        &self.mesh.managers[0]
    }

    fn address(&self) -> &str {
        &self.mesh.addresses[0]
    }

    /// A stranger connects and says this.
    fn stranger(&self, bytes: &[u8]) -> Puppet {
        Puppet::say(ABROAD, self.address(), bytes)
    }

    /// Connections that were refused since the siege began, by reason.
    fn rejected(&self) -> BTreeMap<ReasonKind, u64> {
        since(&self.target().stats().rejected, &self.before[0].rejected)
    }

    /// Links that ended since the siege began, by reason.
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

    /// The siege has ended with these refusals, and these links of strangers that came up and ended, each for its
    /// reason; and the members have noticed nothing.
    #[track_caller]
    fn lift(self, rejected: &[(ReasonKind, u64)], downs: &[(ReasonKind, u64)]) {
        assert_eq!(self.rejected(), rejected.iter().copied().collect());
        assert_eq!(self.downs(), downs.iter().copied().collect());
        self.ring.wait_rounds(3);
        for (manager, before) in self.mesh.managers.iter().zip(&self.before) {
            let is_target = manager.sid() == Sid(OWN);
            // Give or take an attempt to reach the member that is away.
            eventually("only the links between members are left", || {
                manager.stats().connections == 2
            });
            eventually("every sum balances", || manager.stats().balances());
            let now = manager.stats();
            let strangers: u64 = downs
                .iter()
                .map(|(_, count)| count)
                .filter(|_| is_target)
                .sum();
            assert_eq!(now.ups, before.ups + strangers);
            if !is_target {
                assert_eq!(now.downs, before.downs);
                assert_eq!(now.rejected, before.rejected);
            }
            let members =
                |stats: &Stats| stats.peers.iter().map(|peer| peer.sid).collect::<Vec<_>>();
            assert_eq!(members(&now), members(before));
            for (peer, before) in now.peers.iter().zip(&before.peers) {
                if peer.sid != Sid(AWAY) {
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

/// What was counted after `before`.
fn since(
    now: &BTreeMap<ReasonKind, u64>,
    before: &BTreeMap<ReasonKind, u64>,
) -> BTreeMap<ReasonKind, u64> {
    now.iter()
        .map(|(name, count)| (*name, count - before.get(name).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The same bytes in every run (an LCG of Knuth's).
fn random_bytes() -> impl Iterator<Item = u8> {
    let mut state = 42_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

#[test]
fn random_bytes_are_refused() {
    let siege = Siege::lay();
    let mut random = random_bytes();
    let mut expected = BTreeMap::new();
    for round in 0..150 {
        let mut bytes: Vec<u8> = random.by_ref().take(round % 50).collect();
        match round % 3 {
            // A true beginning, and then nonsense in the text.
            0 => bytes = claiming(V1, AWAY, 16, &[&bytes[..], &[0xff; 16]].concat()),
            // The wrong end of a version.
            1 if !bytes.is_empty() => bytes[0] |= 0x80,
            _ => {}
        }
        let reason = match bytes.first() {
            _ if bytes.len() < 8 => ReasonKind::ClosedEarly,
            Some(0x80..) => ReasonKind::BadInitialMessage,
            _ => ReasonKind::UnknownSid,
        };
        *expected.entry(reason).or_default() += 1;
        let mut stranger = siege.stranger(&bytes);
        stranger.finish();
        assert_eq!(stranger.wait_closed(), b"", "nobody answers a stranger");
    }
    siege.wait_rejected(150);
    assert_eq!(expected.len(), 3, "{expected:?}");
    siege.lift(&expected.into_iter().collect::<Vec<_>>(), &[]);
}

#[test]
fn other_protocols_are_refused() {
    let siege = Siege::lay();
    let http = b"GET /metrics HTTP/1.1\r\nHost: zk2\r\nAccept: */*\r\n\r\n";
    // A record of the handshake, a ClientHello of TLS 1.2 with a random number and no more than it needs.
    let tls = [
        &[0x16, 3, 1, 0, 0x2f, 1, 0, 0, 0x2b, 3, 3][..],
        &[0x5a; 32],
        &[0, 0, 4, 0x13, 1, 0, 0xff, 1, 0],
    ]
    .concat();
    let four_letters = b"ruok\n";
    let mut strangers = vec![
        siege.stranger(http),
        siege.stranger(&tls),
        siege.stranger(four_letters),
    ];
    strangers[2].finish();
    for stranger in &mut strangers {
        assert_eq!(stranger.wait_closed(), b"");
    }
    siege.wait_rejected(3);
    siege.lift(
        &[(ReasonKind::UnknownSid, 2), (ReasonKind::ClosedEarly, 1)],
        &[],
    );
}

#[test]
fn a_frame_of_impossible_length_ends_its_link_after_the_frames_before_it() {
    let siege = Siege::lay();
    let hello = [bare(AWAY), frame("good")].concat();
    // The last one is how a message of SASL begins.
    let lengths = [0, -1, i32::MIN, i32::MAX, 524_289, 0x5f24_3501];
    for (round, length) in (1..).zip(lengths) {
        let bytes = [&hello[..], &length.to_be_bytes(), b"behind"].concat();
        let mut stranger = siege.stranger(&bytes);
        let message = siege.ring.others[0].recv_timeout(LONG).unwrap();
        assert_eq!(
            (message.from, &message.payload[..]),
            (Sid(AWAY), &b"good"[..])
        );
        stranger.wait_closed();
        siege.wait_downs(round);
    }
    assert!(siege.ring.others[0].try_recv().is_err());
    siege.lift(&[], &[(ReasonKind::BadLength, 6)]);
}

#[test]
fn a_link_that_ends_inside_a_frame_is_told_from_one_that_ends_between_two() {
    let siege = Siege::lay();
    let whole = [bare(AWAY), frame([7; 10_000])].concat();
    for (round, cut) in (1..).zip([8, 9, 11, 12, 13, 9000, whole.len()]) {
        let mut stranger = siege.stranger(&whole[..cut]);
        stranger.finish();
        stranger.wait_closed();
        siege.wait_downs(round);
    }
    siege.lift(
        &[],
        &[(ReasonKind::Closed, 2), (ReasonKind::ClosedEarly, 5)],
    );
}

#[test]
fn versions_from_the_future_are_refused() {
    let siege = Siege::lay();
    for version in [-65_530, -65_534, -65_537, -1, i64::MIN] {
        let mut stranger = siege.stranger(&versioned(version, AWAY, "127.0.0.1:3888"));
        stranger.wait_closed();
    }
    siege.wait_rejected(5);
    siege.lift(&[(ReasonKind::BadInitialMessage, 5)], &[]);
}

#[test]
fn bad_lists_of_addresses_are_refused() {
    let siege = Siege::lay();
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
        .flat_map(|text| [versioned(V1, AWAY, text), versioned(V2, AWAY, text)])
        .collect();
    // Nothing of these texts is waited for.
    for length in [0, -1, i32::MIN, i32::MAX, 2049, 1 << 20] {
        messages.push(claiming(V1, AWAY, length, b""));
    }
    let count = messages.len() as u64;
    for message in messages {
        siege.stranger(&message).wait_closed();
    }
    siege.wait_rejected(count);
    siege.lift(&[(ReasonKind::BadInitialMessage, count)], &[]);
}

/// The address of a larger server is needed for nothing. ZooKeeper keeps its connection whatever host it names, for
/// instance one in another character set (ZOOKEEPER-4787).
#[test]
fn a_larger_server_may_name_any_host() {
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
        let (manager, address) = alone(1, &[(AWAY, "127.0.0.1:1")], |builder| {
            builder.dial(Dial::OnDemand)
        });
        for text in texts {
            let hello = versioned(version, AWAY, text);
            let _peer = Puppet::say(HOME, &address, &[hello, frame("vote")].concat());
            let message = manager.recv_timeout(LONG).unwrap();
            assert_eq!(
                (message.from, &message.payload[..]),
                (Sid(AWAY), &b"vote"[..])
            );
        }
        assert_eq!(manager.stats().rejected, BTreeMap::new());
        assert_eq!(
            manager.stats().dials,
            0,
            "an address of a larger one was dialed"
        );
    }
}

/// A smaller server that is configured is dialed where it is configured, whatever it names.
#[test]
fn a_smaller_server_that_names_no_host_is_dialed_at_home() {
    for text in [
        &b"zk-m\xfcnchen:3888"[..],
        b"${HOSTNAME}:3888",
        b"127.0.0.1:0",
    ] {
        let (home, home_address) = listener();
        let (manager, address) = alone(5, &[(2, &home_address)], |builder| {
            builder.dial(Dial::OnDemand)
        });
        let _knock = Puppet::say(HOME, &address, &versioned(V1, 2, text));
        assert_eq!(Puppet::accept(&home).hello().sid, 5);
        assert_eq!(manager.stats().rejected, BTreeMap::new());
    }
}

#[test]
fn an_initial_message_that_ends_anywhere_is_refused() {
    let siege = Siege::lay();
    let hello = versioned(V1, AWAY, "127.0.0.1:3888");
    for cut in 0..hello.len() {
        let mut stranger = siege.stranger(&hello[..cut]);
        stranger.finish();
        stranger.wait_closed();
    }
    siege.wait_rejected(hello.len() as u64);
    siege.lift(&[(ReasonKind::ClosedEarly, hello.len() as u64)], &[]);
}

#[test]
fn an_initial_message_that_stops_anywhere_is_refused_in_time() {
    let siege = Siege::lay_with(|builder| builder.handshake_timeout(Duration::from_millis(300)));
    let hello = versioned(V2, AWAY, "127.0.0.1:3888|[::1]:3888");
    let strangers: Vec<Puppet> = (0..hello.len())
        .map(|cut| siege.stranger(&hello[..cut]))
        .collect();
    for mut stranger in strangers {
        assert_eq!(stranger.wait_closed(), b"");
    }
    siege.wait_rejected(hello.len() as u64);
    siege.lift(&[(ReasonKind::HandshakeTimeout, hello.len() as u64)], &[]);
}

#[test]
fn bytes_that_trickle_in_do_not_put_the_deadline_off() {
    let siege = Siege::lay_with(|builder| builder.handshake_timeout(Duration::from_millis(300)));
    let host = "h".repeat(200);
    let hello = versioned(V2, AWAY, [&host[..]; 10].join(":1|"));
    let mut stranger = siege.stranger(&[]);
    // The time that an answer is waited for is the pace; with it, the whole message would take half a minute.
    let pace = Duration::from_millis(15);
    stranger.0.set_read_timeout(Some(pace)).unwrap();
    let mut said = 0;
    while siege.rejected().is_empty() {
        assert!(said < hello.len(), "the whole message was waited for");
        stranger.write(&hello[said..=said]);
        said += 1;
        let _ = std::io::Read::read(&mut stranger.0, &mut [0]);
    }
    stranger.0.set_read_timeout(Some(LONG)).unwrap();
    stranger.wait_closed();
    siege.lift(&[(ReasonKind::HandshakeTimeout, 1)], &[]);
}

#[test]
fn an_initial_message_of_single_bytes_is_understood() {
    let siege = Siege::lay();
    let mut stranger = siege.stranger(&[]);
    for byte in [versioned(V2, AWAY, "127.0.0.1:3888"), frame("slow")].concat() {
        let turns = siege.target().stats().turns;
        stranger.write(&[byte]);
        // So that it is read before the next one comes.
        eventually("the loop turns", || siege.target().stats().turns > turns);
    }
    let message = siege.ring.others[0].recv_timeout(LONG).unwrap();
    assert_eq!(
        (message.from, &message.payload[..]),
        (Sid(AWAY), &b"slow"[..])
    );
    drop(stranger);
    siege.wait_downs(1);
    siege.lift(&[], &[(ReasonKind::Closed, 1)]);
}

#[test]
fn who_claims_our_own_sid_is_refused() {
    let siege = Siege::lay();
    for hello in [
        bare(OWN),
        versioned(V1, OWN, "127.0.0.1:3888"),
        versioned(V2, OWN, "127.0.0.1:3888|127.0.0.1:3889"),
    ] {
        siege.stranger(&hello).wait_closed();
        // The own address makes it no truer.
        Puppet::say(HOME, siege.address(), &hello).wait_closed();
    }
    siege.wait_rejected(6);
    siege.lift(&[(ReasonKind::OwnSid, 6)], &[]);
}

#[test]
fn ten_thousand_unknown_sids_leave_no_trace() {
    let siege = Siege::lay();
    let threads = 4;
    thread::scope(|scope| {
        for thread in 0..threads {
            let address = siege.address();
            scope.spawn(move || {
                for round in 0..10_000 / threads {
                    let sid = 1000 + round * threads + thread;
                    let hello = match round % 4 {
                        0 => bare(sid),
                        1 => versioned(V1, sid, "127.0.0.1:3888"),
                        // Smaller than all: not dialed back either.
                        2 => versioned(V2, 0, "127.0.0.1:3888"),
                        _ => versioned(V1, -sid, "127.0.0.1:3888"),
                    };
                    Puppet::say(ABROAD, address, &hello).wait_closed();
                }
            });
        }
    });
    siege.wait_rejected(10_000);
    siege.lift(&[(ReasonKind::UnknownSid, 10_000)], &[]);
}

#[test]
fn a_stranger_cannot_take_the_link_of_a_larger_member() {
    let siege = Siege::lay_with(|builder| builder.peer_dead_after(Duration::from_secs(2)));
    // As much as the socket takes, none of which is read.
    let greedy = [bare(3), frame("forged"), frame([0; 100_000])].concat();
    let mut first = siege.stranger(&greedy);
    let mut second = siege.stranger(&versioned(V1, 3, "127.0.0.1:3888"));
    second.wait_closed();
    assert_eq!(siege.rejected(), [(ReasonKind::ContenderWaiting, 1)].into());
    first.wait_closed();
    siege.wait_rejected(2);
    assert!(siege.ring.others[0].try_recv().is_err());
    siege.lift(
        &[
            (ReasonKind::ContenderWaiting, 1),
            (ReasonKind::OlderLinkAlive, 1),
        ],
        &[],
    );
}

#[test]
fn a_member_whose_name_leads_to_where_the_contender_is_need_not_wait() {
    let vacant = Vacant::new();
    let port = vacant.address.rsplit(':').next().unwrap().to_owned();
    // Nothing is looked up before somebody asks, and the older link never dies by itself.
    let (manager, address) = alone(1, &[(2, format!("localhost:{port}"))], |builder| {
        builder
            .dial(Dial::OnDemand)
            .peer_dead_after(Duration::from_secs(3600))
    });
    let mut gone = Puppet::say(HOME, &address, &bare(2));
    wait_for(&manager, |event| {
        matches!(event, Event::Up { .. }).then_some(())
    });
    let back = Puppet::say(HOME, &address, &bare(2));
    let reason = wait_for(&manager, |event| match event {
        Event::Down { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, Reason::Replaced);
    gone.wait_closed();
    let addr = wait_for(&manager, |event| match event {
        Event::Up { addr, .. } => Some(*addr),
        _ => None,
    });
    assert_eq!(addr, back.addr());
}

#[test]
fn a_contender_that_leaves_makes_room_for_the_next() {
    let siege = Siege::lay();
    for round in 1..4 {
        let mut stranger = siege.stranger(&bare(3));
        stranger.finish();
        stranger.wait_closed();
        siege.wait_rejected(round);
    }
    siege.lift(&[(ReasonKind::ClosedEarly, 3)], &[]);
}

#[test]
fn a_contender_that_leaves_as_it_comes_is_let_go() {
    // In the test's hands, so that its name and its end come in one event, after it was accepted.
    let (listener, address) = listener();
    let vacant = Vacant::new();
    let config = configure(1, &[(1, &address), (2, &vacant.address)])
        .listener(listener)
        .peer_dead_after(Duration::from_secs(3600))
        .build()
        .unwrap();
    let mut event_loop = EventLoop::new(config, Deaf).unwrap();
    let handle = event_loop.handle().clone();
    let _member = Puppet::say(HOME, &address, &bare(2));
    let mut stranger = Puppet::dial(ABROAD, &address);
    eventually("both are accepted", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.stats().accepted == 2 && handle.connected_to_peer(Sid(2))
    });
    stranger.write(&bare(2));
    stranger.finish();
    eventually("the stranger is gone", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.stats().rejected == [(ReasonKind::ClosedEarly, 1)].into()
    });
    assert!(handle.stats().balances());
}

#[test]
fn a_stranger_that_knocks_for_a_linked_member_has_nobody_dialed() {
    let siege = Siege::lay();
    let elsewhere = listener();
    let knocks = siege.target().stats().knocks;
    for round in 1..=20 {
        let hello = match round % 2 {
            0 => bare(1),
            _ => versioned(V1, 1, &elsewhere.1),
        };
        assert_eq!(siege.stranger(&hello).wait_closed(), b"");
        eventually("the knock is counted", || {
            siege.target().stats().knocks == knocks + round
        });
    }
    elsewhere.0.set_nonblocking(true).unwrap();
    assert!(
        elsewhere.0.accept().is_err(),
        "a stranger's address was dialed"
    );
    siege.lift(&[], &[]);
}

#[test]
fn connections_that_are_reset_at_once_are_counted_and_forgotten() {
    let siege = Siege::lay();
    let accepted = siege.target().stats().accepted;
    let mut random = random_bytes();
    for round in 1..=1000_u64 {
        let said = usize::from(random.next().unwrap() % 8);
        siege.stranger(&[0xff; 8][..said]).reset();
        if round % 100 == 0 {
            // The kernel keeps a limited number of them for us.
            eventually("they are accepted", || {
                siege.target().stats().accepted == accepted + round
            });
        }
    }
    siege.wait_rejected(1000);
    siege.lift(&[(ReasonKind::Io, 1000)], &[]);
}

#[test]
fn ten_thousand_silent_connections_do_not_keep_a_member_out() {
    let away = Vacant::new();
    let late = Vacant::new();
    let others = [(AWAY, &away.address[..]), (4, &late.address[..])];
    let pending = 100;
    let mesh = Mesh::linked(&[OWN, 1, 3], &others, |builder| {
        // Nobody of them leaves by the clock.
        builder
            .pending_max(pending)
            .handshake_timeout(Duration::from_secs(3600))
    });
    let ring = Ring::start(&mesh);
    let (target, address) = (&*mesh.managers[0], &mesh.addresses[0]);
    let before: Vec<Stats> = mesh.managers.iter().map(|one| one.stats()).collect();
    let (silent, linked) = (AtomicU64::new(0), AtomicBool::new(false));
    let fourth = thread::scope(|scope| {
        scope.spawn(|| {
            // More than have a place over there; closing is left to the target as long as it goes on evicting. Both
            // ends are in this process, which may have 1024 descriptors.
            let mut kept = VecDeque::new();
            for round in 1.. {
                kept.push_back(Puppet::dial(ABROAD, address));
                silent.store(round, Ordering::Release);
                if round % 100 == 0 {
                    eventually("they are accepted", || {
                        target.stats().accepted >= before[0].accepted + round
                    });
                    assert!(target.stats().connections <= pending as u64 + 64 + 8);
                }
                if kept.len() > 2 * pending {
                    kept.pop_front();
                }
                if round >= 10_000 && linked.load(Ordering::Acquire) {
                    break;
                }
            }
            for stranger in kept {
                stranger.reset();
            }
        });
        eventually("the places are taken", || {
            silent.load(Ordering::Acquire) > 1000
        });
        let mut servers: Vec<(i64, &str)> = [OWN, 1, 3]
            .into_iter()
            .zip(mesh.addresses.iter().map(String::as_str))
            .collect();
        let (listener, own) = late.open();
        servers.extend([(AWAY, &away.address[..]), (4, &own)]);
        let config = configure(4, &servers).listener(listener).build().unwrap();
        let fourth = CnxManager::start(config).unwrap();
        eventually("the late member is linked", || {
            target.connected_to_peer(Sid(4)) && fourth.linked_peers().len() == 3
        });
        linked.store(true, Ordering::Release);
        fourth
    });
    fourth.to_send(Sid(OWN), "I am in").unwrap();
    assert_eq!(
        ring.others[0].recv_timeout(LONG).unwrap().payload,
        "I am in"
    );
    let silent = silent.load(Ordering::Acquire);
    let rejected = || since(&target.stats().rejected, &before[0].rejected);
    eventually("all of them are gone", || {
        rejected().values().sum::<u64>() >= silent
    });
    eventually("the tables are as before", || {
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
        assert_eq!(now.ups, before.ups + 1, "the late member, and nobody else");
        assert_eq!(now.downs, before.downs);
    }
}

#[test]
fn who_has_named_himself_is_read_before_he_is_evicted() {
    // In the test's hands, so that the member and the silent ones behind it come in one turn.
    let (listener, address) = listener();
    let (member, _) = support::listener();
    let member_at = member.local_addr().unwrap().to_string();
    let config = configure(1, &[(1, &address), (2, &member_at)])
        .listener(listener)
        .pending_max(2)
        .build()
        .unwrap();
    let mut event_loop = EventLoop::new(config, Deaf).unwrap();
    let _member = Puppet::say(HOME, &address, &bare(2));
    let _silent: Vec<Puppet> = (0..10).map(|_| Puppet::dial(ABROAD, &address)).collect();
    let handle = event_loop.handle().clone();
    eventually("all are accepted", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.stats().accepted == 11
    });
    eventually("the member is linked", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.connected_to_peer(Sid(2))
    });
}

/// Takes what comes and says nothing.
struct Deaf;

impl Handler for Deaf {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}

#[test]
fn a_knock_at_a_member_that_is_away_dials_the_configured_address_only() {
    let configured = listener();
    let elsewhere = listener();
    let (manager, address) = alone(5, &[(2, &configured.1)], |builder| {
        builder.dial(Dial::OnDemand)
    });
    Puppet::say(ABROAD, &address, &versioned(V1, 2, &elsewhere.1)).wait_closed();
    let mut dialed = Puppet::accept(&configured.0);
    assert_eq!(dialed.hello().sid, 5);
    eventually("the member is linked", || {
        manager.linked_peers() == [Sid(2)]
    });
    elsewhere.0.set_nonblocking(true).unwrap();
    assert!(
        elsewhere.0.accept().is_err(),
        "a stranger's address was dialed"
    );
}

/// A manager 5 with a larger peer 9 that is the test's own end, linked, and the stranger that claims to be 9.
fn contended(replace: Replace) -> (CnxManager, Puppet, Puppet, Vacant) {
    let vacant = Vacant::new();
    let (manager, address) = alone(5, &[(9, &vacant.address)], |builder| {
        builder
            .replace(replace)
            .peer_dead_after(Duration::from_secs(3600))
    });
    let older = Puppet::say(HOME, &address, &bare(9));
    eventually("the member is linked", || manager.connected_to_peer(Sid(9)));
    let accepted = manager.stats().accepted;
    let stranger = Puppet::say(ABROAD, &address, &[bare(9), frame("early")].concat());
    eventually("the stranger is accepted", || {
        manager.stats().accepted > accepted
    });
    (manager, older, stranger, vacant)
}

#[test]
fn a_contender_takes_over_when_the_older_link_ends() {
    let (manager, mut older, mut stranger, _vacant) = contended(Replace::Proven);
    // The older link goes on in both directions, and the contender is not heard.
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
    // What may have been lost with the older link is sent once more.
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
        Event::Up { addr, .. } if addr.ip() == ABROAD => Some(*addr),
        _ => None,
    });
    assert_eq!(addr, stranger.addr());
}

#[test]
fn a_member_at_home_replaces_its_link_and_sends_the_contender_away() {
    let (manager, mut older, mut stranger, _vacant) = contended(Replace::Proven);
    let address = older.0.peer_addr().unwrap().to_string();
    let mut newer = Puppet::say(HOME, &address, &[bare(9), frame("newer")].concat());
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
fn with_replace_newest_a_stranger_takes_over_at_once() {
    let (manager, mut older, mut stranger, _vacant) = contended(Replace::Newest);
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
fn joiners_are_admitted_up_to_the_limit_and_dialed_back_where_they_say() {
    let siege = Siege::lay_with(|builder| builder.unknown(Unknown::Admit { max: 2 }));
    let target = siege.target();
    // A larger one keeps its connection.
    let mut larger = siege.stranger(&[bare(50), frame("from 50")].concat());
    let message = siege.ring.others[0].recv_timeout(LONG).unwrap();
    assert_eq!(
        (message.from, &message.payload[..]),
        (Sid(50), &b"from 50"[..])
    );
    target.to_send(Sid(50), "to 50").unwrap();
    assert_eq!(larger.recv(), b"to 50");
    // A smaller one is dialed back, at the first of its addresses that answers.
    let (dead, home) = (Vacant::new(), listener());
    let addresses = format!("{}|{}", dead.address, home.1);
    siege.stranger(&versioned(V2, 0, &addresses)).wait_closed();
    let mut smaller = Puppet::accept(&home.0);
    let hello = smaller.hello();
    assert_eq!((hello.version, hello.sid), (Some(V1), OWN));
    assert_eq!(hello.addresses, siege.address());
    smaller.send("from 0");
    assert_eq!(
        siege.ring.others[0].recv_timeout(LONG).unwrap().from,
        Sid(0)
    );
    target.to_send(Sid(0), "to 0").unwrap();
    assert_eq!(smaller.recv(), b"to 0");
    // Both places are taken, and a smaller one that cannot be dialed has no use for one.
    siege.stranger(&bare(51)).wait_closed();
    siege.wait_rejected(1);
    siege.stranger(&bare(0)).wait_closed();
    assert_eq!(siege.rejected(), [(ReasonKind::AdmittedFull, 1)].into());
    assert_eq!(target.stats().peers.len(), 3 + 2);
    // Who has left keeps his place until somebody needs it.
    drop(larger);
    siege.wait_downs(1);
    assert_eq!(
        target.to_send(Sid(50), "come back"),
        Ok(SendOutcome::Queued)
    );
    let mut next = siege.stranger(&bare(51));
    eventually("the newcomer is linked", || {
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
    siege.ring.wait_rounds(3);
    assert_eq!(siege.downs(), [(ReasonKind::Closed, 1)].into());
}

#[test]
fn a_joiner_that_cannot_be_dialed_back_is_forgotten() {
    let siege = Siege::lay_with(|builder| builder.unknown(Unknown::Admit { max: 2 }));
    let dead = Vacant::new();
    let failures = siege.target().stats().dial_failures;
    for _ in 0..10 {
        siege
            .stranger(&versioned(V1, 0, &dead.address))
            .wait_closed();
    }
    eventually("the dial has failed", || {
        siege.target().stats().dial_failures > failures
    });
    eventually("it is forgotten", || {
        siege.target().stats().peers.len() == 3
    });
    siege.lift(&[], &[]);
}

#[test]
fn observers_without_an_id_get_one_and_keep_their_link() {
    let siege = Siege::lay_with(|builder| builder.observers_max(2));
    let target = siege.target();
    let hello = versioned(V1, i64::MAX, "127.0.0.1:3888");
    let mut observers = Vec::new();
    for (sid, hello) in [(-1, bare(i64::MAX)), (-2, hello.clone())] {
        let mut observer = siege.stranger(&[hello, frame("observing")].concat());
        let message = siege.ring.others[0].recv_timeout(LONG).unwrap();
        assert_eq!(
            (message.from, &message.payload[..]),
            (Sid(sid), &b"observing"[..])
        );
        assert_eq!(
            target.to_send(Sid(sid), "observe this"),
            Ok(SendOutcome::Written)
        );
        assert_eq!(observer.recv(), b"observe this");
        observers.push(observer);
    }
    // Nobody can claim an id that was given.
    siege
        .stranger(&versioned(V1, -1, "127.0.0.1:3888"))
        .wait_closed();
    siege.wait_rejected(1);
    // A third has no place until one of the two leaves.
    siege.stranger(&hello).wait_closed();
    siege.wait_rejected(2);
    assert_eq!(
        siege.rejected(),
        [(ReasonKind::UnknownSid, 1), (ReasonKind::ObserversFull, 1)].into()
    );
    drop(observers.remove(0));
    siege.wait_downs(1);
    eventually("the observer is forgotten", || {
        target.to_send(Sid(-1), "hello?") == Err(SendError::UnknownPeer(Sid(-1)))
    });
    let third = siege.stranger(&hello);
    eventually("a third observer is linked", || {
        target.connected_to_peer(Sid(-3))
    });
    drop((observers, third));
    siege.wait_downs(3);
    eventually("the observers are forgotten", || {
        target.stats().peers.len() == 3
    });
    siege.lift(
        &[(ReasonKind::UnknownSid, 1), (ReasonKind::ObserversFull, 1)],
        &[(ReasonKind::Closed, 3)],
    );
}

#[test]
fn observers_can_be_refused_altogether() {
    let siege = Siege::lay_with(|builder| builder.observers_max(0));
    siege.stranger(&bare(i64::MAX)).wait_closed();
    siege.wait_rejected(1);
    siege.lift(&[(ReasonKind::ObserversFull, 1)], &[]);
}

#[test]
fn a_refused_connection_is_told_with_its_origin_its_claim_and_its_reason() {
    let siege = Siege::lay();
    let rejection = |bytes: &[u8]| {
        let mut stranger = siege.stranger(bytes);
        stranger.wait_closed();
        let addr = stranger.addr();
        wait_for(siege.target(), |event| match event {
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
    let (sid, reason) = rejection(&versioned(V1, AWAY, "nonsense"));
    assert_eq!((sid, reason.kind().name()), (None, "bad-challenge"));
}

#[test]
fn a_flood_of_frames_on_one_link_leaves_time_for_the_others() {
    let away = Vacant::new();
    let mesh = Mesh::linked(&[OWN, 1, 3], &[(AWAY, &away.address)], |builder| builder);
    let target = &mesh.managers[0];
    let before = target.stats();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let frames: Vec<u8> = (0..4000).flat_map(|_| frame([9; 60])).collect();
            let mut stranger = Puppet::say(ABROAD, &mesh.addresses[0], &bare(AWAY));
            while !stop.load(Ordering::Acquire) {
                stranger.write(&frames);
            }
        });
        eventually("the flood has come", || {
            target.stats().received.bytes > 10 << 20
        });
        // The flood fills the inbox, so this looks at what was received, not at what is left of it.
        for round in 1..=100 {
            for member in &mesh.managers[1..] {
                member.to_send(Sid(OWN), "in between").unwrap();
            }
            eventually("the members are heard", || {
                let heard = |sid| received(target, sid) - received_in(&before, sid);
                heard(1) >= round && heard(3) >= round
            });
        }
        Puppet::say(ABROAD, &mesh.addresses[0], &bare(77)).wait_closed();
        stop.store(true, Ordering::Release);
    });
    // It is counted after it is unlinked.
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

/// Frames that have come from a peer.
fn received(manager: &CnxManager, sid: i64) -> u64 {
    received_in(&manager.stats(), sid)
}

fn received_in(stats: &Stats, sid: i64) -> u64 {
    let of_sid = |peer: &&quorum_cnx::PeerStats| peer.sid == Sid(sid);
    stats
        .peers
        .iter()
        .find(of_sid)
        .map_or(0, |peer| peer.received.frames)
}

#[test]
fn two_servers_with_one_id_are_told_of() {
    let vacant = Vacant::new();
    let (manager, address) = alone(5, &[(9, &vacant.address)], |builder| builder);
    let twins: Vec<Puppet> = (1..=5)
        .map(|ups| {
            let twin = Puppet::say(HOME, &address, &bare(9));
            eventually("the twin is linked", || manager.stats().ups == ups);
            twin
        })
        .collect();
    let sid = wait_for(&manager, |event| match event {
        Event::Flapping { sid, .. } => Some(*sid),
        _ => None,
    });
    assert_eq!(sid, Sid(9));
    drop(twins);
}
