//! Tests of whole networks, with real loops.

mod partitions;
mod runs;
mod servers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::{
    Config, Event, EventLoop, Frame, Handle, Handler, Reason, SendError, Sid,
    net::{Net as _, Stream as _},
    simulation::{Call, HostNet},
};

/// What a loop has received.
#[derive(Default)]
struct Seen {
    frames: Vec<Vec<u8>>,
    downs: Vec<Reason>,
    /// True exactly when each frame is answered.
    answers: bool,
}

impl Handler for Seen {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        if self.answers {
            handle.to_send(from, frame.to_vec()).unwrap();
        }
        self.frames.push(frame.to_vec());
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::Down { reason, .. } = event {
            self.downs.push(reason.clone());
        }
    }
}

type Loop = EventLoop<Seen, HostNet>;

fn ip(sid: i64) -> [u8; 4] {
    [10, 0, 0, sid as u8]
}

fn start(network: &Network, sid: i64, of: i64) -> Loop {
    let mut config = Config::builder(Sid(sid));
    for other in 1..=of {
        config = config.server(Sid(other), format!("10.0.0.{other}:3888"));
    }
    let net = network.host(ip(sid)).net();
    EventLoop::with_net(config.build().unwrap(), Seen::default(), net).unwrap()
}

fn mesh(servers: i64) -> (Network, Vec<Loop>) {
    let network = Network::new();
    let mut loops: Vec<Loop> = (1..=servers)
        .map(|sid| start(&network, sid, servers))
        .collect();
    network.run(&mut loops, seconds(1)).unwrap();
    for one in &loops {
        assert_eq!(one.handle().linked_peers().len() as i64, servers - 1);
    }
    (network, loops)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_mesh_is_linked_and_sends() {
    let (network, mut loops) = mesh(5);
    loops[0].handle().to_send(Sid(5), "vote").unwrap();
    let has_it = |loops: &mut [Loop]| !loops[4].handler().frames.is_empty();
    assert!(network.run_until(&mut loops, seconds(1), has_it).unwrap());
    assert_eq!(loops[4].handler().frames, [b"vote"]);
    assert!(network.elapsed() < millis(1_001));
}

#[test]
fn the_same_program_has_the_same_history() {
    let history = || {
        let (network, mut loops) = mesh(3);
        network.cut(ip(1), ip(3));
        loops[0].handle().to_send(Sid(3), vec![7; 100_000]).unwrap();
        network.run(&mut loops, seconds(20)).unwrap();
        network.heal(ip(1), ip(3));
        network.run(&mut loops, seconds(20)).unwrap();
        assert_eq!(loops[2].handler().frames, [[7; 100_000]]);
        let stats = loops
            .iter()
            .map(|one| format!("{:?}", one.handle().stats()));
        stats.collect::<Vec<_>>()
    };
    assert_eq!(history(), history());
}

#[test]
fn times_of_the_statistics_are_simulated() {
    let (network, mut loops) = mesh(2);
    loops[1].handle().to_send(Sid(1), "hello").unwrap();
    network.run(&mut loops, seconds(3600)).unwrap();
    let peer = loops[0].handle().stats().peers[0].clone();
    for since in [peer.link.unwrap().since, peer.last_received.unwrap()] {
        let age = network.now().duration_since(since);
        assert!(age >= seconds(3600) && age <= network.elapsed(), "{age:?}");
    }
}

#[test]
fn the_longest_times_are_allowed() {
    let (network, mut loops) = mesh(2);
    network.cut(ip(1), ip(2));
    let is_lost = |loops: &mut [Loop]| loops[0].handler().downs == [Reason::Dead];
    assert!(
        network
            .run_until(&mut loops, Duration::MAX, is_lost)
            .unwrap()
    );
    assert!(network.elapsed() < seconds(7));
    network.advance(Duration::MAX);
    let last = network.now();
    network.advance(Duration::MAX);
    network.run(&mut loops, Duration::MAX).unwrap();
    assert_eq!(network.now(), last);
}

#[test]
fn ends_without_a_limit_of_silence_never_time_out() {
    let network = Network::new();
    let mut net = network.host(ip(1)).net();
    net.set_dead_after(Duration::MAX);
    let to = "10.0.0.1:1".parse().unwrap();
    net.listen(0, to).unwrap();
    network.advance(seconds(1));
    let end = network.connect("10.0.0.7:1".parse().unwrap(), to).unwrap();
    network.isolate(ip(1));
    network.advance(Duration::MAX);
    assert!(end.is_open());
}

#[test]
fn loops_settle_without_time() {
    let network = Network::new();
    let mut loops: Vec<Loop> = (1..=3).map(|sid| start(&network, sid, 3)).collect();
    loops[2].handle().to_send(Sid(1), "vote").unwrap();
    network.settle(&mut loops).unwrap();
    assert_eq!(loops[0].handler().frames, [b"vote"]);
    assert_eq!(network.elapsed(), Duration::ZERO);
}

#[test]
fn names_are_looked_up_when_the_test_says_so() {
    let network = Network::new();
    network.hold_lookups();
    let config = Config::builder(Sid(2))
        .server(Sid(2), "10.0.0.2:3888")
        .server(Sid(1), "peer.example:3888");
    let net = network.host(ip(2)).net();
    let mut loops = [EventLoop::with_net(config.build().unwrap(), Seen::default(), net).unwrap()];
    network.run(&mut loops, seconds(1)).unwrap();
    assert_eq!(network.waiting_lookups(), ["peer.example"]);
    network.set_name("peer.example", [[10, 0, 0, 1]]);
    assert_eq!(network.answer_lookups("other.example"), 0);
    assert_eq!(network.answer_lookups("peer.example"), 1);
    network.run(&mut loops, seconds(1)).unwrap();
    let dials = network.take_dials();
    assert_eq!(dials[0].local_addr(), "10.0.0.1:3888".parse().unwrap());
    dials[0].refuse().unwrap();
    // An unknown name, and one whose lookup fails.
    network.remove_name("peer.example");
    network.release_lookups();
    network.run(&mut loops, seconds(2)).unwrap();
    network.fail_name("peer.example", "no name server");
    network.run(&mut loops, seconds(2)).unwrap();
    assert_eq!(network.waiting_lookups(), [""; 0]);
}

#[test]
fn a_wildcard_socket_and_several_addresses_are_one_host() {
    let network = Network::new();
    let host = network.host(ip(1));
    host.add_ip(ip(9));
    let config = Config::builder(Sid(1)).server(Sid(1), "10.0.0.1:3888|10.0.0.9:3888");
    let config = config.listen_on_all_ips(true).build().unwrap();
    let mut loops = [EventLoop::with_net(config, Seen::default(), host.net()).unwrap()];
    network.run(&mut loops, seconds(1)).unwrap();
    assert_eq!(host.listening().len(), 1);
    for to in ["10.0.0.1:3888", "10.0.0.9:3888"] {
        let from = "10.0.0.7:1".parse().unwrap();
        assert!(network.connect(from, to.parse().unwrap()).is_ok());
    }
    network.run(&mut loops, seconds(1)).unwrap();
    assert_eq!(
        (host.connections(), host.calls(Call::Accept) > 2),
        (2, true)
    );
    host.remove_ip(ip(9));
    let to = "10.0.0.9:3888".parse().unwrap();
    assert!(network.connect("10.0.0.7:1".parse().unwrap(), to).is_err());
}

#[test]
fn address_that_has_moved_leads_to_its_new_host() {
    let (network, mut loops) = mesh(2);
    let old = network.host(ip(1));
    old.add_ip(ip(8));
    old.remove_ip(ip(1));
    let to = "10.0.0.1:3888".parse().unwrap();
    assert!(network.connect("10.0.0.7:1".parse().unwrap(), to).is_err());
    // The old process listens on, at an address that its host does not have any more.
    network.host(ip(9)).add_ip(ip(1));
    loops.push(start(&network, 1, 2));
    loops[1].handle().initiate_connection(Sid(1)).unwrap();
    network.run(&mut loops, seconds(3)).unwrap();
    assert_eq!(loops[0].handle().linked_peers(), []);
    assert_eq!(loops[2].handle().linked_peers(), [Sid(2)]);
}

#[test]
fn servers_are_linked_in_any_order_of_start() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        for wait in [0, 1, 500, 1_000].map(millis) {
            let network = Network::new();
            let mut loops = Vec::new();
            for sid in order {
                loops.push(start(&network, sid, 3));
                network.run(&mut loops, wait).unwrap();
            }
            let before = network.elapsed();
            let is_linked = |one: &Loop| one.handle().linked_peers().len() == 2;
            let all_linked = |loops: &mut [Loop]| loops.iter().all(is_linked);
            assert!(
                network
                    .run_until(&mut loops, seconds(9), all_linked)
                    .unwrap()
            );
            let took = network.elapsed() - before;
            assert!(took < seconds(1), "{order:?} {wait:?}: {took:?}");
        }
    }
}

#[test]
fn waiting_dial_reaches_a_host_that_gets_its_address() {
    let network = Network::new();
    let mut net = network.host(ip(1)).net();
    let dial = |net: &mut HostNet| net.dial("10.0.0.2:1".parse().unwrap()).unwrap();
    // The test has taken the first dial. It stays with the test.
    let taken = dial(&mut net);
    let end = network.take_dials().remove(0);
    let (given_up, waits) = (dial(&mut net), dial(&mut net));
    drop(given_up);
    let mut far = network.host(ip(3)).net();
    far.listen(0, "0.0.0.0:1".parse().unwrap()).unwrap();
    network.host(ip(3)).add_ip(ip(2));
    assert!(waits.connected().unwrap() && !taken.connected().unwrap());
    assert_eq!(network.host(ip(3)).backlog("0.0.0.0:1".parse().unwrap()), 1);
    end.accept().unwrap();
    assert!(taken.connected().unwrap());
    assert!(network.take_dials().remove(0).is_closed());
}

#[test]
fn small_buffers_bound_what_waits() {
    let network = Network::new();
    network.set_buffers(1000, 1000);
    let mut loops = [start(&network, 1, 2), start(&network, 2, 2)];
    network.run(&mut loops, seconds(1)).unwrap();
    loops[0].handle().to_send(Sid(2), vec![1; 5000]).unwrap();
    // The receiver has not read, so that 2000 bytes are under way.
    let waiting = loops[0].handle().stats().sent.waiting;
    assert_eq!(waiting, 1);
    network.run(&mut loops, seconds(1)).unwrap();
    assert_eq!(loops[1].handler().frames, [vec![1; 5000]]);
    assert_eq!(loops[0].handle().stats().sent.waiting, 0);
}

#[test]
fn an_end_of_the_test_can_be_cut_off() {
    let network = Network::new();
    let mut loops = [start(&network, 1, 2)];
    let (from, to) = (
        "10.0.0.2:7".parse().unwrap(),
        "10.0.0.1:3888".parse().unwrap(),
    );
    let end = network.connect(from, to).unwrap();
    network.cut(ip(1), ip(2));
    assert_eq!(
        network.connect(from, to).unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    end.send(&2_i64.to_be_bytes()).unwrap();
    network.settle(&mut loops).unwrap();
    assert!(!loops[0].handle().connected_to_peer(Sid(2)));
    network.heal(ip(1), ip(2));
    network.settle(&mut loops).unwrap();
    assert!(loops[0].handle().connected_to_peer(Sid(2)));
    network.cut_one_way(ip(2), ip(1));
    network.run(&mut loops, seconds(6)).unwrap();
    assert_eq!(loops[0].handler().downs, [Reason::Dead]);
    assert!(end.send(b"late").is_err());
}

#[test]
#[should_panic(expected = "without power")]
fn no_loop_starts_without_power() {
    let host = Network::new().host(ip(1));
    host.power_off();
    drop(host.net());
}

#[test]
#[should_panic(expected = "another host has the address")]
fn an_address_belongs_to_one_host() {
    let network = Network::new();
    network.host(ip(1));
    network.host(ip(2)).add_ip(ip(1));
}

#[test]
fn a_loop_alone_runs_in_simulated_time() {
    let network = Network::new();
    network.move_time_in_waits(Duration::from_micros(1));
    let config = Config::builder(Sid(2))
        .server(Sid(2), "10.0.0.2:3888")
        .server(Sid(1), "10.0.0.1:3888");
    let handler = HaltsAfter(3);
    let net = network.host(ip(2)).net();
    let mut one = EventLoop::with_net(config.build().unwrap(), handler, net).unwrap();
    one.run().unwrap();
    // Each dial waits for the connect timeout.
    assert!(network.elapsed() > seconds(15));
}

#[test]
fn waiting_for_a_clock_that_stands_still_is_an_error() {
    let spin = crate::Idle::spin(millis(1));
    type Wait = fn(&mut EventLoop<HaltsAfter, HostNet>) -> io::Result<()>;
    let waits: [(crate::Idle, Wait); 2] = [
        (crate::Idle::Block, EventLoop::run),
        (spin, |one| {
            loop {
                one.turn(Some(millis(10)))?;
            }
        }),
    ];
    for (idle, wait) in waits {
        let config = Config::builder(Sid(1)).server(Sid(1), "10.0.0.1:3888");
        let net = Network::new().host(ip(1)).net();
        let config = config.idle(idle).build().unwrap();
        let mut one = EventLoop::with_net(config, HaltsAfter(1), net).unwrap();
        let error = wait(&mut one).unwrap_err().to_string();
        assert!(error.contains("use `Network::run`"), "{error}");
    }
}

#[test]
#[should_panic(expected = "is zero")]
fn waits_without_time_are_refused() {
    Network::new().move_time_in_waits(Duration::ZERO);
}

/// Halts the loop after so many dials that fail.
struct HaltsAfter(u32);

impl Handler for HaltsAfter {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if matches!(event, Event::DialFailed { .. }) {
            self.0 -= 1;
            if self.0 == 0 {
                handle.request_halt();
            }
        }
    }
}
