//! A path with a delay: the loopback interface of a network namespace of its own, in which the kernel hands each TCP packet to this
//! process (`NFQUEUE`), and delivers it when this process says so, after the delay.
//!
//! The bytes of a packet stay in the kernel, and large segments stay whole, so that a packet costs two small messages. Since a proxy would end
//! the connection, it would not do: windows must see the whole round trip. The queueing discipline `netem` would, but not every kernel has
//! it.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path as FilePath, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt,
            socket,
            sockopt::{RcvBufForce, ReceiveTimeout},
        },
        time::TimeVal,
    },
};
use serde_json::{Map, Value, json};

use super::namespace;
use crate::{
    ends::Times,
    failure::{While, failure},
};

/// Packets that may be held: those of 64 MiB in the smallest segments.
const PACKETS_MAX: u32 = 1 << 16;

/// Bytes of messages about packets that this process has not read yet: 10 000 messages.
const MESSAGES_BYTES_MAX: usize = 8 << 20;

/// How often the threads check whether the path has ended.
const POLL_INTERVAL_US: i64 = 50_000;

/// The packets of an Ethernet, so that windows grow as on one.
const MTU: &str = "1500";

/// Segments that may overtake another one before TCP takes that for lost. Both processors send: the thread of the application, and the one
/// that delivers acknowledgements. A large segment of the one then overtakes one of the other, as on no network.
const REORDERED_MAX: &str = "300";
const REORDERING: &str = "/proc/sys/net/ipv4/tcp_reordering";

/// The number of the queue, which is the only one of the namespace.
const QUEUE: u16 = 0;

/// A path with a delay; gone when dropped.
pub(super) struct Path {
    over: Arc<AtomicBool>,
    /// How late packets were delivered, in addition to the delay.
    late: Arc<Times>,
    /// The files in which the kernel counts the time that the two threads have run.
    usage: [PathBuf; 2],
    since: (Instant, u64),
}

/// An error, in words, if there can be no such path here.
pub(super) fn check() -> Result<(), String> {
    let enter = || Path::enter(Duration::from_millis(1)).map(drop);
    match thread::spawn(enter).join() {
        Ok(entered) => entered.map_err(|error| error.to_string()),
        Err(_) => Err("the thread of the path has panicked".into()),
    }
}

impl Path {
    /// Puts this thread, and the threads and programs that it starts from now on, into a namespace in which each TCP packet is delayed.
    pub(super) fn enter(delay: Duration) -> io::Result<Self> {
        let congestion = namespace::congestion_control();
        unshare(CloneFlags::CLONE_NEWNET).context("creating a network namespace, as root")?;
        namespace::set_congestion_control(&congestion).map_err(failure)?;
        fs::write(REORDERING, REORDERED_MAX).context(format_args!("writing {REORDERING}"))?;
        run("ip", &["link", "set", "lo", "up", "mtu", MTU])?;
        let queue = Arc::new(Queue::open()?);
        let input = ["-A", "INPUT", "-i", "lo", "-p", "tcp"];
        let target = ["-j", "NFQUEUE", "--queue-num", &QUEUE.to_string()];
        run("iptables", &[&input[..], &target[..]].concat())?;
        let over = Arc::new(AtomicBool::new(false));
        let late = Arc::new(Times::default());
        let (held, due) = channel();
        let (started, names) = channel();
        let (own, reading, stop) = (Arc::clone(&queue), started.clone(), Arc::clone(&over));
        thread::spawn(move || {
            let _ = reading.send(own_usage());
            own.hold(delay, &held, &stop);
        });
        let recording = Arc::clone(&late);
        thread::spawn(move || {
            let _ = started.send(own_usage());
            queue.deliver(&due, &recording);
        });
        let usage = || names.recv().map_err(failure);
        let mut path = Self {
            over,
            late,
            usage: [usage()?, usage()?],
            since: (Instant::now(), 0),
        };
        path.mark();
        Ok(path)
    }

    /// Begins to measure the path itself.
    pub(super) fn mark(&mut self) {
        self.late.reset();
        self.since = (Instant::now(), self.used());
    }

    /// What the path has used and how late it was, since `mark`.
    pub(super) fn results(&self) -> Map<String, Value> {
        let (start, before) = self.since;
        let used = Duration::from_nanos(self.used().saturating_sub(before));
        let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
        let mut results = Map::new();
        results.insert("path_cpu_percent".into(), json!(share * 100.0));
        let quantiles = [("p50", 0.5), ("p99", 0.99)];
        self.late.report("path_late", &quantiles, &mut results);
        results
    }

    /// An error if packets were lost. The rate is then that of the congestion control.
    pub(super) fn check(&self) -> io::Result<()> {
        match losses() {
            None | Some(0) => Ok(()),
            Some(losses) => Err(failure(format_args!(
                "packets were lost: TCP has sent segments again {losses} times"
            ))),
        }
    }

    /// Nanoseconds for which both threads have run.
    fn used(&self) -> u64 {
        let read = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
        let first = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
        self.usage.iter().map(read).filter_map(first).sum()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // The first thread ends, and with it the channel, on which the second one waits. The kernel drops what is held.
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How often TCP has sent segments again after a loss, in the namespace of this thread. Probes (RFC 8985) do not count: they are also
/// sent when a busy machine delivers packets too late, and do no harm.
fn losses() -> Option<u64> {
    const COUNTED: [&str; 3] = ["TCPFastRetrans", "TCPSlowStartRetrans", "TCPTimeouts"];
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    // A line of names, then a line of numbers.
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let all = names.split(' ').zip(numbers.split(' '));
    let counted = all.filter(|(name, _)| COUNTED.contains(name));
    Some(
        counted
            .filter_map(|(_, number)| number.parse::<u64>().ok())
            .sum(),
    )
}

/// The file in which the kernel counts the time that this thread has run.
fn own_usage() -> PathBuf {
    let own = fs::read_link("/proc/thread-self").unwrap_or_default();
    FilePath::new("/proc").join(own).join("schedstat")
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let what = || format!("`{program} {}`", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context(what())?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(failure(format_args!("{} failed: {}", what(), why.trim())))
}

/// The kernel's queue of packets that wait for a verdict: `linux/netfilter/nfnetlink_queue.h`.
struct Queue(OwnedFd);

const PACKET: u16 = 0x300;
const CONFIGURE: u16 = 0x302;
const VERDICT_OF_ALL_UP_TO: u16 = 0x303;

impl Queue {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .context("opening a netfilter socket")?;
        setsockopt(&socket, RcvBufForce, &MESSAGES_BYTES_MAX)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, POLL_INTERVAL_US))?;
        let queue = Self(socket);
        const BIND: u8 = 1;
        const ONLY_METADATA: u8 = 1;
        const WHOLE_SEGMENTS: u32 = 4;
        let number = u32::to_be_bytes;
        queue.configure(&[(1, &[BIND, 0, 0, 0])])?;
        queue.configure(&[
            (2, &[0, 0, 0, 0, ONLY_METADATA]),
            (3, &number(PACKETS_MAX)),
            (4, &number(WHOLE_SEGMENTS)),
            (5, &number(WHOLE_SEGMENTS)),
        ])?;
        Ok(queue)
    }

    /// Sends attributes, each a number and its value, and waits for the answer.
    fn configure(&self, attributes: &[(u16, &[u8])]) -> io::Result<()> {
        const ACKNOWLEDGE: u16 = 4;
        self.send(CONFIGURE, ACKNOWLEDGE, attributes)
            .context("configuring the queue of packets")?;
        let mut answer = [0; 512];
        let len = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // `struct nlmsgerr` follows the header: an error number, or 0.
        match answer[..len].get(16..20) {
            Some([0, 0, 0, 0]) => Ok(()),
            _ => Err(failure("the kernel has no queue for packets (NFQUEUE)")),
        }
    }

    fn send(&self, kind: u16, flags: u16, attributes: &[(u16, &[u8])]) -> io::Result<()> {
        const REQUEST: u16 = 1;
        let mut message = vec![0; 16];
        // `struct nfgenmsg`: no protocol family, version 0.
        message.extend([0, 0]);
        message.extend(QUEUE.to_be_bytes());
        for (number, value) in attributes {
            message.extend((4 + value.len() as u16).to_ne_bytes());
            message.extend(number.to_ne_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        // `struct nlmsghdr`.
        let len = message.len() as u32;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads which packets have arrived, until the path is over.
    fn hold(&self, delay: Duration, held: &Sender<(u32, Instant)>, over: &AtomicBool) {
        let mut message = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(len) => {
                    let due = Instant::now() + delay;
                    let packet = packet(&message[..len]);
                    if packet.is_some_and(|packet| held.send((packet, due)).is_err()) {
                        return;
                    }
                }
                Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => {}
                // Messages were lost: TCP sends such packets again.
                Err(_) => {}
            }
        }
    }

    /// Delivers packets when they are due.
    fn deliver(&self, held: &Receiver<(u32, Instant)>, late: &Times) {
        const ACCEPT: u32 = 1;
        let mut next = held.recv().ok();
        while let Some((first, due)) = next.take() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            let mut last = first;
            late.record(now.saturating_duration_since(due));
            // Those that are due by now as well.
            next = loop {
                match held.try_recv() {
                    Ok((packet, due)) if due <= now => last = packet,
                    Ok(later) => break Some(later),
                    Err(_) => break None,
                }
            };
            let verdict = [ACCEPT.to_be_bytes(), last.to_be_bytes()].concat();
            if self
                .send(VERDICT_OF_ALL_UP_TO, 0, &[(2, &verdict)])
                .is_err()
            {
                return;
            }
            next = next.or_else(|| held.recv().ok());
        }
    }
}

/// The number of the packet in a message. Numbers grow by one.
fn packet(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    // Its first attribute has the number 1.
    let attribute = message.get(20..)?;
    let number = u16::from_ne_bytes(*attribute.get(2..)?.first_chunk()?);
    if (kind, number) != (PACKET, 1) {
        return None;
    }
    Some(u32::from_be_bytes(*attribute.get(4..)?.first_chunk()?))
}
