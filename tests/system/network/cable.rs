//! A cable with delay: each packet that arrives at one end leaves at the other after a random time, so that packets are
//! reordered.
//!
//! Packets that do not fit into its queue are dropped.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
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

use support::{rng::Rng, worker::Worker};

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

/// Ordered by the time at which it is due.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    egress: usize,
    bytes: Vec<u8>,
}

/// Starts a cable between two devices of one namespace. It ends when the result is dropped.
pub(crate) fn start(
    namespace: &str,
    devices: [&str; 2],
    delay_range: DelayRange,
    seed: u64,
) -> Worker {
    let namespace = format!("/run/netns/{namespace}");
    // Only this thread enters the namespace. The sockets stay in it.
    let open = || {
        setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        devices.map(open_end)
    };
    let ends = thread::scope(|scope| scope.spawn(open).join().unwrap());
    let (mut queue, mut rng) = (BinaryHeap::new(), Rng::new(seed));
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    Worker::repeat(move || {
        forward(&ends, delay_range, &mut rng, &mut queue, &mut buffer);
        true
    })
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

/// Receives the packets that have arrived, and sends those that are due.
fn forward(
    ends: &[OwnedFd; 2],
    delay_range: DelayRange,
    rng: &mut Rng,
    queue: &mut BinaryHeap<Reverse<Packet>>,
    buffer: &mut [u8],
) {
    wait(ends, queue.peek().map(|Reverse(packet)| packet.due));
    for (index, end) in ends.iter().enumerate() {
        // Fails if the device is down.
        while let Ok(len) = recv(end.as_raw_fd(), buffer, MsgFlags::empty()) {
            if queue.len() < PACKETS_MAX {
                let delay = rng.millis(delay_range.at_least_ms, delay_range.at_most_ms);
                queue.push(Reverse(Packet {
                    due: Instant::now() + delay,
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
        let egress = ends[packet.egress].as_raw_fd();
        let _ = send(egress, &packet.bytes, MsgFlags::empty());
    }
}

/// Waits until a packet arrives or is due, and at most 100 ms, so that a cable that is dropped ends.
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
