//! The attacker: a process that attacks the given addresses until it is stopped.
//!
//! It uses only the protocol.

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

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{attacks, role};

/// Timeout of connecting, reading and writing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The parameters of an attack.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) targets: Vec<SocketAddr>,
    /// The minimum number of repetitions.
    pub(crate) count: u64,
    pub(crate) seed: u64,
    /// The deadline: the attack ends even with fewer repetitions, since its targets may not answer.
    until: Instant,
    stopped: Arc<AtomicBool>,
}

impl Order {
    /// Whether the attack continues after so many repetitions.
    pub(crate) fn continues(&self, done: u64) -> bool {
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
    let mut running = None;
    for order in role::orders() {
        match order["do"].as_str() {
            Some("attack") => {
                stopped.store(false, Ordering::Relaxed);
                let name = order["name"].as_str().expect("a name").to_owned();
                let order = parse(&order, &stopped);
                running = Some(thread::spawn(move || attacks::run(&name, &order)));
            }
            Some("stop") => {
                stopped.store(true, Ordering::Relaxed);
                let thread = running.take().expect("an attack is running");
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

/// The n-th source address of strangers: there are many, so that they do not run out of ports.
fn from(n: u64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + (n % 250) as u8)
}

/// Connects. The connection ends with a reset unless it is shut down, so that no port stays in TIME_WAIT.
pub(crate) fn connect(n: u64, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((from(n), 0)).into())?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// The limit of descriptors of this process.
pub(crate) fn descriptors_max() -> u64 {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("the resource exists");
    soft
}
