//! What happens to five nodes while clients count and read.

#[path = "../../replicated/cluster.rs"]
mod cluster;

use cluster::{Cluster, NODES, replace_leaders};
use on_raft_rs::{Answer, Disk, Request, Server};

fn disk() -> Disk {
    Disk::new((1..=NODES as u64).collect())
}

#[test]
fn counter_is_linearizable_while_leaders_fail() {
    let mut cluster = Cluster::start();
    replace_leaders(&mut cluster, 80);
    cluster.check(0);
    assert!(!cluster.nodes.iter().any(|node| node.has_skipped));
}

#[test]
fn paused_node_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start();
    cluster.run_operations(100);
    let paused = (cluster.leader() + 1) % NODES;
    cluster.nodes[paused].is_paused = true;
    // Whichever of the others leads then, it has forgotten what the paused one lacks.
    cluster.run_until("two snapshots", |cluster| {
        let mut others = cluster.nodes.iter().filter(|node| !node.is_paused);
        others.all(|node| node.disk.snapshot_index() > 2_000)
    });
    cluster.nodes[paused].is_paused = false;
    cluster.run_until("a snapshot is installed", |cluster| {
        cluster.nodes[paused].has_skipped
    });
    cluster.check(0);

    // A restarted node goes on from its snapshot.
    cluster.kill(paused);
    cluster.run_operations(100);
    cluster.restart(paused);
    cluster.check(0);
}
