//! How many increments five nodes commit, over quorum-cnx and over channels. The programs of `examples/raft-rs` and `examples/omnipaxos`
//! include this file.
//!
//! Nothing here knows the consensus library. The file that includes this one has its `Message`, `Replica`, `Request` and `Server`, and how to
//! make a node.

use std::{
    collections::HashMap,
    error::Error,
    net::TcpListener,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Message, Replica, Request, Server, TICK, messages, replica, server};

pub(crate) const NODES: u64 = 5;
const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_secs(1);

/// How long a thread waits when nothing happens, before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(20);

/// A node on some transport.
trait Node: Send {
    fn turn(&mut self, timeout: Duration) -> Result<(), Box<dyn Error>>;
    fn replica(&mut self) -> &mut Replica;
}

impl Node for Server {
    fn turn(&mut self, timeout: Duration) -> Result<(), Box<dyn Error>> {
        Self::turn(self, timeout)?;
        Ok(())
    }

    fn replica(&mut self) -> &mut Replica {
        Self::replica(self)
    }
}

fn on_sockets() -> Result<Vec<Server>, Box<dyn Error>> {
    let (mut sockets, mut members) = (Vec::new(), Vec::new());
    for id in 1..=NODES {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        members.push((id, socket.local_addr()?.to_string()));
        sockets.push((id, socket));
    }
    let servers = sockets.into_iter();
    servers
        .map(|(id, socket)| server(id, &members, socket))
        .collect()
}

/// A node with a channel to each other one. They pass messages without encoding them.
struct ChannelServer {
    replica: Replica,
    mailbox: Receiver<Message>,
    mailboxes: HashMap<u64, Sender<Message>>,
    next_tick: Instant,
}

fn on_channels() -> Result<Vec<ChannelServer>, Box<dyn Error>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..NODES).map(|_| mpsc::channel()).unzip();
    let servers = receivers.into_iter().zip(1..).map(|(mailbox, id)| {
        Ok(ChannelServer {
            replica: replica(id)?,
            mailbox,
            mailboxes: (1..).zip(senders.iter().cloned()).collect(),
            next_tick: Instant::now() + TICK,
        })
    });
    servers.collect()
}

impl ChannelServer {
    fn send(&mut self) -> Result<(), Box<dyn Error>> {
        for (to, message) in messages(&mut self.replica)? {
            // Fails at the end, when the other thread has stopped.
            let _ = self.mailboxes[&to].send(message);
        }
        Ok(())
    }
}

impl Node for ChannelServer {
    fn turn(&mut self, timeout: Duration) -> Result<(), Box<dyn Error>> {
        self.send()?;
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        if let Ok(message) = self.mailbox.recv_timeout(timeout.min(until_tick)) {
            self.replica.step(message);
            while let Ok(message) = self.mailbox.try_recv() {
                self.replica.step(message);
            }
        }
        let now = Instant::now();
        if now >= self.next_tick {
            self.replica.tick();
            self.next_tick = now + TICK;
        }
        self.send()
    }

    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }
}

/// The increments of the leader's thread that have been applied.
#[derive(Default)]
struct Applied {
    count: AtomicU64,
    stop: AtomicBool,
}

/// Turns a node. While it leads, `window` increments are under way.
fn turn_node(mut node: impl Node, client: u64, window: u64, applied: &Applied) {
    let (mut proposed, mut answered) = (0, 0);
    while !applied.stop.load(Ordering::Relaxed) {
        node.turn(WAIT).expect("the node works");
        for answer in node.replica().take_answers() {
            if answer.request.client == client {
                answered = answer.request.number;
                applied.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !node.replica().is_leader() {
            // What was under way is lost or not: this is not a client that repeats.
            answered = proposed;
            continue;
        }
        while proposed < answered + window {
            proposed += 1;
            node.replica().request(Request {
                client,
                number: proposed,
                is_increment: true,
            });
        }
    }
}

/// Increments a second, counted from when the first ones have been applied.
fn measure(nodes: Vec<impl Node>, window: u64) -> f64 {
    let applied = Applied::default();
    thread::scope(|scope| {
        for (node, client) in nodes.into_iter().zip(1..) {
            let applied = &applied;
            scope.spawn(move || turn_node(node, client, window, applied));
        }
        while applied.count.load(Ordering::Relaxed) < window {
            thread::sleep(WAIT);
        }
        let (start, before) = (Instant::now(), applied.count.load(Ordering::Relaxed));
        thread::sleep(MEASURED);
        let count = applied.count.load(Ordering::Relaxed) - before;
        let seconds = start.elapsed().as_secs_f64();
        applied.stop.store(true, Ordering::Relaxed);
        count as f64 / seconds
    })
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!("increments a second, medians of {ROUNDS} rounds");
    println!(
        "{:>10} {:>12} {:>12}",
        "under way", "quorum-cnx", "channels"
    );
    for window in [1, 16, 256] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(measure(on_sockets()?, window));
            theirs.push(measure(on_channels()?, window));
        }
        println!(
            "{window:>10} {:>12.0} {:>12.0}",
            median(ours),
            median(theirs)
        );
    }
    Ok(())
}
