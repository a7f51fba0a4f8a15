//! Three nodes of openraft in one process, with links over loopback: all apply the same commands in the same order, whatever happens.

mod machine;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use openraft::{
    Config, Raft, SnapshotPolicy,
    errors::{ClientWriteError, RaftError},
    type_config::alias::LogIdOf,
};
use openraft_memstore::{ClientRequest, IntoMemClientRequest, MemLogStore, TypeConfig};
use quorum_cnx::{FRAME_BYTES_MAX, Handle, ReasonKind, Sid};
use raft_links::{Network, Rpc, serve};
use tokio::task::{self, JoinHandle, JoinSet};

use machine::Machine;

const NODES: u64 = 3;

/// A deadline for what takes at most seconds. Reaching it is a failure.
const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// What survives a restart.
#[derive(Clone)]
struct Disk {
    log: Arc<MemLogStore>,
    machine: Machine,
}

struct Node {
    raft: Raft<TypeConfig, Machine>,
    links: Handle,
    served: JoinHandle<io::Result<()>>,
}

struct Cluster {
    addresses: Vec<SocketAddr>,
    disks: Vec<Disk>,
    nodes: Vec<Option<Node>>,
}

async fn start(id: u64, addresses: &[SocketAddr], socket: TcpListener, disk: Disk) -> Node {
    let config = Config {
        // Long enough for a debug build on a busy machine: an append has three quarters of the heartbeat interval.
        heartbeat_interval: 400,
        election_timeout_min: 1_500,
        election_timeout_max: 3_000,
        install_snapshot_timeout: 10_000,
        // The tests take snapshots.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    let config = Arc::new(config.validate().unwrap());
    let (rpc, turned) = Rpc::start(support::config(id, addresses, socket)).unwrap();
    let links = rpc.handle().clone();
    let network = Network(Arc::new(rpc));
    let raft = Raft::new(id, config, network, disk.log, disk.machine).await;
    let raft = raft.unwrap();
    let served = tokio::spawn(serve(turned, raft.clone()));
    Node {
        raft,
        links,
        served,
    }
}

impl Cluster {
    async fn start() -> Self {
        let sockets = support::sockets(NODES as usize);
        let addresses = support::addresses(&sockets);
        let (mut disks, mut nodes) = (Vec::new(), Vec::new());
        for (id, socket) in (1..).zip(sockets) {
            let disk = Disk {
                log: openraft_memstore::new_mem_store().0,
                machine: Machine::default(),
            };
            disks.push(disk.clone());
            nodes.push(Some(start(id, &addresses, socket, disk).await));
        }
        let cluster = Self {
            addresses,
            disks,
            nodes,
        };
        let members: BTreeSet<u64> = (1..=NODES).collect();
        cluster.node(1).raft.initialize(members).await.unwrap();
        cluster
    }

    fn node(&self, id: u64) -> &Node {
        self.nodes[id as usize - 1].as_ref().unwrap()
    }

    fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The node that all living ones follow.
    async fn leader(&self) -> &Node {
        let ids: Vec<u64> = self.living().map(|node| *node.raft.node_id()).collect();
        let any = self.living().next().unwrap();
        let is_alive = |id: Option<u64>| id.is_some_and(|id| ids.contains(&id));
        let wait = any.raft.wait(LONG);
        let found = wait.metrics(|metrics| is_alive(metrics.current_leader), "a leader");
        self.node(found.await.unwrap().current_leader.unwrap())
    }

    /// A node that follows the leader.
    async fn follower(&self) -> u64 {
        let leader = *self.leader().await.raft.node_id();
        if leader == 1 { 2 } else { 1 }
    }

    /// Ends a node as if its process had been killed.
    async fn kill(&mut self, id: u64) {
        let node = self.nodes[id as usize - 1].take().unwrap();
        node.links.request_halt();
        // The port is free after that.
        node.served.await.unwrap().unwrap();
        node.raft.shutdown().await.unwrap();
    }

    async fn restart(&mut self, id: u64) {
        let place = id as usize - 1;
        let socket = TcpListener::bind(self.addresses[place]).unwrap();
        let disk = self.disks[place].clone();
        self.nodes[place] = Some(start(id, &self.addresses, socket, disk).await);
    }

    /// Has the leader commit a command, and returns its place in the log. After an error it is sent again, so that it may be applied
    /// twice.
    async fn write(&self, command: ClientRequest) -> LogIdOf<TypeConfig> {
        loop {
            let leader = self.leader().await;
            match leader.raft.client_write(command.clone()).await {
                Ok(written) => return written.log_id,
                Err(RaftError::APIError(
                    ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
                )) => task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Writes a last command, waits until all nodes have applied it, compares them, and returns the serial numbers of each client,
    /// each of them once.
    async fn agreed(&self) -> BTreeMap<String, Vec<u64>> {
        let last = self.write(command("last", 0)).await;
        for node in self.nodes.iter().flatten() {
            let wait = node.raft.wait(LONG);
            let applied = wait.applied_index_at_least(Some(last.index), "all");
            applied.await.unwrap();
        }
        let commands = self.disks[0].machine.commands();
        for disk in &self.disks[1..] {
            assert!(commands == disk.machine.commands(), "the orders differ");
        }
        let mut clients: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (client, serial, _) in commands {
            let serials = clients.entry(client).or_default();
            if !serials.contains(&serial) {
                serials.push(serial);
            }
        }
        clients
    }
}

fn command(client: &str, serial: u64) -> ClientRequest {
    ClientRequest::make_request(client, serial)
}

/// The serial numbers of so many commands.
fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

/// A command of 64 KiB.
fn long_command(serial: u64) -> ClientRequest {
    ClientRequest {
        status: "x".repeat(64 << 10),
        ..command("0", serial)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_applied_in_the_same_order_everywhere() {
    const CLIENTS: u64 = 8;
    const COMMANDS: u64 = 50;
    let cluster = Arc::new(Cluster::start().await);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let cluster = Arc::clone(&cluster);
        clients.spawn(async move {
            for serial in 0..COMMANDS {
                cluster.write(command(&client.to_string(), serial)).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let agreed = cluster.agreed().await;
    for client in 0..CLIENTS {
        assert_eq!(agreed[&client.to_string()], all(COMMANDS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_follower_and_killed_leader_come_back() {
    let mut cluster = Cluster::start().await;
    cluster.write(command("0", 0)).await;
    let follower = cluster.follower().await;
    cluster.kill(follower).await;
    cluster.write(command("0", 1)).await;
    cluster.restart(follower).await;
    assert_eq!(cluster.agreed().await["0"], [0, 1]);
    let leader = *cluster.leader().await.raft.node_id();
    cluster.kill(leader).await;
    cluster.write(command("0", 2)).await;
    cluster.restart(leader).await;
    assert_eq!(cluster.agreed().await["0"], [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_links_heal() {
    const COMMANDS: u64 = 100;
    let cluster = Cluster::start().await;
    for serial in 0..COMMANDS {
        if serial % 10 == 0 {
            let leader = cluster.leader().await;
            let own = leader.links.sid();
            // Of two followers in turn.
            let followers = (1..=NODES as i64).map(Sid).filter(|sid| *sid != own);
            let cut: Vec<Sid> = followers.collect();
            let cut = cut[(serial / 10 % 2) as usize];
            leader.links.disconnect(cut).unwrap();
        }
        cluster.write(command("0", serial)).await;
    }
    assert_eq!(cluster.agreed().await["0"], all(COMMANDS));
    let cut = |node: &Node| {
        let downs = node.links.stats().downs;
        downs.get(&ReasonKind::Dropped).copied()
    };
    assert!(
        cluster.living().filter_map(cut).sum::<u64>() > 0,
        "no link was cut"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_too_long_for_a_frame_are_split() {
    const COMMANDS: u64 = 20;
    let mut cluster = Cluster::start().await;
    let follower = cluster.follower().await;
    cluster.kill(follower).await;
    for serial in 0..COMMANDS {
        cluster.write(long_command(serial)).await;
    }
    cluster.restart(follower).await;
    assert_eq!(cluster.agreed().await["0"], all(COMMANDS));
    let disk = &cluster.disks[follower as usize - 1];
    assert_eq!(disk.machine.installed(), [0; 0], "a snapshot");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_is_sent_in_chunks() {
    const COMMANDS: u64 = 20;
    let mut cluster = Cluster::start().await;
    let follower = cluster.follower().await;
    cluster.kill(follower).await;
    let mut last = None;
    for serial in 0..COMMANDS {
        last = Some(cluster.write(long_command(serial)).await);
    }
    let last = last.unwrap();
    // The leader forgets the entries that the follower lacks.
    let leader = cluster.leader().await;
    let wait = leader.raft.wait(LONG);
    leader.raft.trigger().snapshot().await.unwrap();
    wait.snapshot(last, "a snapshot").await.unwrap();
    let trigger = leader.raft.trigger();
    trigger.purge_log(last.index).await.unwrap();
    wait.purged(Some(last), "no entries").await.unwrap();
    cluster.restart(follower).await;
    assert_eq!(cluster.agreed().await["0"], all(COMMANDS));
    let installed = cluster.disks[follower as usize - 1].machine.installed();
    assert!(matches!(installed[..], [bytes] if bytes > 2 * FRAME_BYTES_MAX));
}
