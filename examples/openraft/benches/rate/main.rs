//! Committed writes a second of three nodes in one process, over links, over HTTP and without a network, in turn.
//!
//! Each node has a runtime of its own with one thread, as in a process of its own. The clients are tasks on that of the leader.

mod direct;
mod http;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Cursor,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use direct::Direct;
use futures::future::join_all;
use http::Http;
use openraft::{
    Config,
    network::{NetSnapshot, RaftNetworkFactory},
};
use openraft_memstore::{ClientRequest, MemStateMachine, TypeConfig};
use quorum_cnx::Handle;
use raft_links::{Network, Rpc, serve};
use tokio::{
    runtime::{self, Runtime},
    time,
};

type Raft = openraft::Raft<TypeConfig, Arc<MemStateMachine>>;

const NODES: u64 = 3;
const ROUNDS: usize = 5;
const CLIENTS: [usize; 2] = [1, 64];
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

struct Node {
    raft: Raft,
    runtime: Runtime,
    links: Option<Handle>,
}

fn runtime() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    builder.build().expect("a thread")
}

/// A Raft with the same options and storage for each network.
async fn raft<N>(id: u64, network: N) -> Raft
where
    N: RaftNetworkFactory<TypeConfig>,
    N::Network: NetSnapshot<TypeConfig, SnapshotData = Cursor<Vec<u8>>>,
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

fn over_links() -> Vec<Node> {
    let sockets = support::sockets(NODES as usize);
    let addresses = support::addresses(&sockets);
    let start = |(id, socket)| {
        let runtime = runtime();
        let started = Rpc::start(support::config(id, &addresses, socket));
        let (rpc, links) = started.expect("loopback works");
        let handle = rpc.handle().clone();
        let raft = runtime.block_on(raft(id, Network(Arc::new(rpc))));
        runtime.spawn(serve(links, raft.clone()));
        Node {
            raft,
            runtime,
            links: Some(handle),
        }
    };
    (1..).zip(sockets).map(start).collect()
}

fn over_http() -> Vec<Node> {
    let sockets = support::sockets(NODES as usize);
    let addresses = (1..).zip(support::addresses(&sockets));
    let addresses: Arc<BTreeMap<_, _>> = Arc::new(addresses.collect());
    let start = |(id, socket): (u64, TcpListener)| {
        let runtime = runtime();
        let client = reqwest::Client::builder().no_proxy().build();
        let network = Http {
            client: client.expect("it needs no TLS"),
            addresses: Arc::clone(&addresses),
        };
        let raft = runtime.block_on(raft(id, network));
        runtime.spawn(http::serve(socket, raft.clone()));
        Node {
            raft,
            runtime,
            links: None,
        }
    };
    (1..).zip(sockets).map(start).collect()
}

fn direct() -> Vec<Node> {
    let network = Direct::default();
    let start = |id| {
        let runtime = runtime();
        let raft = runtime.block_on(raft(id, network.clone()));
        let mut nodes = network.nodes.lock().expect("nothing panics");
        nodes.insert(id, raft.clone());
        Node {
            raft,
            runtime,
            links: None,
        }
    };
    (1..=NODES).map(start).collect()
}

/// Has the nodes elect a leader, and waits until it writes.
fn leader(nodes: &[Node]) -> &Node {
    let first = &nodes[0];
    let elected = first.runtime.block_on(async {
        let members: BTreeSet<u64> = (1..=NODES).collect();
        let initialized = first.raft.initialize(members).await;
        initialized.expect("a new cluster");
        let wait = first.raft.wait(Some(Duration::from_secs(30)));
        let elected = wait.metrics(|metrics| metrics.current_leader.is_some(), "a leader");
        elected.await.expect("an election").current_leader
    });
    let leader = &nodes[elected.expect("it was awaited") as usize - 1];
    leader.runtime.block_on(async {
        // Refused until a quorum has answered the leader.
        while leader.raft.write_blank().await.is_err() {
            time::sleep(Duration::from_millis(10)).await;
        }
    });
    leader
}

fn stop(nodes: Vec<Node>) {
    for node in &nodes {
        // It fails if a task of the node has panicked, which was reported.
        let _ = node.runtime.block_on(node.raft.shutdown());
    }
    for node in nodes {
        if let Some(links) = node.links {
            links.request_halt();
        }
        node.runtime.shutdown_background();
    }
}

/// Writes a second, and the times that all writes took.
fn measure(leader: &Node, clients: usize) -> (f64, Vec<Duration>) {
    let start = Instant::now() + WARM_UP;
    let end = start + MEASURED;
    let tasks = (0..clients).map(|client| {
        let raft = leader.raft.clone();
        leader.runtime.spawn(async move {
            let mut took = Vec::new();
            for serial in 0.. {
                let command = ClientRequest {
                    client: client.to_string(),
                    serial,
                    status: "x".repeat(64),
                };
                let began = Instant::now();
                let written = raft.client_write(command).await;
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
    let took = leader.runtime.block_on(join_all(tasks)).into_iter();
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
            "| {name} | {clients} | {:.0} ({:.0} to {:.0}) | {} us | {} us |",
            self.rates[middle],
            self.rates[0],
            self.rates[ROUNDS - 1],
            self.halves[middle].as_micros(),
            self.tails[middle].as_micros(),
        );
    }
}

fn main() {
    const NETWORKS: [&str; 3] = ["quorum-cnx", "HTTP", "no network"];
    let mut rows: [[Row; CLIENTS.len()]; NETWORKS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (start, rows) in [over_links, over_http, direct].iter().zip(&mut rows) {
            let nodes = start();
            let leader = leader(&nodes);
            for (clients, row) in CLIENTS.iter().zip(rows) {
                row.add(measure(leader, *clients));
            }
            stop(nodes);
        }
    }
    println!("| network | clients | writes a second | p50 | p99 |\n|---|---|---|---|---|");
    for (place, clients) in CLIENTS.iter().enumerate() {
        for (name, rows) in NETWORKS.iter().zip(&mut rows) {
            rows[place].print(name, *clients);
        }
    }
}
