//! Dials of several addresses and during name lookups, peers whose address changes, dead links, and connections of others with the sid of
//! a peer.
//!
//! The network is simulated: the test decides when a connection, an answer of the resolver or a deadline arrives.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    slice,
    time::Duration,
};

use quorum_cnx::{
    Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, InitialMessageVersion, Reason,
    Sid, Unknown,
    simulation::limits::{
        BACKOFF_MAX, CONNECT_TIMEOUT, DIAL_STAGGER, DIALS_AT_ONCE, KNOCK_CROSSING, LOOKUP_GRACE,
        LOOKUP_TIMEOUT, PROVEN_AFTER, RENEWAL_PAUSE_MAX, RESOLVE_PAUSE, SILENT_AFTER,
        UNHEARD_RENEWAL_PAUSE,
    },
    simulation::{Call, Host, HostNet, Network, RemoteEnd},
};

const OWN: i64 = 5;
const SMALLER: i64 = 1;
const LARGER: i64 = 9;

const MEMBER_IP: &str = "10.0.0.100:4000";
const OLD: &str = "10.0.0.1:4000";
const NEW: &str = "10.0.0.2:4000";
const THIRD: &str = "10.0.0.3:4000";

/// Time between two knocks.
const KNOCK: Duration = Duration::from_millis(250);

/// The frames and the events of the loop.
#[derive(Default)]
struct Recorder {
    frames: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Handler for Recorder {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.frames.push(frame.to_vec());
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.events.push(event.clone());
    }
}

/// A loop with one peer, whose end of each connection the test holds.
struct World {
    network: Network,
    host: Host,
    event_loop: EventLoop<Recorder, HostNet>,
}

impl World {
    /// The peer has a name, which has been resolved to [`OLD`].
    fn with(peer: i64) -> Self {
        let mut world = Self::at(peer, "peer.example:4000");
        world.answer(OLD);
        world
    }

    /// The peer has these addresses, and no lookup has been answered.
    fn at(peer: i64, addresses: &str) -> Self {
        Self::configured(|builder| builder.server(Sid(peer), addresses))
    }

    fn configured(more: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let network = Network::new();
        network.hold_lookups();
        let host = network.host([10, 0, 0, 100]);
        let builder = Config::builder(Sid(OWN)).server(Sid(OWN), MEMBER_IP);
        let config = more(builder).build().unwrap();
        let event_loop = EventLoop::with_net(config, Recorder::default(), host.net()).unwrap();
        let mut world = Self {
            network,
            host,
            event_loop,
        };
        world.settle();
        world
    }

    /// The larger peer has connected from [`OLD`] and has sent "first".
    fn linked() -> (Self, RemoteEnd) {
        let mut world = Self::with(LARGER);
        let link = world.arrive(LARGER, b"first", OLD);
        assert_eq!(world.frames(), [b"first"]);
        (world, link)
    }

    /// The smaller peer has refused a dial, and was dialed again.
    fn redialed() -> (Self, RemoteEnd) {
        let mut world = Self::with(SMALLER);
        let (_, ends) = world.dials();
        world.end_dial(&ends[0], false);
        world.pass(BACKOFF_MAX);
        let (dialed, mut ends) = world.dials();
        assert_eq!(dialed, [OLD]);
        (world, ends.remove(0))
    }

    /// The smaller peer was dialed, and is linked.
    fn linked_by_a_dial() -> Self {
        let mut world = Self::with(SMALLER);
        world.accept_dial();
        world
    }

    fn settle(&mut self) {
        let loops = slice::from_mut(&mut self.event_loop);
        self.network.settle(loops).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.network.advance(time);
        self.settle();
    }

    /// Answers all lookups with this address.
    fn answer(&mut self, address: &str) {
        self.answer_for("", Ok(&[address]));
    }

    /// Answers the lookups of names with this beginning.
    fn answer_for(&mut self, beginning: &str, answer: Result<&[&str], &str>) {
        let mut names = self.network.waiting_lookups();
        names.retain(|name| name.starts_with(beginning));
        for name in names {
            match answer {
                Ok(addresses) => self.network.set_name(&name, addresses.iter().map(ip)),
                Err(message) => self.network.fail_name(&name, message),
            }
            self.network.answer_lookups(&name);
        }
        self.settle();
    }

    fn lookups(&self) -> usize {
        self.network.waiting_lookups().len()
    }

    /// The addresses that were dialed since the last call, and the far ends of these dials.
    fn dials(&self) -> (Vec<String>, Vec<RemoteEnd>) {
        let ends = self.network.take_dials();
        let addresses = ends.iter().map(|end| end.local_addr().to_string());
        (addresses.collect(), ends)
    }

    /// Completes or refuses a dial.
    fn end_dial(&mut self, end: &RemoteEnd, accept: bool) {
        match accept {
            true => end.accept().unwrap(),
            false => end.refuse().unwrap(),
        }
        self.settle();
    }

    /// Completes the one dial of the smaller peer, which is then linked.
    fn accept_dial(&mut self) {
        let (_, ends) = self.dials();
        assert_eq!(ends.len(), 1);
        self.end_dial(&ends[0], true);
        assert!(self.is_linked());
    }

    fn is_linked(&self) -> bool {
        self.event_loop.handle().connected_to_peer(Sid(SMALLER))
    }

    /// A connection with this sid arrives from there, with a frame. Without a frame it is a knock.
    fn arrive(&mut self, sid: i64, frame: &[u8], from: &str) -> RemoteEnd {
        let (from, to) = (from.parse().unwrap(), MEMBER_IP.parse().unwrap());
        let end = self.network.connect(from, to).unwrap();
        end.send(&sid.to_be_bytes()).unwrap();
        if frame.is_empty() {
            end.shutdown_write().unwrap();
        } else {
            end.send(&(frame.len() as u32).to_be_bytes()).unwrap();
            end.send(frame).unwrap();
        }
        self.settle();
        end
    }

    /// This many knocks with the sid of the smaller peer arrive, one each [`KNOCK`]. Returns how often the peer was dialed. Each
    /// dial is completed.
    fn knock(&mut self, from: &str, knocks: u32) -> usize {
        let mut dials = 0;
        for _ in 0..knocks {
            self.arrive(SMALLER, b"", from);
            self.pass(KNOCK);
            if self.lookups() > 0 {
                self.answer(OLD);
            }
            let (_, ends) = self.dials();
            assert!(ends.len() <= 1);
            for end in ends {
                dials += 1;
                self.end_dial(&end, true);
                assert!(self.is_linked());
            }
        }
        dials
    }

    fn frames(&self) -> &[Vec<u8>] {
        &self.event_loop.handler().frames
    }

    /// The dials that have failed: the address, and the reason.
    fn failures(&self) -> Vec<(Option<String>, String)> {
        let failure = |event: &Event| match event {
            Event::DialFailed { addr, reason, .. } => {
                Some((addr.map(|addr| addr.to_string()), reason.to_string()))
            }
            _ => None,
        };
        let events = &self.event_loop.handler().events;
        events.iter().filter_map(failure).collect()
    }
}

fn ip(address: &&str) -> IpAddr {
    address.parse::<SocketAddr>().unwrap().ip()
}

#[test]
fn a_dial_is_redirected_when_its_name_has_moved() {
    let mut world = World::with(SMALLER);
    let (dialed, first) = world.dials();
    assert_eq!(dialed, [OLD]);
    world.arrive(SMALLER, b"", NEW);
    assert!(!first[0].was_reset(), "any host can send a knock");
    world.answer(NEW);
    assert!(first[0].was_reset());
    assert_eq!(world.dials().0, [NEW]);
}

#[test]
fn a_peer_is_recognized_at_its_new_address() {
    let (mut world, first) = World::linked();
    world.arrive(LARGER, b"again", NEW);
    assert_eq!(world.frames(), [b"first"], "any host can claim the sid");
    assert!(!first.was_reset());
    world.answer(NEW);
    assert_eq!(world.frames(), [&b"first"[..], b"again"]);
    assert!(first.was_reset());
}

#[test]
fn false_claims_change_nothing_and_cause_few_lookups() {
    let (mut world, link) = World::linked();
    for _ in 0..3 {
        for _ in 0..10 {
            world.arrive(LARGER, b"false", NEW);
        }
        assert_eq!(world.lookups(), 1);
        world.answer(OLD);
        world.arrive(LARGER, b"false", NEW);
        assert_eq!(world.lookups(), 0, "the name was looked up just now");
        world.network.advance(RESOLVE_PAUSE);
    }
    assert_eq!(world.frames(), [b"first"]);
    assert!(!link.was_reset());
}

#[test]
fn a_known_address_is_dialed_while_a_name_is_looked_up() {
    for addresses in [
        "10.0.0.1:4000|peer.example:4000",
        "peer.example:4000|10.0.0.1:4000",
    ] {
        let mut world = World::at(SMALLER, addresses);
        let (dialed, ends) = world.dials();
        assert_eq!(dialed, [OLD]);
        assert_eq!(world.lookups(), 1);
        // The address of the name is dialed next.
        world.answer(NEW);
        assert!(!ends[0].was_reset());
        world.end_dial(&ends[0], false);
        assert_eq!(world.dials().0, [NEW]);
    }
}

#[test]
fn a_slow_name_does_not_delay_another_name_of_the_peer() {
    let mut world = World::at(SMALLER, "slow.example:4000|peer.example:4000");
    assert_eq!(world.dials().0, [""; 0]);
    world.answer_for("peer", Ok(&[NEW]));
    let (dialed, ends) = world.dials();
    assert_eq!(dialed, [NEW]);
    world.answer_for("slow", Ok(&[OLD, NEW]));
    world.end_dial(&ends[0], false);
    assert_eq!(world.dials().0, [OLD], "each address is tried once");
}

#[test]
fn a_silent_name_server_delays_no_dial() {
    let mut world = World::with(SMALLER);
    for _ in 0..5 {
        // From the second dial on, the lookup of the name gets no answer.
        let (dialed, ends) = world.dials();
        assert_eq!(dialed, [OLD]);
        world.end_dial(&ends[0], false);
        world.pass(LOOKUP_GRACE);
        world.pass(BACKOFF_MAX);
    }
    let failures = world.failures();
    assert_eq!(failures.len(), 5);
    assert!(failures.iter().all(|(at, _)| at.as_deref() == Some(OLD)));
    assert_eq!(world.lookups(), 1);
}

#[test]
fn a_moved_peer_is_dialed_at_its_new_address() {
    // The old address refuses before the lookup is answered.
    let (mut world, second) = World::redialed();
    world.end_dial(&second, false);
    assert_eq!(world.failures().len(), 1, "the answer may still arrive");
    world.answer(NEW);
    assert_eq!(world.dials().0, [NEW]);
    assert_eq!(world.failures().len(), 1);

    // The old address does not answer at all.
    let (mut world, second) = World::redialed();
    world.answer(NEW);
    assert!(second.was_reset());
    assert_eq!(world.dials().0, [NEW]);
}

#[test]
fn a_link_to_an_outdated_address_is_ended() {
    let (mut world, old) = World::redialed();
    // Another host has the old address now, and accepts before the lookup is answered.
    world.end_dial(&old, true);
    assert!(world.is_linked());
    world.answer(NEW);
    assert!(old.was_reset());
    world.pass(BACKOFF_MAX);
    let (dialed, new) = world.dials();
    assert_eq!(dialed, [NEW]);
    world.end_dial(&new[0], true);
    assert!(world.is_linked());
    // A name with another meaning at each answer does not make the link flap.
    for address in [OLD, NEW, OLD] {
        world.answer(address);
        world.pass(BACKOFF_MAX);
    }
    assert_eq!(world.dials().0, [""; 0]);
    assert!(!new[0].was_reset());
}

#[test]
fn resolver_errors_of_all_names_are_reported() {
    let mut world = World::at(SMALLER, "one.example:4000|two.example:4000|three.example:1");
    world.answer_for("one", Err("Temporary failure in name resolution"));
    world.answer_for("two", Ok(&["0.0.0.0:0"]));
    assert_eq!(world.failures(), []);
    world.pass(LOOKUP_TIMEOUT);
    let failures = world.failures();
    let [(None, why)] = &failures[..] else {
        panic!("{failures:?}")
    };
    for part in [
        "one.example (Temporary failure in name resolution)",
        "two.example (",
        "three.example (no answer",
    ] {
        assert!(why.contains(part), "{why}");
    }
    // The length of the text has a bound.
    world.pass(BACKOFF_MAX);
    world.answer_for("", Err(&"no such name, and I mean it! ".repeat(100)));
    let (_, why) = world.failures().pop().unwrap();
    assert!(why.len() < 600, "{why}");
}

#[test]
fn an_interrupted_initial_message_is_written_again() {
    let mut world = World::at(SMALLER, "10.0.0.1:1");
    let (_, ends) = world.dials();
    let interrupted = ErrorKind::Interrupted.into();
    world.host.fail_next(Call::Write, interrupted);
    world.end_dial(&ends[0], true);
    assert_eq!(world.failures(), []);
    assert!(world.is_linked());
    assert!(!ends[0].received().is_empty());
}

#[test]
fn a_looked_up_address_is_dialed_beside_one_that_does_not_answer() {
    let mut world = World::at(SMALLER, "10.0.0.1:4000|peer.example:4000");
    world.answer(NEW);
    let (dialed, old) = world.dials();
    assert_eq!(dialed, [OLD]);
    world.pass(DIAL_STAGGER);
    let (dialed, new) = world.dials();
    assert_eq!(dialed, [NEW]);
    // Each has its own time.
    world.pass(CONNECT_TIMEOUT - DIAL_STAGGER);
    assert!(old[0].is_closed() && !new[0].is_closed());
    assert_eq!(world.failures(), []);
    world.pass(DIAL_STAGGER);
    assert!(new[0].is_closed());
    assert_eq!(world.failures()[0].0.as_deref(), Some(NEW));
}

#[test]
fn dead_addresses_delay_a_dial_and_a_knock_by_less_than_300_ms() {
    for peer in [SMALLER, LARGER] {
        let mut world = World::at(peer, &format!("{OLD}|{THIRD}|{NEW}"));
        let mut ends = Vec::new();
        while ends.len() < 3 {
            assert!(world.network.elapsed() < Duration::from_millis(300));
            world.pass(Duration::from_millis(10));
            ends.extend(world.dials().1);
        }
        world.end_dial(&ends[2], true);
        assert_eq!(ends[2].local_addr().to_string(), NEW);
        assert!(!ends[2].received().is_empty());
        assert!(ends[..2].iter().all(RemoteEnd::is_closed));
        assert_eq!(world.failures(), []);
    }
}

/// A knock and an initial message of each kind.
#[test]
fn one_of_two_connections_carries_the_initial_message_and_the_other_only_ends() {
    for (peer, version) in [
        (SMALLER, InitialMessageVersion::V1),
        (SMALLER, InitialMessageVersion::Native),
        (LARGER, InitialMessageVersion::V1),
        (LARGER, InitialMessageVersion::Native),
    ] {
        for winner in [0, 1] {
            let mut world = World::configured(|builder| {
                let addresses = format!("{OLD}|{NEW}|{THIRD}");
                let builder = builder.server(Sid(peer), &addresses);
                builder.initial_message(version)
            });
            world.pass(DIAL_STAGGER);
            let (dialed, ends) = world.dials();
            assert_eq!(dialed, [OLD, NEW]);
            // Both are connected before the loop looks.
            ends[winner].accept().unwrap();
            ends[1 - winner].accept().unwrap();
            world.settle();
            let carries = |end: &RemoteEnd| !end.received().is_empty();
            assert_eq!(ends.iter().filter(|end| carries(end)).count(), 1);
            let loser = ends.iter().find(|end| !carries(end)).unwrap();
            assert!(loser.is_closed() && !loser.was_reset());
            world.pass(DIAL_STAGGER);
            assert_eq!(world.dials().0, [""; 0], "nothing more is dialed");
            // The other one is dialed if this one is refused. A knock in the old form cannot be.
            if version == InitialMessageVersion::Native {
                let carrier = ends.iter().find(|end| carries(end)).unwrap();
                carrier.reset();
                world.settle();
                let lost = loser.local_addr().to_string();
                assert_eq!(world.dials().0, [lost]);
            }
        }
    }
}

#[test]
fn a_dial_has_few_connections_and_goes_on_after_an_error() {
    let all: Vec<String> = (1..=9).map(|n| format!("10.0.1.{n}:4000")).collect();
    let mut world = World::at(SMALLER, &all.join("|"));
    let mut ends = Vec::new();
    for _ in 0..10 {
        ends.extend(world.dials().1);
        world.pass(DIAL_STAGGER);
    }
    assert_eq!(ends.len(), DIALS_AT_ONCE);
    world.end_dial(&ends[1], false);
    assert_eq!(world.dials().0, [&*all[DIALS_AT_ONCE]]);
}

#[test]
fn only_dials_to_outdated_addresses_are_redirected() {
    let mut world = World::at(SMALLER, "peer.example:4000");
    world.answer_for("", Ok(&[OLD, NEW]));
    for _ in 0..2 {
        let (_, ends) = world.dials();
        world.end_dial(&ends[0], false);
    }
    world.pass(BACKOFF_MAX);
    world.pass(DIAL_STAGGER);
    let (dialed, ends) = world.dials();
    assert_eq!(dialed, [OLD, NEW]);
    world.answer_for("", Ok(&[NEW, THIRD]));
    assert!(ends[0].was_reset() && !ends[1].is_closed());
    assert_eq!(world.dials().0, [THIRD]);
    world.answer_for("", Ok(&[NEW, THIRD]));
    world.end_dial(&ends[1], true);
    assert!(world.is_linked());
}

#[test]
fn the_address_of_the_last_proven_link_is_dialed_first() {
    let mut world = World::at(SMALLER, &format!("{OLD}|{NEW}"));
    for (lasted, next) in [(Duration::ZERO, OLD), (PROVEN_AFTER, NEW)] {
        let (dialed, ends) = world.dials();
        assert_eq!(dialed, [OLD]);
        world.end_dial(&ends[0], false);
        let (dialed, ends) = world.dials();
        assert_eq!(dialed, [NEW]);
        world.end_dial(&ends[0], true);
        assert!(world.is_linked());
        world.pass(lasted);
        ends[0].reset();
        world.settle();
        world.network.advance(BACKOFF_MAX);
        world.settle();
        let (dialed, ends) = world.dials();
        assert_eq!(dialed, [next]);
        // For the second round: all addresses fail.
        world.end_dial(&ends[0], false);
        world.end_dial(&world.dials().1[0], false);
        world.pass(BACKOFF_MAX);
    }
}

#[test]
fn addresses_of_an_admitted_server_are_dialed_beside_each_other() {
    let mut world = World::configured(|builder| builder.unknown(Unknown::admit(1)));
    let from = "10.0.0.9:40000".parse().unwrap();
    let knock = world
        .network
        .connect(from, MEMBER_IP.parse().unwrap())
        .unwrap();
    let addresses = format!("{OLD}|{NEW}");
    knock.send(&(-65535_i64).to_be_bytes()).unwrap();
    knock.send(&SMALLER.to_be_bytes()).unwrap();
    let len = addresses.len() as u32;
    knock.send(&len.to_be_bytes()).unwrap();
    knock.send(addresses.as_bytes()).unwrap();
    knock.shutdown_write().unwrap();
    world.settle();
    assert_eq!(world.network.elapsed(), Duration::ZERO);
    world.pass(DIAL_STAGGER);
    let (dialed, ends) = world.dials();
    assert_eq!(dialed, [OLD, NEW]);
    world.end_dial(&ends[1], true);
    assert!(world.is_linked());
    assert!(ends[0].is_closed() && ends[0].received().is_empty());
}

#[test]
fn a_silent_link_from_a_configured_address_is_kept() {
    let mut world = World::with(LARGER);
    let link = world.arrive(LARGER, b"first", NEW);
    // Only this answer shows that the peer has this address.
    world.answer(NEW);
    for _ in 0..3 {
        world.network.advance(Duration::from_secs(3600));
        world.arrive(LARGER, b"false", THIRD);
        world.answer(NEW);
        world.pass(SILENT_AFTER);
    }
    assert_eq!(world.frames(), [b"first"]);
    assert!(!link.was_reset());
}

#[test]
fn a_silent_link_from_another_address_is_replaced() {
    let mut world = World::with(LARGER);
    let link = world.arrive(LARGER, b"first", NEW);
    world.answer(OLD);
    world.network.advance(RESOLVE_PAUSE);
    world.arrive(LARGER, b"again", THIRD);
    world.pass(SILENT_AFTER);
    assert_eq!(world.frames(), [b"first"], "the name may mean this address");
    world.answer(OLD);
    world.pass(SILENT_AFTER);
    assert_eq!(world.frames(), [&b"first"[..], b"again"]);
    assert!(link.was_reset());
}

#[test]
fn knocks_from_the_configured_address_renew_a_link_seldom() {
    let mut world = World::linked_by_a_dial();
    world.network.advance(KNOCK_CROSSING);
    // Ten minutes.
    let renewed = world.knock(OLD, 2400);
    let most = 10 * 60 / RENEWAL_PAUSE_MAX.as_secs() as usize + 6;
    assert!((6..=most).contains(&renewed), "{renewed} times");
    // After a while without knocks, the next one is followed at once, as at first.
    world.network.advance(RENEWAL_PAUSE_MAX);
    assert_eq!(world.knock(OLD, 2), 1);
}

#[test]
fn knocks_from_another_address_do_not_renew_a_link() {
    let mut world = World::with(SMALLER);
    // The member has knocked from its configured address.
    world.arrive(SMALLER, b"", OLD);
    world.accept_dial();
    world.network.advance(Duration::from_secs(3600));
    assert_eq!(world.knock(NEW, 2400), 0);
}

#[test]
fn a_silent_link_after_a_knock_from_another_address_is_renewed() {
    let mut world = World::with(SMALLER);
    world.arrive(SMALLER, b"", NEW);
    world.answer(OLD);
    world.accept_dial();
    world.network.advance(Duration::from_secs(3600));
    let few = 2 * SILENT_AFTER.as_millis() / KNOCK.as_millis();
    assert_eq!(world.knock(THIRD, few as u32), 1);
}

#[test]
fn a_silent_link_without_a_knock_is_renewed_seldom() {
    let mut world = World::linked_by_a_dial();
    world.network.advance(Duration::from_secs(3600));
    let knocks = |time: Duration| (time.as_millis() / KNOCK.as_millis()) as u32;
    assert_eq!(world.knock(NEW, knocks(UNHEARD_RENEWAL_PAUSE)), 1);
    assert_eq!(world.knock(NEW, knocks(UNHEARD_RENEWAL_PAUSE)), 1);
    let renewed = world.knock(NEW, knocks(RENEWAL_PAUSE_MAX * 10));
    assert!((8..=12).contains(&renewed), "{renewed} times");
}

#[test]
fn a_dead_link_is_reported_as_dead_by_read_and_write() {
    for with_a_frame in [false, true] {
        let (mut world, link) = World::linked();
        link.fail(ErrorKind::TimedOut);
        if with_a_frame {
            // The write takes the error of the connection. The read finds only its end.
            let handle = world.event_loop.handle();
            handle.to_send(Sid(LARGER), b"frame".as_slice()).unwrap();
        }
        world.settle();
        let reason = |event: &Event| match event {
            Event::Down { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let events = &world.event_loop.handler().events;
        let reasons: Vec<Reason> = events.iter().filter_map(reason).collect();
        assert_eq!(reasons, [Reason::Dead], "with a frame: {with_a_frame}");
    }
}
