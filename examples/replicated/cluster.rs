//! Five nodes over loopback, turned by the thread of the test, and clients that count and read. The tests of `examples/raft-rs` and
//! `examples/omnipaxos` include this file: they kill, restart and pause nodes meanwhile.
//!
//! Nothing here knows the consensus library. The file that includes this one has its `Answer`, `Disk`, `Request` and `Server`, and how to make
//! an empty disk.

use std::{
    collections::BTreeMap,
    mem,
    net::TcpListener,
    time::{Duration, Instant},
};

use super::{Answer, Disk, Request, Server, disk};

pub(crate) const NODES: usize = 5;

/// After this time without an answer, a client asks the next node.
const PATIENCE: Duration = Duration::from_secs(1);

/// A deadline for what takes seconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(120);

/// The place of an operation in the only order that explains its result: an increment before the reads of its value.
type Place = (u64, bool);

/// A client that reads and counts in turn, one operation at a time.
struct Client {
    id: u64,
    /// The number of the operation. Odd ones are increments.
    number: u64,
    /// The node that it asks.
    node: usize,
    patience_ends: Instant,
    /// The last place of all operations that had ended when this one began.
    began_after: Place,
}

impl Client {
    /// Asks this node next, and at once.
    fn ask_next(&mut self, node: usize) {
        self.node = (node + NODES - 1) % NODES;
        self.patience_ends = Instant::now();
    }

    fn request(&self) -> Request {
        Request {
            client: self.id,
            number: self.number,
            is_increment: self.number % 2 == 1,
        }
    }
}

pub(crate) struct Node {
    /// `None` while it is killed.
    server: Option<Server>,
    pub(crate) is_paused: bool,
    pub(crate) disk: Disk,
    /// The last value that it has applied.
    value: u64,
    /// Whether it has gone on after values that it has not applied: by a snapshot.
    pub(crate) has_skipped: bool,
}

impl Node {
    pub(crate) fn running(&mut self) -> Option<&mut Server> {
        self.server.as_mut().filter(|_| !self.is_paused)
    }
}

pub(crate) struct Cluster {
    members: Vec<(u64, String)>,
    pub(crate) nodes: Vec<Node>,
    clients: Vec<Client>,
    /// Which request has led to each value, at every node.
    order: BTreeMap<u64, Request>,
    /// The number of the last increment of each client.
    pub(crate) last: BTreeMap<u64, u64>,
    /// The last place of all operations that have ended.
    ended: Place,
    operations: usize,
    /// Whether no client asks.
    pub(crate) is_quiet: bool,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let sockets: Vec<_> = (0..NODES)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap());
        let members: Vec<_> = (1..).zip(addresses.map(|a| a.to_string())).collect();
        let nodes = sockets.into_iter().zip(1..).map(|(socket, id)| {
            let disk = disk();
            let server = Server::new(id, &members, socket, disk.clone()).unwrap();
            Node {
                server: Some(server),
                is_paused: false,
                disk,
                value: 0,
                has_skipped: false,
            }
        });
        let nodes = nodes.collect();
        let clients = (0..NODES).map(|node| Client {
            id: node as u64 + 1,
            number: 0,
            node,
            patience_ends: Instant::now(),
            began_after: (0, false),
        });
        Self {
            members,
            nodes,
            clients: clients.collect(),
            order: BTreeMap::new(),
            last: BTreeMap::new(),
            ended: (0, false),
            operations: 0,
            is_quiet: false,
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].server = None;
    }

    /// Starts the node with what is on its disk.
    pub(crate) fn restart(&mut self, node: usize) {
        let (id, address) = &self.members[node];
        let socket = TcpListener::bind(address).unwrap();
        let node = &mut self.nodes[node];
        node.value = 0;
        node.server = Some(Server::new(*id, &self.members, socket, node.disk.clone()).unwrap());
    }

    pub(crate) fn find_leader(&mut self) -> Option<usize> {
        let is_leader = |node: &mut Node| node.running().is_some_and(|s| s.replica().is_leader());
        self.nodes.iter_mut().position(is_leader)
    }

    /// Waits until a node leads.
    pub(crate) fn leader(&mut self) -> usize {
        let mut leader = None;
        self.run_until("a node leads", |cluster| {
            leader = cluster.find_leader();
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Turns the nodes until the condition holds.
    pub(crate) fn run_until(&mut self, what: &str, mut is_over: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_over(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.ask();
            for node in 0..NODES {
                self.turn(node);
            }
        }
    }

    pub(crate) fn run_operations(&mut self, count: usize) {
        let end = self.operations + count;
        self.run_until("operations end", |cluster| cluster.operations >= end);
    }

    /// Lets the clients whose patience has ended ask again, at the next node.
    fn ask(&mut self) {
        if self.is_quiet {
            return;
        }
        let now = Instant::now();
        for client in &mut self.clients {
            if client.patience_ends > now {
                continue;
            }
            client.patience_ends = now + PATIENCE;
            client.node = (client.node + 1) % NODES;
            // At two nodes at once, as if it had repeated it too early.
            for node in [client.node, (client.node + 1) % NODES] {
                if let Some(server) = self.nodes[node].running() {
                    server.replica().request(client.request());
                }
            }
        }
    }

    fn turn(&mut self, at: usize) {
        let Some(server) = self.nodes[at].running() else {
            return;
        };
        assert!(server.turn(Duration::ZERO).unwrap());
        let answers = server.replica().take_answers();
        for answer in answers {
            let Answer { request, value } = answer;
            if request.is_increment {
                let first = *self.order.entry(value).or_insert(request);
                assert_eq!(first, request, "all nodes apply the same at {value}");
                self.last.insert(request.client, request.number);
                let node = &mut self.nodes[at];
                // A request that was repeated is applied again, without effect.
                node.has_skipped |= value > node.value + 1;
                node.value = node.value.max(value);
            }
            let mut clients = self.clients.iter_mut();
            let Some(client) = clients.find(|c| c.node == at && c.request() == request) else {
                continue;
            };
            // Linearizable: no operation takes place before one that had ended when it began.
            let place = (value, !request.is_increment);
            assert!(place >= client.began_after, "{answer:?} is out of date");
            self.ended = self.ended.max(place);
            self.operations += 1;
            client.number += 1;
            client.began_after = self.ended;
            client.ask_next(at);
        }
    }

    /// The increments that were acknowledged to the clients.
    fn acknowledged(&self) -> u64 {
        self.clients.iter().map(|client| client.number / 2).sum()
    }

    /// Each node has applied all increments, and each of them is counted once. `others` are not of the clients.
    pub(crate) fn check(&mut self, others: u64) {
        // While they count, the nodes that are turned before the leader can be one value behind at any time.
        let was_quiet = mem::replace(&mut self.is_quiet, true);
        let acknowledged = others + self.acknowledged();
        self.run_until("nodes agree", |cluster| {
            let last = *cluster.order.keys().last().unwrap();
            last >= acknowledged && cluster.nodes.iter().all(|node| node.value == last)
        });
        self.is_quiet = was_quiet;
        let last = self.order.len() as u64;
        assert!(self.order.keys().copied().eq(1..=last), "each value once");
        let mut requests: Vec<_> = self.order.values().collect();
        requests.sort();
        requests.dedup();
        assert_eq!(requests.len() as u64, last, "each increment once");
        // Besides those that were acknowledged, at most one of each client.
        let acknowledged = others + self.acknowledged();
        assert!((acknowledged..=acknowledged + NODES as u64).contains(&last));
    }
}

/// Kills, restarts and pauses nodes that lead, with so many operations in between.
pub(crate) fn replace_leaders(cluster: &mut Cluster, operations: usize) {
    cluster.run_operations(operations);
    for _ in 0..2 {
        let killed = cluster.leader();
        cluster.kill(killed);
        cluster.run_operations(operations);
        cluster.restart(killed);
        cluster.run_operations(operations);

        // It takes itself for the leader still when it goes on.
        let paused = cluster.leader();
        cluster.nodes[paused].is_paused = true;
        cluster.run_operations(operations);
        cluster.nodes[paused].is_paused = false;
        cluster.run_operations(operations);
    }
}
