//! Tests of cut paths, and of ends that find each other silent.

use super::*;

#[test]
fn a_partition_is_noticed_and_healed() {
    for one_way in [false, true] {
        let (network, mut loops) = mesh(2);
        match one_way {
            true => network.cut_one_way(ip(1), ip(2)),
            false => network.cut(ip(1), ip(2)),
        }
        network.run(&mut loops, millis(4_900)).unwrap();
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
    network.run(&mut loops, millis(1)).unwrap();
    assert_eq!(loops[1].handler().frames, [b"late"]);
    network.run(&mut loops, seconds(60)).unwrap();
    assert_eq!(loops[1].handler().downs, []);
}
