//! A cable with delay: each packet that arrives at one end leaves at the other after a random time, so that packets are
//! reordered.
//!
//! Packets that do not fit into its queue are dropped.

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

use support::rng::Rng;

/// Packets in the queue, for both directions together.
const PACKETS_MAX: usize = 4096;

/// More than the largest packet: the segmentation offloads of the devices are off.
const PACKET_BYTES_MAX: usize = 1 << 16;

/// The range of the delay of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DelayRange {
    pub(crate) at_least_ms: u64,
    pub(crate) at_most_ms: u64,
}

/// A cable between two devices of one namespace. It ends when this is dropped.
pub(crate) struct Cable {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Packet {
    due: Instant,
    /// Of packets that are due at the same time, the first to arrive is the first to leave.
    order: u64,
    egress: usize,
    bytes: Vec<u8>,
}

impl Cable {
    pub(crate) fn new(
        namespace: &str,
        devices: [&str; 2],
        delay_range: DelayRange,
        seed: u64,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (namespace, devices) = (namespace.to_owned(), devices.map(str::to_owned));
        let (sender, ready) = channel();
        let is_stopped = Arc::clone(&stopped);
        let work = move || {
            // Only this thread enters the namespace.
            let namespace_file = File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(namespace_file, CloneFlags::CLONE_NEWNET).unwrap();
            let ends = devices.map(|device| open_end(&device));
            sender.send(()).unwrap();
            forward(&ends, delay_range, &mut Rng::new(seed), &is_stopped);
        };
        let thread = thread::spawn(work);
        ready.recv().expect("the cable is ready");
        Self {
            stopped,
            thread: Some(thread),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed, and it forwards nothing any more.
            let _ = thread.join();
        }
    }
}

/// A packet socket that receives every packet of a device, and can send any.
fn open_end(device: &str) -> OwnedFd {
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
        .expect("the device exists");
    let address = *address
        .as_link_addr()
        .expect("the address is one of the link layer");
    bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

fn forward(ends: &[OwnedFd; 2], delay_range: DelayRange, rng: &mut Rng, stopped: &AtomicBool) {
    let mut queue: BinaryHeap<Reverse<Packet>> = BinaryHeap::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut order = 0;
    while !stopped.load(Ordering::Relaxed) {
        wait(ends, queue.peek().map(|Reverse(packet)| packet.due));
        for (index, end) in ends.iter().enumerate() {
            // Fails if the device is down.
            while let Ok(len) = recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                if queue.len() < PACKETS_MAX {
                    order += 1;
                    queue.push(Reverse(Packet {
                        due: Instant::now()
                            + rng.millis(delay_range.at_least_ms, delay_range.at_most_ms),
                        order,
                        egress: 1 - index,
                        bytes: buffer[..len].to_vec(),
                    }));
                }
            }
        }
        while queue
            .peek()
            .is_some_and(|Reverse(packet)| packet.due <= Instant::now())
        {
            let Reverse(packet) = queue.pop().expect("the queue is not empty");
            // A packet that the device does not accept is lost.
            let _ = send(
                ends[packet.egress].as_raw_fd(),
                &packet.bytes,
                MsgFlags::empty(),
            );
        }
    }
}

/// Waits until a packet arrives or is due, and at most 100 ms, so that `stopped` is checked.
fn wait(ends: &[OwnedFd; 2], due: Option<Instant>) {
    let most = Duration::from_millis(100);
    let left = due.map_or(most, |due| due.saturating_duration_since(Instant::now()));
    // Rounded up, so that a packet that is due within a millisecond causes no busy loop.
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
