//! A cable that takes its time: what comes in at one end leaves at the other after a while, each packet after another one, so
//! that they overtake each other.
//!
//! Nothing here looks into a packet. What does not fit is lost, as in any queue of a network.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, recv,
        send, socket,
    },
};

use support::chance::Rng as Chance;

/// Packets under way at one time, in both directions.
const PACKETS_MAX: usize = 4096;

/// A whole packet: nothing is put together when the offloads of the devices are off, and then some.
const PACKET_BYTES_MAX: usize = 1 << 16;

/// How long a packet takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) at_least_ms: u64,
    pub(crate) at_most_ms: u64,
}

/// A cable between two devices of one namespace; it is gone when dropped.
pub(crate) struct Cable {
    gone: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Packet {
    due: Instant,
    /// The first of those that are due at one time is the first that came.
    order: u64,
    out: usize,
    bytes: Vec<u8>,
}

impl Cable {
    pub(crate) fn new(namespace: &str, devices: [&str; 2], weather: Weather, seed: u64) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let (namespace, devices) = (namespace.to_owned(), devices.map(str::to_owned));
        let (sender, laid) = channel();
        let is_gone = Arc::clone(&gone);
        let work = move || {
            // This thread alone goes there.
            let there = File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(there, CloneFlags::CLONE_NEWNET).unwrap();
            let ends = devices.map(|device| end(&device));
            sender.send(()).unwrap();
            carry(&ends, weather, &mut Chance::new(seed), &is_gone);
        };
        let thread = thread::spawn(work);
        laid.recv().expect("the cable is laid");
        Self {
            gone,
            thread: Some(thread),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and nothing goes through any more.
            let _ = thread.join();
        }
    }
}

/// A socket that sees every packet of a device, and can send any.
fn end(device: &str) -> OwnedFd {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .unwrap();
    let address = getifaddrs()
        .unwrap()
        .filter(|found| found.interface_name == device)
        .filter_map(|found| found.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .expect("the device is there");
    let address = *address.as_link_addr().expect("it is one of the link layer");
    bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

fn carry(ends: &[OwnedFd; 2], weather: Weather, chance: &mut Chance, gone: &AtomicBool) {
    let mut queue: BinaryHeap<Reverse<Packet>> = BinaryHeap::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut order = 0;
    while !gone.load(Ordering::Relaxed) {
        wait(ends, queue.peek().map(|Reverse(packet)| packet.due));
        for (index, end) in ends.iter().enumerate() {
            // A device that is down has nothing to say.
            while let Ok(len) = recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                if queue.len() < PACKETS_MAX {
                    order += 1;
                    queue.push(Reverse(Packet {
                        due: Instant::now()
                            + chance.millis(weather.at_least_ms, weather.at_most_ms),
                        order,
                        out: 1 - index,
                        bytes: buffer[..len].to_vec(),
                    }));
                }
            }
        }
        while queue
            .peek()
            .is_some_and(|Reverse(packet)| packet.due <= Instant::now())
        {
            let Reverse(packet) = queue.pop().expect("it was just seen");
            // What a device does not take is lost.
            let _ = send(
                ends[packet.out].as_raw_fd(),
                &packet.bytes,
                MsgFlags::empty(),
            );
        }
    }
}

/// Until a packet comes or one is due, and not for so long that the end of the test is missed.
fn wait(ends: &[OwnedFd; 2], due: Option<Instant>) {
    let most = Duration::from_millis(100);
    let left = due.map_or(most, |due| due.saturating_duration_since(Instant::now()));
    // Rounded up: what is due in half a millisecond is not asked after all the time.
    let millis = u16::try_from(left.min(most).as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    let mut fds = ends
        .each_ref()
        .map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
    match poll(&mut fds, PollTimeout::from(millis)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => panic!("cannot wait: {error}"),
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Packet {}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}
