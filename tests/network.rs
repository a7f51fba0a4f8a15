//! What only a network can do: packets that vanish without a word, both ways and one way, and machines that go with them.
//!
//! Two hosts and a router between them, each a network namespace of this machine. The router stops forwarding what comes
//! from one side or both, which nobody is told (unlike a refused packet). Needs Linux, iproute2 and the right to make
//! namespaces (root), and fails where it has them not: this is not run in silence.

#![cfg(target_os = "linux")]

mod common;

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{
    eventually,
    program::{Peer, program_path},
};
use serde_json::{Value, json};

/// How long a peer may be silent: the shortest time that is allowed.
const DEAD_AFTER_MS: &str = "2000";

/// Hosts 1 and 2 and the router between them.
struct Network {
    names: [String; 3],
}

#[derive(Clone, Copy)]
enum Cut {
    Nothing,
    From(usize),
    Both,
}

impl Network {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |part| format!("qcnx-{}-{nth}-{part}", std::process::id());
        let network = Self {
            names: [name("router"), name("one"), name("two")],
        };
        for name in &network.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let router = &network.names[0];
        for host in [1, 2] {
            let (name, port) = (&network.names[host], format!("port{host}"));
            ip(&[
                "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", &port,
                "netns", router,
            ]);
            let (at_host, at_router) = (address(host), format!("10.77.{host}.1"));
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{at_host}/24"),
                "dev",
                "eth0",
            ]);
            ip(&[
                "-n",
                router,
                "addr",
                "add",
                &format!("{at_router}/24"),
                "dev",
                &port,
            ]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            ip(&["-n", router, "link", "set", &port, "up"]);
            ip(&["-n", name, "route", "add", "default", "via", &at_router]);
        }
        network.cut(Cut::Nothing);
        network
    }

    /// From now on the router forwards nothing that comes from there.
    fn cut(&self, cut: Cut) {
        for host in [1, 2] {
            let is_cut = match cut {
                Cut::Nothing => false,
                Cut::From(from) => from == host,
                Cut::Both => true,
            };
            let setting = format!("net.ipv4.conf.port{host}.forwarding={}", i32::from(!is_cut));
            run(Command::new("ip").args([
                "netns",
                "exec",
                &self.names[0],
                "sysctl",
                "-qw",
                &setting,
            ]));
        }
    }

    /// The program on this host.
    fn peer(&self, host: usize) -> Peer {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.names[host]])
            .arg(program_path());
        let addresses = [1, 2].map(|host| format!("{}:3888", address(host)));
        let servers = [(1, addresses[0].as_str()), (2, addresses[1].as_str())];
        Peer::start_by(
            command,
            i64::try_from(host).unwrap(),
            &servers,
            &["--peer-dead-after-ms", DEAD_AFTER_MS],
        )
    }

    /// Both, linked.
    #[track_caller]
    fn pair(&self) -> [Peer; 2] {
        let peers = [self.peer(1), self.peer(2)];
        for peer in &peers {
            peer.next("up");
        }
        peers
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // What is left over is of no account to the next run, whose names differ.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn address(host: usize) -> String {
    format!("10.77.{host}.2")
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

#[track_caller]
fn run(command: &mut Command) {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            panic!("NOT RUN: {command:?}: {error}; this test needs Linux with iproute2 and procps")
        }
    };
    assert!(
        output.status.success(),
        "NOT RUN: {command:?}: {}; this test needs the right to make network namespaces (root)",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A frame goes from one to the other; what is repeated of earlier ones is skipped.
#[track_caller]
fn talk(from: &mut Peer, to: &Peer, to_sid: i64, text: &str) {
    from.tell(&format!("send {to_sid} {text}"));
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    eventually("the frame arrives", || {
        to.next("frame")["hex"] == hex.as_str()
    });
}

/// Whether a link ended because its far end is dead, or was told so by a reset of the one who had found it out first.
#[track_caller]
fn assert_dead(down: &Value) {
    let reason = down["reason"].as_str().unwrap();
    assert!(["dead", "io"].contains(&reason), "{down}");
}

#[test]
fn an_idle_link_whose_packets_vanish_is_found_dead_at_both_ends_and_comes_back() {
    let network = Network::new();
    let [mut one, mut two] = network.pair();
    talk(&mut one, &two, 2, "before");
    talk(&mut two, &one, 1, "before");
    network.cut(Cut::Both);
    for peer in [&one, &two] {
        assert_eq!(peer.next("down")["reason"], "dead");
    }
    // Nobody can be reached, which is told and no reason to give up.
    two.next("dial-failed");
    network.cut(Cut::Nothing);
    for peer in [&one, &two] {
        peer.next("up");
    }
    talk(&mut one, &two, 2, "after");
    talk(&mut two, &one, 1, "after");
    one.quit();
    two.quit();
}

#[test]
fn a_link_with_frames_on_their_way_is_found_dead_and_the_newest_arrives_later() {
    let network = Network::new();
    let [mut one, mut two] = network.pair();
    network.cut(Cut::Both);
    one.tell("send 2 written into the void");
    assert_eq!(one.next("sent")["outcome"], "written");
    one.tell("send 2 the newest");
    assert_eq!(one.next("down")["reason"], "dead");
    assert_dead(&two.next("down"));
    network.cut(Cut::Nothing);
    two.next("up");
    let hex: String = "the newest"
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(two.next("frame")["hex"], hex.as_str());
    talk(&mut two, &one, 1, "after");
    one.quit();
    two.quit();
}

#[test]
fn a_way_that_is_cut_in_one_direction_is_no_link() {
    for from in [1, 2] {
        let network = Network::new();
        let [mut one, mut two] = network.pair();
        network.cut(Cut::From(from));
        for peer in [&one, &two] {
            assert_dead(&peer.next("down"));
        }
        network.cut(Cut::Nothing);
        for peer in [&one, &two] {
            peer.next("up");
        }
        talk(&mut one, &two, 2, "after");
        talk(&mut two, &one, 1, "after");
        one.quit();
        two.quit();
    }
}

/// The machine of one goes without a word and comes back with another process: the older link is still there at the
/// other end, as far as that knows, and makes room.
#[test]
fn a_machine_that_lost_its_power_and_comes_back_is_linked_again() {
    for gone in [1, 2] {
        let network = Network::new();
        let [mut one, two] = network.pair();
        talk(&mut one, &two, 2, "before");
        network.cut(Cut::Both);
        let (back, mut left) = if gone == 1 { (one, two) } else { (two, one) };
        // Its resets do not get through.
        drop(back);
        network.cut(Cut::Nothing);
        let mut back = network.peer(gone);
        back.next("up");
        // Whichever comes first: the older link is replaced, or told to be gone by the machine that knows nothing of it.
        let down = left.next("down");
        let reason = down["reason"].as_str().unwrap();
        assert!(
            ["replaced", "io", "dead", "closed"].contains(&reason),
            "{down}"
        );
        left.next("up");
        let other = if gone == 1 { 2 } else { 1 };
        talk(&mut left, &back, gone as i64, "welcome");
        talk(&mut back, &left, other, "here I am");
        back.quit();
        left.quit();
    }
}

#[test]
fn a_frame_for_who_cannot_be_reached_waits_and_the_sender_does_not() {
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
