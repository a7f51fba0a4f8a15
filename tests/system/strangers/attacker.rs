//! The attacker: one process that does to the given sockets what it is told, until it is told to stop.
//!
//! It knows the wire and nothing else of those whom it attacks.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{attacks, role};

/// How long a connection may take, or an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an attack is given.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) targets: Vec<SocketAddr>,
    /// How often it is to be done at least.
    pub(crate) count: u64,
    pub(crate) seed: u64,
    /// When it ends also without having been done so often: those who are attacked may not answer.
    until: Instant,
    stopped: Arc<AtomicBool>,
}

impl Order {
    /// Whether the attack is to go on, after it was done so often.
    pub(crate) fn goes_on(&self, done: u64) -> bool {
        (done < self.count && Instant::now() < self.until) || !self.is_stopped()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn target(&self, n: u64) -> SocketAddr {
        self.targets[n as usize % self.targets.len()]
    }
}

pub(crate) fn run() {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut at_work = None;
    for order in role::orders() {
        match order["do"].as_str() {
            Some("attack") => {
                stopped.store(false, Ordering::Relaxed);
                let name = order["name"].as_str().expect("a name").to_owned();
                let order = parse(&order, &stopped);
                at_work = Some(thread::spawn(move || attacks::run(&name, &order)));
            }
            Some("stop") => {
                stopped.store(true, Ordering::Relaxed);
                let thread = at_work.take().expect("something is stopped");
                let done = thread.join().expect("the attack has not failed");
                role::answer(&json!({ "done": done.done, "held": done.held }));
            }
            other => panic!("no order: {other:?}"),
        }
    }
}

fn parse(order: &Value, stopped: &Arc<AtomicBool>) -> Order {
    let targets = order["targets"].as_array().expect("targets");
    let address = |target: &Value| target.as_str().expect("text").parse().expect("an address");
    Order {
        targets: targets.iter().map(address).collect(),
        count: order["count"].as_u64().expect("a number"),
        seed: order["seed"].as_u64().expect("a number"),
        until: Instant::now() + Duration::from_secs(order["at_most"].as_u64().expect("a number")),
        stopped: Arc::clone(stopped),
    }
}

/// The n-th of the addresses that strangers come from, so that their ports are not used up.
fn from(n: u64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + (n % 250) as u8)
}

/// A connection that ends with a reset, unless it says otherwise: none of its ports stay behind.
pub(crate) fn connect(n: u64, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((from(n), 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How many connections one process can have.
pub(crate) fn descriptors_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("proc is mounted");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}
