//! Five nodes over loopback, turned by the thread of the test. Clients count and read while nodes are killed, restarted and paused.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use on_raft_rs::{Answer, Disk, Increment, Server};

const NODES: usize = 5;

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

    fn is_read(&self) -> bool {
        self.number % 2 == 0
    }

    fn increment(&self) -> Increment {
        Increment {
            client: self.id,
            number: self.number,
        }
    }

    fn read_id(&self) -> u64 {
        self.id << 32 | self.number
    }

    /// The value, if this is the answer to the operation.
    fn result(&self, answer: &Answer) -> Option<u64> {
        match *answer {
            Answer::Incremented { increment, value } => {
                (increment == self.increment() && !self.is_read()).then_some(value)
            }
            Answer::Read { id, value } => (id == self.read_id() && self.is_read()).then_some(value),
        }
    }
}

struct Node {
    /// `None` while it is killed.
    server: Option<Server>,
    is_paused: bool,
    disk: Disk,
    /// The last value that it has applied.
    value: u64,
    /// Whether it has gone on after values that it has not applied: by a snapshot.
    has_skipped: bool,
}

impl Node {
    fn running(&mut self) -> Option<&mut Server> {
        self.server.as_mut().filter(|_| !self.is_paused)
    }
}

struct Cluster {
    members: Vec<(u64, String)>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    /// Which request has led to each value, at every node.
    order: BTreeMap<u64, Increment>,
    /// The last place of all operations that have ended.
    ended: Place,
    operations: usize,
}

impl Cluster {
    fn start() -> Self {
        let sockets: Vec<_> = (0..NODES)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap());
        let members: Vec<_> = (1..).zip(addresses.map(|a| a.to_string())).collect();
        let nodes = sockets.into_iter().zip(1..).map(|(socket, id)| {
            let disk = Disk::new((1..=NODES as u64).collect());
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
            ended: (0, false),
            operations: 0,
        }
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].server = None;
    }

    /// Starts the node with what is on its disk.
    fn restart(&mut self, node: usize) {
        let (id, address) = &self.members[node];
        let socket = TcpListener::bind(address).unwrap();
        let node = &mut self.nodes[node];
        node.value = 0;
        node.server = Some(Server::new(*id, &self.members, socket, node.disk.clone()).unwrap());
    }

    /// Waits until a node leads.
    fn leader(&mut self) -> usize {
        let mut leader = None;
        self.run_until("a node leads", |cluster| {
            let is_leader =
                |node: &mut Node| node.running().is_some_and(|s| s.replica().is_leader());
            leader = cluster.nodes.iter_mut().position(is_leader);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Turns the nodes until the condition holds.
    fn run_until(&mut self, what: &str, mut is_over: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_over(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.ask();
            for node in 0..NODES {
                self.turn(node);
            }
        }
    }

    fn run_operations(&mut self, count: usize) {
        let end = self.operations + count;
        self.run_until("operations end", |cluster| cluster.operations >= end);
    }

    /// Lets the clients whose patience has ended ask again, at the next node.
    fn ask(&mut self) {
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
                    if client.is_read() {
                        server.replica().read(client.read_id());
                    } else {
                        server.replica().increment(client.increment());
                    }
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
            if let Answer::Incremented { increment, value } = answer {
                let first = *self.order.entry(value).or_insert(increment);
                assert_eq!(first, increment, "all nodes apply the same at {value}");
                let node = &mut self.nodes[at];
                // A request that was repeated is applied again, without effect.
                if value > node.value {
                    node.has_skipped |= value > node.value + 1;
                    node.value = value;
                }
            }
            let mut clients = self.clients.iter_mut().filter(|client| client.node == at);
            let ended = clients.find_map(|client| Some((client.result(&answer)?, client)));
            let Some((value, client)) = ended else {
                continue;
            };
            // Linearizable: no operation takes place before one that had ended when it began.
            let place = (value, client.is_read());
            assert!(place >= client.began_after, "{answer:?} is out of date");
            self.ended = self.ended.max(place);
            self.operations += 1;
            client.number += 1;
            client.began_after = self.ended;
            client.ask_next(at);
        }
    }

    /// Each node has applied all increments, and each of them is counted once.
    fn check(&mut self) {
        let acknowledged: u64 = self.clients.iter().map(|c| c.number / 2).sum();
        self.run_until("nodes agree", |cluster| {
            let last = *cluster.order.keys().last().unwrap();
            last >= acknowledged && cluster.nodes.iter().all(|node| node.value == last)
        });
        let last = self.order.len() as u64;
        assert!(self.order.keys().copied().eq(1..=last), "each value once");
        let mut increments: Vec<_> = self.order.values().collect();
        increments.sort();
        increments.dedup();
        assert_eq!(increments.len() as u64, last, "each increment once");
        // Besides those that were acknowledged, at most one of each client.
        let acknowledged: u64 = self.clients.iter().map(|c| c.number / 2).sum();
        assert!((acknowledged..=acknowledged + NODES as u64).contains(&last));
    }
}

#[test]
fn counter_is_linearizable_while_leaders_fail() {
    let mut cluster = Cluster::start();
    cluster.run_operations(80);
    for _ in 0..2 {
        let killed = cluster.leader();
        cluster.kill(killed);
        cluster.run_operations(80);
        cluster.restart(killed);
        cluster.run_operations(80);

        // It takes itself for the leader still when it goes on.
        let paused = cluster.leader();
        cluster.nodes[paused].is_paused = true;
        cluster.run_operations(80);
        cluster.nodes[paused].is_paused = false;
        cluster.run_operations(80);
    }
    cluster.check();
    assert!(!cluster.nodes.iter().any(|node| node.has_skipped));
}

#[test]
fn paused_node_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start();
    cluster.run_operations(100);
    let leader = cluster.leader();
    let paused = (leader + 1) % NODES;
    cluster.nodes[paused].is_paused = true;
    cluster.run_until("two snapshots", |cluster| {
        cluster.nodes[leader].disk.snapshot_index() > 2_000
    });
    cluster.nodes[paused].is_paused = false;
    cluster.run_until("a snapshot is installed", |cluster| {
        cluster.nodes[paused].has_skipped
    });
    cluster.check();

    // A restarted node goes on from its snapshot.
    cluster.kill(paused);
    cluster.run_operations(100);
    cluster.restart(paused);
    cluster.check();
}
