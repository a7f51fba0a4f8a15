//! A loop on a simulated network where little happens: what a turn waits for, and how often a name is looked up.
//!
//! Time passes only in the waits of the loop.

use std::{io, net::SocketAddr, time::Duration};

use quorum_cnx::{
    Config, ConfigBuilder, EventLoop, Idle, InitialMessageVersion, Listening, Sid,
    simulation::limits,
    simulation::{HostNet, Network},
};
use support::turned::Ignore;

/// The least time that a wait takes.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A server at 10.0.0.1, whose waits move the clock.
fn start(config: ConfigBuilder) -> (Network, EventLoop<Ignore, HostNet>) {
    let network = Network::new();
    network.move_time_in_waits(WAIT_MIN);
    network.hold_lookups();
    let net = network.host([10, 0, 0, 1]).net();
    let event_loop = EventLoop::with_net(config.build().unwrap(), Ignore, net).unwrap();
    (network, event_loop)
}

fn single_manager() -> ConfigBuilder {
    Config::builder(Sid(1)).server(Sid(1), "10.0.0.1:3181")
}

#[test]
fn a_turn_takes_its_timeout_and_no_longer() {
    let millis = Duration::from_millis;
    let spin = |for_at_most| Idle::spin(for_at_most);
    for idle in [Idle::Block, spin(millis(10)), spin(millis(100))] {
        let (network, mut event_loop) = start(single_manager().idle(idle));
        // The first turn finds that no connection waits to be accepted.
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(event_loop.timeout(), None);
        for timeout in [5, 10, 25, 200].map(millis) {
            let start = network.elapsed();
            event_loop.turn(Some(timeout)).unwrap();
            let took = network.elapsed() - start;
            assert!(
                took >= timeout && took <= timeout + WAIT_MIN,
                "{idle:?}: {took:?} in place of {timeout:?}"
            );
        }
    }
}

/// If the poll of the application is edge-triggered, it reports only once that the loop has something to do.
#[test]
fn a_turn_with_all_its_events_is_followed_by_another() -> io::Result<()> {
    for (events, is_due) in [
        (limits::EVENTS_PER_TURN, true),
        (limits::EVENTS_PER_TURN - 1, false),
    ] {
        let (network, mut event_loop) =
            start(single_manager().pending_max(limits::EVENTS_PER_TURN));
        let mut ends = Vec::new();
        for port in 1..=events as u16 {
            let from = SocketAddr::from(([10, 0, 0, 2], port));
            ends.push(network.connect(from, "10.0.0.1:3181".parse().unwrap())?);
        }
        while event_loop.timeout() == Some(Duration::ZERO)
            || event_loop.handle().stats().pending < events as u64
        {
            event_loop.turn(Some(Duration::ZERO))?;
        }
        // Each connection brings the beginning of an initial message.
        for end in ends {
            end.send(b"x")?;
        }
        event_loop.turn(Some(Duration::ZERO))?;
        assert_eq!(event_loop.timeout() == Some(Duration::ZERO), is_due);
    }
    Ok(())
}

#[test]
fn a_lookup_without_an_answer_is_not_repeated() {
    let config = Config::builder(Sid(1))
        .server(Sid(1), "one.example:3181")
        .server(Sid(2), "two.example:3181")
        .listen_tries(0);
    let (network, mut event_loop) = start(config);
    while network.elapsed() < Duration::from_secs(600) {
        event_loop.turn(None).unwrap();
    }
    // One for the own name, and one for the name of the peer.
    assert_eq!(network.waiting_lookups().len(), 2);
    for name in ["one.example", "two.example"] {
        network.set_name(name, [[10, 0, 0, 1]]);
    }
    network.release_lookups();
    event_loop.turn(Some(Duration::ZERO)).unwrap();
    let open = [Listening::Open("10.0.0.1:3181".parse().unwrap())];
    assert_eq!(event_loop.handle().listening(), open);
}

/// A server of another cluster, which only an operator changes, and one that is off.
#[test]
fn refused_peer_is_dialed_seldom_until_it_is_mended() {
    const MINUTE: Duration = Duration::from_secs(60);
    let network = Network::new();
    let start = |sid: u8, cluster| {
        let servers = (1..=3).map(|n| (Sid(n), format!("10.0.0.{n}:3181")));
        let config = Config::builder(Sid(sid.into())).servers(servers);
        let config = config.initial_message(InitialMessageVersion::Native);
        let config = config.cluster_id(cluster).build().unwrap();
        EventLoop::with_net(config, Ignore, network.host([10, 0, 0, sid]).net()).unwrap()
    };
    let mut servers = vec![start(1, [7; 16]), start(2, [0; 16])];
    network.host([10, 0, 0, 3]);
    let handle = servers[1].handle().clone();
    let dials = |sid| {
        let peers = handle.stats().peers;
        let peer = peers.into_iter().find(|peer| peer.sid == Sid(sid));
        peer.map(|peer| peer.dials).unwrap()
    };
    network.run(&mut servers, MINUTE).unwrap();
    let before = [dials(1), dials(3)];
    network.run(&mut servers, 2 * MINUTE).unwrap();
    let [refused, off] = [dials(1) - before[0], dials(3) - before[1]];
    assert!(
        (10..=14).contains(&refused),
        "{refused} dials in two minutes"
    );
    assert!(off > 120, "{off} dials in two minutes");

    // The application asks for a link or for new links, which dials at once.
    let calls: [&dyn Fn(); 4] = [
        &|| handle.connect_one(Sid(1)).unwrap(),
        &|| handle.connect_all(),
        &|| handle.peer(Sid(1)).unwrap().connect().unwrap(),
        &|| handle.renew(),
    ];
    for (call, more) in calls.iter().zip(1..) {
        call();
        network.settle(&mut servers).unwrap();
        assert_eq!(dials(1), before[0] + refused + more);
    }
    // The peer is mended and knocks, and no pause is left to wait for.
    network.run(&mut servers, MINUTE).unwrap();
    drop(servers.remove(0));
    servers.push(start(1, [0; 16]));
    network.settle(&mut servers).unwrap();
    assert!(handle.connected_to_peer(Sid(1)));
}
