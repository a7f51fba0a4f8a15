//! Tests one pair of hosts with a router between them, which stops forwarding from one side or both without notice.

use std::time::Duration;

use serde_json::{Value, json};

use support::{
    eventually,
    hex::to_hex,
    program::{Peer, program_path},
};

use crate::{
    namespace::{Namespace, nth_network, run},
    quorum::{CONGESTION_CONTROL, DEAD_AFTER},
    run_time,
};

/// Hosts 1 and 2 and the router between them.
struct Network {
    hosts: [Namespace; 2],
    router: Namespace,
}

#[derive(Clone, Copy)]
enum Cut {
    Nothing,
    From(usize),
    Both,
}

impl Network {
    fn new() -> Self {
        let nth = nth_network();
        let network = Self {
            hosts: ["one", "two"].map(|part| Namespace::new(nth, part)),
            router: Namespace::new(nth, "router"),
        };
        for host in [1, 2] {
            let (namespace, at_router) = (network.host(host), format!("10.77.{host}.1"));
            let (name, port) = (namespace.name(), format!("port{host}"));
            network.router.batch(&[
                format!("link add {port} type veth peer name eth0 netns {name}"),
                format!("addr add {at_router}/24 dev {port}"),
                format!("link set {port} up"),
            ]);
            namespace.batch(&[
                format!("addr add {}/24 dev eth0", address(host)),
                "link set eth0 up".into(),
                format!("route add default via {at_router}"),
            ]);
        }
        network.cut(Cut::Nothing);
        network
    }

    fn host(&self, host: usize) -> &Namespace {
        &self.hosts[host - 1]
    }

    /// Limits the rate of the router.
    fn slow_down(&self) {
        for port in ["port1", "port2"] {
            let mut tc = self.router.command("tc");
            tc.args(["qdisc", "add", "dev", port, "root", "tbf"]);
            run(tc.args(["rate", "1mbit", "burst", "16k", "latency", "500ms"]));
        }
    }

    /// Stops forwarding packets from these hosts.
    fn cut(&self, cut: Cut) {
        for host in [1, 2] {
            let is_cut = match cut {
                Cut::Nothing => false,
                Cut::From(from) => from == host,
                Cut::Both => true,
            };
            let setting = format!("net.ipv4.conf.port{host}.forwarding={}", i32::from(!is_cut));
            run(self.router.command("sysctl").args(["-qw", &setting]));
        }
    }

    /// Starts the program on this host.
    fn peer(&self, host: usize) -> Peer {
        let addresses = [1, 2].map(|host| format!("{}:3888", address(host)));
        let servers = [(1, addresses[0].as_str()), (2, addresses[1].as_str())];
        Peer::start_by(
            self.host(host).command(program_path()),
            i64::try_from(host).unwrap(),
            &servers,
            &[
                "--peer-dead-after-ms",
                &DEAD_AFTER.as_millis().to_string(),
                "--congestion-control",
                CONGESTION_CONTROL,
            ],
        )
    }

    /// Starts both, and waits until they are linked.
    #[track_caller]
    fn pair(&self) -> [Peer; 2] {
        let peers = [self.peer(1), self.peer(2)];
        await_linked(&peers);
        peers
    }
}

fn address(host: usize) -> String {
    format!("10.77.{host}.2")
}

/// Sends a frame, and waits until it arrives. Repeated earlier frames are skipped.
#[track_caller]
fn send(from: &mut Peer, to: &Peer, to_sid: i64, text: &str) {
    from.tell(&format!("send {to_sid} {text}"));
    let hex = to_hex(text);
    eventually("the frame arrives", || {
        to.next("frame")["hex"] == hex.as_str()
    });
}

/// Sends a frame in each direction between 1 and 2, and waits until both arrive.
#[track_caller]
fn exchange([one, two]: &mut [Peer; 2], text: &str) {
    send(one, two, 2, text);
    send(two, one, 1, text);
}

#[track_caller]
fn await_linked(peers: &[Peer; 2]) {
    for peer in peers {
        peer.next("up");
    }
}

/// Checks that a link ended because its peer is dead, or by a reset of the end that noticed first.
#[track_caller]
fn assert_dead(down: &Value) {
    let reason = down["reason"].as_str().unwrap();
    assert!(["dead", "io"].contains(&reason), "{down}");
}

pub(crate) fn idle_link_without_packets_is_found_dead_and_reestablished() {
    let network = Network::new();
    let mut peers = network.pair();
    exchange(&mut peers, "before");
    network.cut(Cut::Both);
    for peer in &peers {
        assert_eq!(peer.next("down")["reason"], "dead");
    }
    // A failed dial is reported, and repeated.
    peers[1].next("dial-failed");
    network.cut(Cut::Nothing);
    await_linked(&peers);
    exchange(&mut peers, "after");
    peers.into_iter().for_each(Peer::quit);
}

/// While a frame is not acknowledged, the kernel sends no keepalive probes: each such frame starts a new timeout. The worst
/// moment for it is just before the probes would have ended the link.
pub(crate) fn frames_after_the_cut_at_most_double_the_detection_time() {
    for first in [Duration::ZERO, DEAD_AFTER / 2, DEAD_AFTER * 9 / 10] {
        let network = Network::new();
        let mut peers = network.pair();
        exchange(&mut peers, "before");
        network.cut(Cut::Both);
        // Not before: on a busy machine the programs that cut it take a while to start.
        let start = run_time::now();
        run_time::pass(first);
        let [one, two] = peers;
        let mut peers = [(one, 2, None), (two, 1, None)];
        run_time::wait("both ends find the link dead", || {
            for (peer, to, end) in peers.iter_mut().filter(|(.., end)| end.is_none()) {
                peer.tell(&format!("send {to} lost"));
                let down = peer.lines.try_iter().find(|line| line["event"] == "down");
                *end = down.map(|down| (run_time::now() - start, down["reason"].clone()));
            }
            run_time::pass(Duration::from_millis(25));
            let missing = peers.iter().filter(|(.., end)| end.is_none());
            missing
                .map(|(_, to, _)| format!("the link to {to}"))
                .collect()
        });
        for (peer, to, end) in peers {
            let (time, reason) = end.unwrap();
            assert_eq!(reason, "dead");
            assert!(
                time <= DEAD_AFTER * 2,
                "the link to {to}, with frames from {first:?} on, ended after {time:?}"
            );
            peer.quit();
        }
    }
}

pub(crate) fn large_frame_on_a_slow_path_is_not_taken_for_a_dead_peer() {
    let network = Network::new();
    let mut peers = network.pair();
    network.slow_down();
    // Takes four seconds, twice as long as a peer may be silent, in both directions at once.
    let large = "x".repeat(500_000);
    peers[0].tell(&format!("send 2 {large}"));
    peers[1].tell(&format!("send 1 {large}"));
    for peer in &peers {
        assert_eq!(peer.next("frame")["len"], large.len());
    }
    for peer in &mut peers {
        let stats = peer.stats();
        assert_eq!((&stats["ups"], &stats["downs"]), (&json!(1), &json!({})));
    }
    peers.into_iter().for_each(Peer::quit);
}

pub(crate) fn link_cut_in_one_direction_ends_at_both_ends() {
    for from in [1, 2] {
        let network = Network::new();
        let mut peers = network.pair();
        network.cut(Cut::From(from));
        for peer in &peers {
            assert_dead(&peer.next("down"));
        }
        network.cut(Cut::Nothing);
        await_linked(&peers);
        exchange(&mut peers, "after");
        peers.into_iter().for_each(Peer::quit);
    }
}

/// A machine loses power and comes back with another process. The other end still has the older link, which is replaced.
pub(crate) fn machine_is_relinked_after_a_power_loss() {
    for lost_host in [1, 2] {
        let network = Network::new();
        let mut peers = network.pair();
        exchange(&mut peers, "before");
        network.cut(Cut::Both);
        // The resets of its kernel are not forwarded.
        peers[lost_host - 1].child.kill().unwrap();
        peers[lost_host - 1].child.wait().unwrap();
        network.cut(Cut::Nothing);
        peers[lost_host - 1] = network.peer(lost_host);
        peers[lost_host - 1].next("up");
        // The older link is replaced, or reset by the restarted machine, whichever comes first.
        let remaining = &peers[2 - lost_host];
        let down = remaining.next("down");
        let reason = down["reason"].as_str().unwrap();
        assert!(
            ["replaced", "io", "dead", "closed"].contains(&reason),
            "{down}"
        );
        remaining.next("up");
        exchange(&mut peers, "after the restart");
        peers.into_iter().for_each(Peer::quit);
    }
}

pub(crate) fn frame_for_an_unreachable_peer_waits_without_blocking() {
    let network = Network::new();
    network.cut(Cut::Both);
    let mut one = network.peer(1);
    for _ in 0..3 {
        one.tell("send 2 waiting");
    }
    let outcomes: Vec<Value> = (0..3).map(|_| one.next("sent")["outcome"].take()).collect();
    assert_eq!(
        outcomes,
        [json!("queued"), json!("superseded"), json!("superseded")]
    );
    let two = network.peer(2);
    network.cut(Cut::Nothing);
    assert_eq!(two.next("frame")["len"], "waiting".len());
    one.quit();
    two.quit();
}
