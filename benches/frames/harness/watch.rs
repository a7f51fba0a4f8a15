//! Watches a stream from outside: how many bytes are on their way, how often its ends sleep, and the rate in short intervals.
//!
//! It is the same for all participants, since it asks only the kernel: `sock_diag(7)` for the bytes in the queues of the connection,
//! `proc(5)` for the rest. What cannot be found out is left out.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use serde_json::{Map, Value, json};

/// Time between two looks at the queues.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The length of the intervals of which the rate is reported.
const RATE_OF: Duration = Duration::from_millis(50);

/// A stream that is watched.
pub(crate) struct Watch {
    ends: [u32; 2],
    queues: Option<Queues>,
    start: Instant,
    before: [Usage; 2],
    /// Bytes in both queues, at each look.
    in_flight: Vec<u64>,
    /// Bytes a second in each interval.
    rates: Vec<f64>,
    interval: (Instant, u64),
}

/// What an end has used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Times a thread has slept.
    sleeps: u64,
    /// Nanoseconds on a processor.
    cpu: u64,
    /// Page faults.
    faults: u64,
}

impl Watch {
    /// Watches the processes `serve` and `drive`, whose connection ends at `at`.
    pub(crate) fn start(serve: u32, drive: u32, at: &str) -> Self {
        let now = Instant::now();
        Self {
            ends: [serve, drive],
            queues: Queues::find(at),
            start: now,
            before: [serve, drive].map(Usage::of),
            in_flight: Vec::new(),
            rates: Vec::new(),
            interval: (now, loopback_bytes()),
        }
    }

    /// Looks at the connection. Returns the time until it wants to look again.
    pub(crate) fn look(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(bytes) = self.queues.as_ref().and_then(Queues::bytes) {
            self.in_flight.push(bytes);
        }
        let (since, before) = self.interval;
        let took = now.saturating_duration_since(since);
        if took >= RATE_OF {
            let bytes = loopback_bytes();
            let rate = bytes.saturating_sub(before) as f64 / took.as_secs_f64();
            self.rates.push(rate);
            self.interval = (now, bytes);
        }
        LOOK_EVERY
    }

    /// What was seen until now.
    pub(crate) fn results(mut self) -> Map<String, Value> {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut results = Map::new();
        let mut add = |key: String, value: f64| results.insert(key, json!(value));
        self.in_flight.sort_unstable();
        if let (Some(last), Some(middle)) = (
            self.in_flight.last(),
            self.in_flight.get(self.in_flight.len() / 2),
        ) {
            add("in_flight_p50".into(), *middle as f64);
            add("in_flight_max".into(), *last as f64);
        }
        let mut faults = 0;
        for (at, name) in ["serve", "drive"].into_iter().enumerate() {
            let (now, before) = (Usage::of(self.ends[at]), self.before[at]);
            faults += now.faults.saturating_sub(before.faults);
            let cpu = now.cpu.saturating_sub(before.cpu) as f64 / 1e9;
            let sleeps = now.sleeps.saturating_sub(before.sleeps) as f64;
            add(format!("{name}_sleeps_per_s"), sleeps / seconds);
            add(format!("{name}_cpu_percent"), cpu / seconds * 100.0);
        }
        let bytes: f64 = self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64 * seconds;
        add(
            "faults_per_mib".into(),
            faults as f64 / (bytes / f64::from(1 << 20)).max(1.0),
        );
        let rates = self.rates.iter().map(|rate| json!(rate.round()));
        results.insert("rates".into(), rates.collect());
        results
    }
}

impl Usage {
    fn of(process: u32) -> Self {
        let mut usage = Self::default();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name of the program, in parentheses, may have spaces. `minflt` is the eighth field behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        usage.faults = number(fields.split_whitespace().nth(7));
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            usage.cpu += number(read("schedstat").split_whitespace().next());
            let status = read("status");
            let sleeps = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.sleeps += number(sleeps);
        }
        usage
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Bytes that the loopback interface has received, headers included.
fn loopback_bytes() -> u64 {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    number(line.and_then(|line| line.split_whitespace().next()))
}

/// The two sockets of a connection over IPv4 on this machine.
struct Queues {
    diag: OwnedFd,
    serve: SocketAddrV4,
    drive: SocketAddrV4,
}

impl Queues {
    /// Finds the connection that was accepted at this address.
    fn find(at: &str) -> Option<Self> {
        let SocketAddr::V4(serve) = at.parse().ok()? else {
            return None;
        };
        // Read once, since it takes milliseconds: the kernel walks through all of its table.
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let drive = table.lines().skip(1).find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = state == "01" && address(local)? == serve;
            is_it.then(|| address(remote))?
        })?;
        let diag = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        );
        Some(Self {
            diag: diag.ok()?,
            serve,
            drive,
        })
    }

    /// Bytes that were given to the kernel and have not been read.
    fn bytes(&self) -> Option<u64> {
        let (unread, _) = self.ask(self.serve, self.drive).ok()?;
        let (_, unacknowledged) = self.ask(self.drive, self.serve).ok()?;
        Some(u64::from(unread) + u64::from(unacknowledged))
    }

    /// The receive queue and the send queue of this socket, in bytes.
    fn ask(&self, local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<(u32, u32)> {
        const SOCK_DIAG_BY_FAMILY: u16 = 20;
        const NLM_F_REQUEST: u16 = 1;
        const TCP: u8 = 6;
        const LEN: u32 = 72;
        let mut message = Vec::with_capacity(LEN as usize);
        // `struct nlmsghdr`.
        message.extend(LEN.to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        // `struct inet_diag_req_v2`: the family, the protocol, all states, and the two addresses.
        message.extend([AddressFamily::Inet as u8, TCP, 0, 0]);
        message.extend(u32::MAX.to_ne_bytes());
        message.extend(local.port().to_be_bytes());
        message.extend(remote.port().to_be_bytes());
        for ip in [local.ip(), remote.ip()] {
            message.extend(ip.octets());
            message.extend([0; 12]);
        }
        // Any interface, any cookie.
        message.extend([0; 4]);
        message.extend([0xff; 8]);
        send(self.diag.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 512];
        let len = recv(self.diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // `struct inet_diag_msg` begins at 16. An error is shorter.
        let word = |at: usize| {
            let bytes = answer[..len].get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        word(72)
            .zip(word(76))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// An address as in `/proc/net/tcp`: `0100007F:1F90`, in the byte order of the machine and in that of the network.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(
        Ipv4Addr::from(ip),
        u16::from_str_radix(port, 16).ok()?,
    ))
}
