//! Tests of whole networks, with real loops.

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
    assert!(network.elapsed() < Duration::from_millis(1_001));
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
fn a_partition_is_noticed_and_healed() {
    for one_way in [false, true] {
        let (network, mut loops) = mesh(2);
        match one_way {
            true => network.cut_one_way(ip(1), ip(2)),
            false => network.cut(ip(1), ip(2)),
        }
        network
            .run(&mut loops, Duration::from_millis(4_900))
            .unwrap();
        assert!(loops[0].handle().connected_to_peer(Sid(2)));
        network.run(&mut loops, seconds(1)).unwrap();
        for one in &loops {
            assert_eq!(one.handler().downs, [Reason::Dead]);
        }
        network.run(&mut loops, seconds(60)).unwrap();
        assert!(!loops[0].handle().connected_to_peer(Sid(2)));
        network.heal_all();
        network.run(&mut loops, seconds(10)).unwrap();
        assert!(loops[0].handle().connected_to_peer(Sid(2)));
    }
}

/// Two linked servers. The first one has this `peer_dead_after`, in seconds, and the second one 5.
fn mesh_with_dead_after(first: u64) -> (Network, Vec<Loop>) {
    let network = Network::new();
    let config = Config::builder(Sid(1))
        .server(Sid(1), "10.0.0.1:3888")
        .server(Sid(2), "10.0.0.2:3888")
        .peer_dead_after(seconds(first));
    let net = network.host(ip(1)).net();
    let one = EventLoop::with_net(config.build().unwrap(), Seen::default(), net).unwrap();
    let mut loops = vec![one, start(&network, 2, 2)];
    network.run(&mut loops, seconds(1)).unwrap();
    (network, loops)
}

#[test]
fn each_server_notices_a_partition_after_its_own_time() {
    let (network, mut loops) = mesh_with_dead_after(2);
    network.cut(ip(1), ip(2));
    let downs = |loops: &[Loop]| [0, 1].map(|at| loops[at].handler().downs.clone());
    let millis = Duration::from_millis;
    for (run, expected) in [
        (millis(1_900), [vec![], vec![]]),
        (millis(200), [vec![Reason::Dead], vec![]]),
        (millis(2_800), [vec![Reason::Dead], vec![]]),
        (millis(200), [vec![Reason::Dead], vec![Reason::Dead]]),
    ] {
        network.run(&mut loops, run).unwrap();
        assert_eq!(downs(&loops), expected, "at {:?}", network.elapsed());
    }
}

#[test]
fn end_that_has_timed_out_resets_the_other_one() {
    let reset = Reason::Io(io::ErrorKind::ConnectionReset);
    // At once if the path in this direction is there, and else when it is healed.
    for one_way in [true, false] {
        let (network, mut loops) = mesh_with_dead_after(2);
        match one_way {
            true => network.cut_one_way(ip(2), ip(1)),
            false => network.cut(ip(1), ip(2)),
        }
        network.run(&mut loops, seconds(3)).unwrap();
        assert_eq!(loops[0].handler().downs, [Reason::Dead]);
        assert_eq!(loops[1].handler().downs.len(), usize::from(one_way));
        network.heal_all();
        network.run(&mut loops, seconds(3)).unwrap();
        assert_eq!(loops[1].handler().downs, std::slice::from_ref(&reset));
        assert!(loops[0].handle().connected_to_peer(Sid(2)));
    }
}

#[test]
fn isolated_host_reaches_nobody_until_it_rejoins() {
    let (network, mut loops) = mesh(3);
    network.host(ip(1)).add_ip(ip(9));
    network.isolate(ip(1));
    for from in [ip(1), ip(9)] {
        assert!(network.is_cut(from, ip(2)) && network.is_cut(ip(3), from));
    }
    assert!(!network.is_cut(ip(1), ip(9)) && !network.is_cut(ip(2), ip(3)));
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[0].handle().linked_peers(), []);
    assert_eq!(loops[1].handle().linked_peers(), [Sid(3)]);
    // Addresses that appear later.
    network.host(ip(1)).add_ip(ip(8));
    network.host(ip(4));
    assert!(network.is_cut(ip(4), ip(1)) && network.is_cut(ip(8), ip(4)));
    assert!(!network.is_cut(ip(8), ip(1)));
    // A single path.
    network.heal(ip(1), ip(2));
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[0].handle().linked_peers(), [Sid(2)]);
    network.isolate(ip(2));
    network.rejoin(ip(8));
    assert!(network.is_cut(ip(2), ip(1)) && !network.is_cut(ip(3), ip(1)));
    network.rejoin(ip(2));
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[0].handle().linked_peers(), [Sid(2), Sid(3)]);
}

#[test]
fn connections_that_are_over_take_no_part() {
    let (network, mut loops) = mesh(3);
    let live = || network.shared.lock().live.len();
    assert_eq!(live(), 3);
    for _ in 0..20 {
        loops[0].handle().soft_halt();
        network.run(&mut loops, seconds(2)).unwrap();
        assert_eq!(loops[0].handle().linked_peers().len(), 2);
    }
    assert_eq!(live(), 3);
    // Dials of a partition, and the connections of a host without power.
    network.cut(ip(1), ip(2));
    network.run(&mut loops, seconds(60)).unwrap();
    network.host(ip(3)).power_off();
    network.run(&mut loops, seconds(60)).unwrap();
    network.host(ip(3)).power_on();
    network.heal_all();
    loops[2] = start(&network, 3, 3);
    network.run(&mut loops, seconds(10)).unwrap();
    let held: usize = [1, 2, 3]
        .map(|sid| network.host(ip(sid)).connections())
        .iter()
        .sum();
    assert_eq!((live(), held), (3, 6));
    drop(loops);
    assert_eq!(live(), 0);
}

#[test]
fn connections_that_are_over_keep_no_buffers() {
    let (network, mut loops) = mesh(2);
    for _ in 0..3 {
        for (one, other) in [(0, 2), (1, 1)] {
            loops[one]
                .handle()
                .to_send(Sid(other), vec![7; 60_000])
                .unwrap();
        }
        network.run(&mut loops, seconds(2)).unwrap();
        loops[0].handle().soft_halt();
        network.run(&mut loops, seconds(2)).unwrap();
    }
    network.host(ip(1)).power_off();
    drop(loops);
    let state = network.shared.lock();
    assert!(state.connections.len() > 3);
    for connection in &state.connections {
        assert_eq!(connection.capacity(), 0);
    }
}

#[test]
fn one_direction_of_a_partition_is_healed() {
    let (network, _loops) = mesh(2);
    network.cut(ip(1), ip(2));
    network.heal_one_way(ip(2), ip(1));
    assert!(network.is_cut(ip(1), ip(2)) && !network.is_cut(ip(2), ip(1)));
}

/// What a call panics with.
fn panic_of(call: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn paths_between_unknown_or_equal_addresses_are_refused() {
    type Change = fn(&Network, [u8; 4], [u8; 4]);
    let changes: [Change; 5] = [
        |network, from, to| network.cut(from, to),
        |network, from, to| network.cut_one_way(from, to),
        |network, from, to| network.heal(from, to),
        |network, from, to| network.heal_one_way(from, to),
        |network, from, to| _ = network.is_cut(from, to),
    ];
    let network = Network::new();
    network.host(ip(1));
    network.host(ip(2));
    let unknown = "10.0.0.3 is no address of a host, nor of an end of a connection";
    for change in changes {
        change(&network, ip(1), ip(2));
        for (from, to) in [(ip(1), ip(3)), (ip(3), ip(2))] {
            assert_eq!(panic_of(|| change(&network, from, to)), unknown);
        }
        let equal = panic_of(|| change(&network, ip(1), ip(1)));
        assert!(equal.contains("from one address to another one"));
    }
    assert_eq!(panic_of(|| network.isolate(ip(3))), unknown);
    assert_eq!(panic_of(|| network.rejoin(ip(3))), unknown);
}

#[test]
fn dials_that_are_given_up_reach_nobody() {
    let (network, mut loops) = mesh(2);
    network.cut(ip(1), ip(2));
    network.run(&mut loops, seconds(60)).unwrap();
    let before = loops[0].handle().stats().accepted;
    network.heal_all();
    network.run(&mut loops, seconds(10)).unwrap();
    assert!(loops[0].handle().stats().accepted - before <= 2);
    assert!(network.host(ip(1)).connections() <= 2);
}

#[test]
fn a_short_partition_only_delays() {
    let (network, mut loops) = mesh(2);
    network.cut(ip(1), ip(2));
    loops[0].handle().to_send(Sid(2), "late").unwrap();
    network.run(&mut loops, seconds(3)).unwrap();
    assert_eq!(loops[1].handler().frames.len(), 0);
    network.heal(ip(2), ip(1));
    network.run(&mut loops, Duration::from_millis(1)).unwrap();
    assert_eq!(loops[1].handler().frames, [b"late"]);
    network.run(&mut loops, seconds(60)).unwrap();
    assert_eq!(loops[1].handler().downs, []);
}

#[test]
fn a_process_that_ends_closes_its_connections() {
    let (network, mut loops) = mesh(2);
    loops.remove(0);
    network.run(&mut loops, Duration::from_millis(1)).unwrap();
    assert_eq!(loops[0].handler().downs, [Reason::Closed]);
    assert_eq!(network.host(ip(1)).listening(), []);
    loops.push(start(&network, 1, 2));
    network.run(&mut loops, seconds(2)).unwrap();
    assert!(loops[0].handle().connected_to_peer(Sid(1)));
}

#[test]
fn loop_that_is_started_before_the_old_one_ends_listens_later() {
    let (network, mut loops) = mesh(2);
    loops[0] = start(&network, 1, 2);
    let one = network.host(ip(1));
    network.run(&mut loops, Duration::from_millis(990)).unwrap();
    assert_eq!(one.listening(), []);
    network.run(&mut loops, Duration::from_millis(20)).unwrap();
    assert_eq!(one.listening(), ["10.0.0.1:3888".parse().unwrap()]);
}

#[test]
fn a_host_without_power_is_silent() {
    let (network, mut loops) = mesh(2);
    let host = network.host(ip(1));
    host.power_off();
    assert!(loops[0].turn(Some(Duration::ZERO)).is_err());
    network.run(&mut loops, seconds(4)).unwrap();
    assert_eq!(loops[1].handler().downs, []);
    network.run(&mut loops, seconds(2)).unwrap();
    assert_eq!(loops[1].handler().downs, [Reason::Dead]);
    assert_eq!(loops[0].handler().downs, []);
    host.power_on();
    loops[0] = start(&network, 1, 2);
    network.run(&mut loops, seconds(10)).unwrap();
    for one in &loops {
        assert_eq!(one.handle().linked_peers().len(), 1);
    }
}

#[test]
fn lost_server_is_skipped_until_a_new_loop_replaces_it() {
    let (network, mut loops) = mesh(3);
    let sends = |server: &Loop| server.handle().to_send(Sid(2), "lost");
    network.host(ip(1)).power_off();
    // The loop cannot know yet. The frame goes nowhere.
    assert!(sends(&loops[0]).is_ok());
    assert!(!loops[0].handle().has_died());
    network.settle(&mut loops).unwrap();
    assert!(loops[0].handle().has_died());
    assert_eq!(sends(&loops[0]), Err(SendError::Halted));
    // The same without a turn, and with power but without a new loop.
    loops[1].handle().to_send(Sid(1), "first").unwrap();
    network.run(&mut loops, seconds(10)).unwrap();
    network.host(ip(1)).power_on();
    loops[1].handle().to_send(Sid(1), "newest").unwrap();
    loops[1].handle().to_send(Sid(3), "others go on").unwrap();
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[2].handler().frames, [b"others go on"]);
    loops[0] = start(&network, 1, 3);
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[0].handler().frames, [b"newest"]);
    assert_eq!(loops[1].handler().frames.len(), 0);
}

#[test]
fn halted_server_is_skipped() {
    let (network, mut loops) = mesh(3);
    loops[1].handle().request_halt();
    network.run(&mut loops, seconds(1)).unwrap();
    assert!(loops[1].handle().is_halted());
    loops[0].handle().to_send(Sid(3), "vote").unwrap();
    network.run(&mut loops, seconds(1)).unwrap();
    assert_eq!(loops[2].handler().frames, [b"vote"]);
}

#[test]
fn error_of_a_run_says_which_server_has_failed() {
    let (network, mut loops) = mesh(2);
    let error = io::Error::other("no event queue");
    network.host(ip(2)).fail_next(Call::Wait, error);
    let error = network.run(&mut loops, seconds(1)).unwrap_err();
    assert_eq!(error.to_string(), "server 2 at 10.0.0.2: no event queue");
    let error = network.run(&mut loops, seconds(1)).unwrap_err();
    let text = "server 2 at 10.0.0.2: an earlier turn was cut off";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_host_that_is_back_resets_its_old_connections() {
    let (network, mut loops) = mesh(2);
    network.host(ip(1)).power_off();
    loops.remove(0);
    network.host(ip(1)).power_on();
    network.run(&mut loops, Duration::from_millis(1)).unwrap();
    let reset = Reason::Io(io::ErrorKind::ConnectionReset);
    assert_eq!(loops[0].handler().downs, [reset]);
}

#[test]
fn endless_answers_reach_the_end_of_a_run() {
    let (network, mut loops) = mesh(2);
    for one in &mut loops {
        one.handler_mut().answers = true;
    }
    loops[0].handle().to_send(Sid(2), "ping").unwrap();
    assert!(network.settle(&mut loops).is_err());
    let before = network.elapsed();
    for one in &mut loops {
        one.handler_mut().frames.clear();
    }
    network.run(&mut loops, Duration::from_millis(100)).unwrap();
    assert_eq!(network.elapsed() - before, Duration::from_millis(100));
    // One turn of a loop for each frame, and one round for each turn at least.
    assert!((100..=1_100).contains(&loops[0].handler().frames.len()));
}

#[test]
fn ticks_are_multiples_of_their_time_also_over_several_runs() {
    let (network, mut loops) = mesh(2);
    let mut ticks = Vec::new();
    for run in [250, 50, 100].map(Duration::from_millis) {
        let tick = |_: &mut Seen, handle: &Handle| {
            ticks.push((network.elapsed().as_millis(), handle.sid().0));
        };
        let every = Duration::from_millis(100);
        network.run_with(&mut loops, run, every, tick).unwrap();
    }
    let expected = [1_100, 1_200, 1_300, 1_400].map(|at| [(at, 1), (at, 2)]);
    assert_eq!(ticks, expected.concat());
}

#[test]
fn tick_at_the_end_of_a_run_is_sent() {
    let (network, mut loops) = mesh(2);
    let send = |_: &mut Seen, handle: &Handle| _ = handle.to_send(Sid(2), "tick");
    network
        .run_with(&mut loops, seconds(1), seconds(1), send)
        .unwrap();
    assert_eq!(loops[1].handler().frames, [b"tick", b"tick"]);
    let has_three = |loops: &mut [Loop]| loops[1].handler().frames.len() >= 3;
    let is_done = network.run_until_with(&mut loops, seconds(9), seconds(1), send, has_three);
    assert!(is_done.unwrap());
    assert_eq!(network.elapsed(), seconds(3));
}

#[test]
fn only_servers_that_run_have_ticks() {
    let (network, mut loops) = mesh(3);
    network.host(ip(1)).power_off();
    loops[1].handle().request_halt();
    network.settle(&mut loops).unwrap();
    let mut ticks = Vec::new();
    let tick = |_: &mut Seen, handle: &Handle| ticks.push(handle.sid());
    network
        .run_with(&mut loops, seconds(2), seconds(1), tick)
        .unwrap();
    assert_eq!(ticks, [Sid(3), Sid(3)]);
}

#[test]
#[should_panic(expected = "is zero")]
fn ticks_without_time_between_them_are_refused() {
    let mut loops: [Loop; 0] = [];
    let run = Network::new().run_with(&mut loops, seconds(1), Duration::ZERO, |_, _| {});
    run.unwrap();
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
        for wait in [0, 1, 500, 1_000].map(Duration::from_millis) {
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
    let (network, mut loops) = mesh(2);
    network.host(ip(1)).power_off();
    network.host(ip(1)).power_on();
    loops.remove(0);
    network.set_buffers(1000, 1000);
    loops.insert(0, start(&network, 1, 2));
    network.run(&mut loops, seconds(5)).unwrap();
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
    let spin = crate::Idle::spin(Duration::from_millis(1));
    type Wait = fn(&mut EventLoop<HaltsAfter, HostNet>) -> io::Result<()>;
    let waits: [(crate::Idle, Wait); 2] = [
        (crate::Idle::Block, EventLoop::run),
        (spin, |one| {
            loop {
                one.turn(Some(Duration::from_millis(10)))?;
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
