//! Committed writes a second of three nodes in one process, over links, over HTTP and without a network, in turn.

mod direct;
mod http;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use direct::Direct;
use futures::future::join_all;
use http::Http;
use openraft::{Config, network::RaftNetworkFactory};
use openraft_memstore::{ClientRequest, MemStateMachine, TypeConfig};
use raft_links::{Network, Rpc, serve};
use tokio::task::AbortHandle;

type Raft = openraft::Raft<TypeConfig, Arc<MemStateMachine>>;

const NODES: u64 = 3;
const ROUNDS: usize = 5;
const CLIENTS: [usize; 2] = [1, 64];
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

/// Three nodes, and the tasks that serve them.
#[derive(Default)]
struct Cluster {
    nodes: Vec<Raft>,
    tasks: Vec<AbortHandle>,
    links: Vec<Arc<Rpc>>,
}

/// A node with the same options and storage for each network.
async fn node<N>(id: u64, network: N) -> Raft
where
    N: RaftNetworkFactory<TypeConfig>,
    N::Network: openraft::network::NetSnapshot<TypeConfig, SnapshotData = std::io::Cursor<Vec<u8>>>,
{
    let config = Config {
        heartbeat_interval: 400,
        election_timeout_min: 1_500,
        election_timeout_max: 3_000,
        install_snapshot_timeout: 5_000,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("the options are valid"));
    let (log, state) = openraft_memstore::new_mem_store();
    let raft = Raft::new(id, config, network, log, state).await;
    raft.expect("the storage is empty")
}

async fn over_links() -> Cluster {
    let sockets = support::sockets(NODES as usize);
    let addresses = support::addresses(&sockets);
    let mut cluster = Cluster::default();
    for (id, socket) in (1..).zip(sockets) {
        let rpc = Rpc::start(support::config(id, &addresses, socket));
        let rpc = Arc::new(rpc.expect("loopback works"));
        let raft = node(id, Network(Arc::clone(&rpc))).await;
        let (links, served) = (Arc::clone(&rpc), raft.clone());
        let task = tokio::spawn(async move { serve(&links, served).await });
        cluster.tasks.push(task.abort_handle());
        cluster.links.push(rpc);
        cluster.nodes.push(raft);
    }
    cluster
}

async fn over_http() -> Cluster {
    let sockets = support::sockets(NODES as usize);
    let addresses: BTreeMap<_, _> = (1..).zip(support::addresses(&sockets)).collect();
    let addresses = Arc::new(addresses);
    let mut cluster = Cluster::default();
    for (id, socket) in (1..).zip(sockets) {
        let client = reqwest::Client::builder().no_proxy().build();
        let network = Http {
            client: client.expect("it needs no TLS"),
            addresses: Arc::clone(&addresses),
        };
        let raft = node(id, network).await;
        socket.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(socket).expect("a socket");
        let task = tokio::spawn(http::serve(listener, raft.clone()));
        cluster.tasks.push(task.abort_handle());
        cluster.nodes.push(raft);
    }
    cluster
}

async fn direct() -> Cluster {
    let network = Direct::default();
    let mut cluster = Cluster::default();
    for id in 1..=NODES {
        let raft = node(id, network.clone()).await;
        let mut nodes = network.nodes.lock().expect("nothing panics");
        nodes.insert(id, raft.clone());
        cluster.nodes.push(raft);
    }
    cluster
}

impl Cluster {
    async fn leader(&self) -> &Raft {
        let members: BTreeSet<u64> = (1..=NODES).collect();
        let first = &self.nodes[0];
        first.initialize(members).await.expect("a new cluster");
        let wait = first.wait(Some(Duration::from_secs(30)));
        let led = wait.metrics(|metrics| metrics.current_leader.is_some(), "a leader");
        let leader = led.await.expect("an election").current_leader;
        &self.nodes[leader.expect("it was awaited") as usize - 1]
    }

    async fn stop(self) {
        for raft in &self.nodes {
            let _ = raft.shutdown().await;
        }
        for task in self.tasks {
            task.abort();
        }
        for rpc in self.links {
            tokio::task::block_in_place(|| rpc.manager().halt());
        }
    }
}

/// Writes a second, and the times that all writes took.
async fn measure(leader: &Raft, clients: usize) -> (f64, Vec<Duration>) {
    let start = Instant::now() + WARM_UP;
    let end = start + MEASURED;
    let tasks = (0..clients).map(|client| {
        let leader = leader.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            for serial in 0.. {
                let command = ClientRequest {
                    client: client.to_string(),
                    serial,
                    status: "x".repeat(64),
                };
                let began = Instant::now();
                let written = leader.client_write(command).await;
                written.expect("the leader stays");
                let now = Instant::now();
                if now >= end {
                    break;
                }
                if now >= start {
                    took.push(now - began);
                }
            }
            took
        })
    });
    let took = join_all(tasks).await.into_iter();
    let mut took: Vec<Duration> = took.flat_map(|took| took.expect("a client")).collect();
    took.sort_unstable();
    (took.len() as f64 / MEASURED.as_secs_f64(), took)
}

/// What all rounds have measured for one number of clients: writes a second, median and 99th percentile of their times.
#[derive(Default)]
struct Row {
    rates: Vec<f64>,
    halves: Vec<Duration>,
    tails: Vec<Duration>,
}

impl Row {
    fn add(&mut self, (rate, took): (f64, Vec<Duration>)) {
        self.rates.push(rate);
        self.halves.push(took[took.len() / 2]);
        self.tails.push(took[took.len() * 99 / 100]);
    }

    /// The medians of the rounds, and the range of the rates.
    fn print(&mut self, name: &str, clients: usize) {
        self.rates.sort_unstable_by(f64::total_cmp);
        self.halves.sort_unstable();
        self.tails.sort_unstable();
        let middle = ROUNDS / 2;
        println!(
            "| {name} | {clients} | {:.0} ({:.0} to {:.0}) | {:.0?} | {:.0?} |",
            self.rates[middle],
            self.rates[0],
            self.rates[ROUNDS - 1],
            self.halves[middle],
            self.tails[middle],
        );
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    const NAMES: [&str; 3] = ["quorum-cnx", "HTTP", "no network"];
    let mut rows: [[Row; CLIENTS.len()]; NAMES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (name, rows) in NAMES.iter().zip(&mut rows) {
            let cluster = match *name {
                "quorum-cnx" => over_links().await,
                "HTTP" => over_http().await,
                _ => direct().await,
            };
            let leader = cluster.leader().await;
            for (clients, row) in CLIENTS.iter().zip(rows) {
                row.add(measure(leader, *clients).await);
            }
            cluster.stop().await;
        }
    }
    println!("| network | clients | writes a second | p50 | p99 |\n|---|---|---|---|---|");
    for (place, clients) in CLIENTS.iter().enumerate() {
        for (name, rows) in NAMES.iter().zip(&mut rows) {
            rows[place].print(name, *clients);
        }
    }
}
