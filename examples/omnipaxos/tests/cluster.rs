//! What happens to five nodes while clients count and read.

#[path = "../../replicated/cluster.rs"]
mod cluster;

use cluster::{Cluster, NODES, replace_leaders};
use on_omnipaxos::{Answer, Disk, Request, Server};

/// So many requests of one client are proposed at once. Each takes seven bytes.
const BURST: u64 = 150_000;

fn disk() -> Disk {
    Disk::default()
}

/// Proposes many requests at once at the leader, and again whenever another one leads, until the last of them is applied. With `breaks_links`, the
/// first leader queues its messages and closes its links in its next turn.
fn run_burst(cluster: &mut Cluster, breaks_links: bool) {
    let mut asked = None;
    cluster.run_until("the burst is applied", |cluster| {
        let leader = cluster.find_leader();
        if let Some(leader) = leader.filter(|_| leader != asked) {
            let server = cluster.nodes[leader].running().unwrap();
            for number in 1..=BURST {
                server.replica().request(Request {
                    client: BURST,
                    number,
                    is_increment: true,
                });
            }
            if breaks_links && asked.is_none() {
                server.handle().soft_halt();
            }
            asked = Some(leader);
        }
        cluster.last.get(&BURST) == Some(&BURST)
    });
}

/// Without further requests, no node lacks any.
fn check(cluster: &mut Cluster, others: u64) {
    cluster.check(others);
    assert!(!cluster.nodes.iter().any(|node| node.has_skipped));
}

#[test]
fn counter_is_linearizable_while_leaders_fail() {
    let mut cluster = Cluster::start();
    replace_leaders(&mut cluster, 150);
    check(&mut cluster, 0);
}

#[test]
fn messages_longer_than_a_frame_arrive() {
    let mut cluster = Cluster::start();
    cluster.run_operations(100);
    let killed = (cluster.leader() + 1) % NODES;
    cluster.kill(killed);
    // In one message to each follower that is there, and later in one to the other.
    run_burst(&mut cluster, false);
    cluster.restart(killed);
    check(&mut cluster, BURST);
}

#[test]
fn what_is_lost_with_a_link_is_sent_again() {
    let mut cluster = Cluster::start();
    cluster.run_operations(100);
    // Messages that follow would show that one is missing.
    cluster.is_quiet = true;
    run_burst(&mut cluster, true);
    check(&mut cluster, BURST);
}
