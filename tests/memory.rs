//! Tests that the library never allocates more than `Config::max_memory`, in the worst cases.
//!
//! The allocator counts for the whole process: tests run one after the other, and the remote ends allocate little.

#![cfg(target_os = "linux")]

use std::{
    io::{self, Read as _, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use peak_alloc::PeakAlloc;
use quorum_cnx::{
    Batch, CnxManager, Config, ConfigBuilder, EVENTS_MAX, EventLoop, FRAME_BYTES_MAX, Handle,
    InboxFull, Leave, Outbox, SendOutcome, Sid, Unknown,
    simulation::limits::{PLACE_BYTES, PREFIX_BYTES},
};
use support::{
    MEMBER_IP, STRANGER_IP, TestConnection, V2, bare, claiming, configure, eventually,
    fill_with_socket, frame, listener, turned::Ignore,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A test holds this lock while it runs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const OWN: i64 = 1;

/// Longer than a test: no timeout ends a connection.
const HOUR: Duration = Duration::from_secs(3600);

/// The largest frame on the wire, created before the measurement.
struct Largest(Vec<u8>);

impl Largest {
    fn new() -> Self {
        Self(frame(vec![7; FRAME_BYTES_MAX]))
    }

    fn all_but_the_end(&self) -> &[u8] {
        &self.0[..self.0.len() - 1]
    }
}

/// A server that is about to start. All its peers have larger sids, and dial it.
struct TestServer {
    config: Option<Config>,
    address: String,
    members: Vec<i64>,
    ceiling: usize,
    base: usize,
    largest: Largest,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl TestServer {
    fn prepare(members: i64, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (listener, address) = listener();
        let members: Vec<i64> = (OWN + 1..=OWN + members).collect();
        // Nothing listens on these ports. Only the hosts matter, as the addresses of the members.
        let mut servers = vec![(OWN, address.clone())];
        let ports = members.iter().zip(1..);
        servers.extend(ports.map(|(sid, port)| (*sid, format!("{MEMBER_IP}:{port}"))));
        let builder = configure(OWN, &servers)
            .listener(listener)
            .members_max(servers.len())
            .handshake_timeout(HOUR)
            .peer_dead_after(HOUR);
        let config = shape(builder).build().unwrap();
        let largest = Largest::new();
        ALLOCATOR.reset_peak_usage();
        Self {
            address,
            members,
            ceiling: usize::try_from(config.max_memory()).unwrap(),
            base: ALLOCATOR.current_usage(),
            config: Some(config),
            largest,
            _one_at_a_time: guard,
        }
    }

    fn allocated(&self) -> usize {
        ALLOCATOR.current_usage().saturating_sub(self.base)
    }

    /// Connects all members.
    fn members(&self) -> Vec<TestConnection> {
        let link = |sid: &i64| TestConnection::member(&self.address, *sid, &[]);
        self.members.iter().map(link).collect()
    }

    /// Connects strangers from another address, which write these bytes.
    fn strangers(&self, count: usize, bytes: &[u8]) -> Vec<TestConnection> {
        let connect = |_| TestConnection::dial_and_write(STRANGER_IP, &self.address, bytes);
        (0..count).map(connect).collect()
    }

    fn observers(&self, count: usize) -> Vec<TestConnection> {
        self.strangers(count, &bare(Sid::OBSERVER.0))
    }

    /// Each of these peers sends so many of the largest frames, and all but the last byte of another one.
    fn flood(&self, peers: &mut [TestConnection], frames: usize) {
        for peer in peers {
            (0..frames).for_each(|_| peer.write(&self.largest.0));
            peer.write(self.largest.all_but_the_end());
        }
    }

    /// Connections that have sent all but the last byte of the longest initial message.
    fn unfinished(&self, count: usize) -> Vec<TestConnection> {
        self.strangers(count, &claiming(V2, 2, 2048, &[b'a'; 2047]))
    }

    /// Contenders for the sids of all members, with as many further bytes as are read at once.
    fn contenders(&self) -> Vec<TestConnection> {
        let claim = |sid: &i64| {
            let bytes = [bare(*sid), vec![0; 4080]].concat();
            TestConnection::dial_and_write(STRANGER_IP, &self.address, &bytes)
        };
        self.members.iter().map(claim).collect()
    }

    /// Causes refused connections, until the event queue is full of them.
    fn refusals(&self, handle: &Handle) {
        let before = refused(handle);
        let count = EVENTS_MAX as u64;
        for _ in 0..count {
            TestConnection::dial_and_write(STRANGER_IP, &self.address, &claiming(V2, 2, -1, b""))
                .wait_closed();
        }
        eventually("all are refused", || refused(handle) >= before + count);
    }

    /// Waits until at least `known` bytes are allocated. The peak must not exceed the maximum,
    /// and at least a third of it must be allocated now.
    #[track_caller]
    fn verify(&self, known: usize) {
        eventually("everything is allocated", || self.allocated() >= known);
        let (allocated, ceiling) = (self.allocated(), self.ceiling);
        let peak = ALLOCATOR.peak_usage().saturating_sub(self.base);
        println!(
            "maximum {} KiB, allocated {} KiB ({} %), peak {} KiB",
            ceiling >> 10,
            allocated >> 10,
            allocated * 100 / ceiling,
            peak >> 10
        );
        assert!(peak <= ceiling, "{peak} bytes, more than {ceiling}");
        assert!(
            allocated >= ceiling / 3,
            "{allocated} bytes, far less than {ceiling}"
        );
    }
}

fn refused(handle: &Handle) -> u64 {
    handle.stats().rejected.values().sum()
}

/// Fills a slot: the last frame has arrived, another one is written in part, and one waits. The remote end reads only the first.
/// `turn` turns the loop, if it has no thread.
fn fill_slot(handle: &Handle, sid: Sid, remote: &TestConnection, mut turn: impl FnMut()) {
    let send = |n| handle.to_send(sid, vec![n; FRAME_BYTES_MAX]).unwrap();
    send(1);
    let (mut remote, mut left) = (&remote.0, PREFIX_BYTES + FRAME_BYTES_MAX);
    remote.set_nonblocking(true).unwrap();
    eventually("the first frame has arrived", || {
        turn();
        let mut buffer = [0; 1 << 16];
        let room = left.min(buffer.len());
        match remote.read(&mut buffer[..room]) {
            Ok(n) => left -= n,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        left == 0
    });
    eventually("the slot is full, and a frame is written in part", || {
        turn();
        send(2) == SendOutcome::Superseded
    });
}

/// Fills a queue with frames whose size leaves its buffers half empty.
fn fill_queue(handle: &Handle, sid: Sid) {
    let frame = [3; 14_200];
    while handle.to_send_slice(sid, &frame).is_ok() {}
}

#[test]
fn memory_stays_bounded_if_the_application_never_reads() {
    let (observers, pending) = (5, 64);
    let mut server = TestServer::prepare(3, |builder| {
        builder.observers_max(observers).pending_max(pending)
    });
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let mut peers = server.members();
    eventually("the members are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    let contenders = server.contenders();
    peers.extend(server.observers(observers));
    eventually("the observers are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    server.flood(&mut peers, 20);
    eventually("the inbox is full", || {
        let inbox = manager.stats().inbox;
        inbox.waiting == 100 && inbox.pushed == 20 * peers.len() as u64
    });
    server.refusals(&manager.handle());
    let unfinished = server.unfinished(pending);
    eventually("all are pending", || {
        manager.stats().pending == (pending + contenders.len()) as u64
    });
    // The members first. The sids of observers are negative and descending.
    let sids = [2, 3, 4].into_iter().chain((1..=5).map(|n| -n)).map(Sid);
    for (sid, remote) in sids.zip(&peers) {
        fill_slot(&manager.handle(), sid, remote, || {});
    }
    server.verify((100 + 4 * peers.len()) * (FRAME_BYTES_MAX - 1));
    drop((unfinished, contenders));
}

#[test]
fn memory_stays_bounded_with_queues_and_admitted_servers() {
    let bytes = 2 << 20;
    for outbox in [Outbox::queue(bytes), Outbox::lanes(bytes)] {
        check_outboxes_and_admitted_servers(outbox, bytes);
    }
}

fn check_outboxes_and_admitted_servers(outbox: Outbox, bytes: usize) {
    let inbox_bytes = 8 << 20;
    let waiting = inbox_bytes / (FRAME_BYTES_MAX + PLACE_BYTES);
    let mut server = TestServer::prepare(2, |builder| {
        builder
            .outbox(outbox)
            .unknown(Unknown::admit(4))
            .observers_max(2)
            .pending_max(16)
            .inbox_full(InboxFull::DropOldest)
            .inbox_frames(1 << 12)
            .inbox_bytes(inbox_bytes)
    });
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let mut peers = server.members();
    peers.extend(server.observers(2));
    let joiner = |sid| {
        let addresses = vec!["127.0.0.66:1"; 32].join("|");
        let message = claiming(V2, sid, addresses.len() as i32, addresses.as_bytes());
        TestConnection::dial_and_write(STRANGER_IP, &server.address, &message)
    };
    peers.extend((100..104).map(joiner));
    eventually("all are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    server.flood(&mut peers, 5);
    eventually("the inbox is full", || {
        let inbox = manager.stats().inbox;
        inbox.pushed == 5 * peers.len() as u64 && inbox.waiting == waiting as u64
    });
    let _unfinished = server.unfinished(16);
    eventually("all are pending", || manager.stats().pending == 16);
    let mut per_peer = FRAME_BYTES_MAX + bytes - (32 << 10);
    for sid in manager.linked_peers() {
        let handle = manager.handle();
        fill_with_socket(&handle, sid, || fill_queue(&handle, sid));
        if outbox != Outbox::queue(bytes) {
            // The first one waits behind the run that is blocked, and the second one replaces it.
            for outcome in [SendOutcome::Queued, SendOutcome::Superseded] {
                let sent = manager.to_send_latest(sid, vec![7; FRAME_BYTES_MAX]);
                assert_eq!(sent, Ok(outcome));
            }
        }
    }
    if outbox != Outbox::queue(bytes) {
        per_peer += FRAME_BYTES_MAX;
    }
    server.verify(waiting * FRAME_BYTES_MAX + peers.len() * per_peer);
}

/// Servers join and leave again and again. Then each keeps its place with what waits for it, until no more fit.
#[test]
fn memory_stays_bounded_while_members_come_and_go() {
    let (max, bytes) = (9, 2 << 20);
    let mut server = TestServer::prepare(1, |builder| {
        let builder = builder.members_max(max).observers_max(0);
        builder.inbox_bytes(1 << 20).outbox(Outbox::queue(bytes))
    });
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let join = |sid| manager.set_server(Sid(sid), format!("{MEMBER_IP}:{sid}"));
    let fill_and_remove = |sid, leave| {
        fill_queue(&manager.handle(), Sid(sid));
        manager.remove_server(Sid(sid), leave).unwrap();
    };
    for sid in (2..6).cycle().take(60) {
        eventually("there is room", || join(sid).is_ok());
        fill_and_remove(sid, Leave::Now);
    }
    let first = 100;
    let mut sid = first;
    eventually("no more fit", || match join(sid) {
        Ok(_) => {
            fill_and_remove(sid, Leave::After(HOUR));
            sid += 1;
            false
        }
        // One that left at once may still have a place.
        Err(_) => sid - first == max as i64 - 1,
    });
    server.verify((max - 1) * (bytes - (32 << 10)));
}

#[test]
fn memory_stays_bounded_when_peers_are_slowed() {
    for payload in [1, 100, 20_000, FRAME_BYTES_MAX] {
        let mut server = TestServer::prepare(4, |builder| builder.outbox(Outbox::QUEUE));
        let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
        let peers = server.members();
        let flood = frame(vec![7; payload]).repeat((64 << 10) / payload.min(64 << 10));
        let mut remaining = vec![&flood[..0]; peers.len()];
        for peer in &peers {
            peer.0.set_nonblocking(true).unwrap();
        }
        // Until no peer can write any more, since the loop does not read and the buffers of the kernel are full.
        let mut stuck = 0;
        while stuck < 100 {
            stuck += 1;
            for (peer, rest) in peers.iter().zip(&mut remaining) {
                match (&peer.0).write(rest) {
                    Ok(n) => {
                        *rest = &rest[n..];
                        stuck = 0;
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                if rest.is_empty() {
                    *rest = &flood;
                }
            }
            if stuck > 0 {
                std::thread::yield_now();
                // Starts again while the loop may still read.
                stuck *= u32::from(manager.stats().inbox.waiting > 0);
            }
        }
        eventually("frames of all peers were read", || {
            let peers = manager.stats().peers;
            peers.iter().all(|peer| peer.received.frames > 0)
        });
        assert_eq!(manager.stats().inbox.dropped, 0);
        let peak = ALLOCATOR.peak_usage().saturating_sub(server.base);
        assert!(
            peak <= server.ceiling,
            "{peak} bytes, more than {}",
            server.ceiling
        );
    }
}

#[test]
fn memory_stays_bounded_in_an_event_loop() {
    let mut server = TestServer::prepare(6, |builder| {
        builder.observers_max(0).pending_max(8).inbox_frames(20)
    });
    let mut event_loop = EventLoop::new(server.config.take().unwrap(), Ignore).unwrap();
    let handle = event_loop.handle().clone();
    let peers = server.members();
    eventually("the members are linked", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.linked_peers().len() == peers.len()
    });
    for peer in &peers {
        // The buffers of the kernel are smaller than the frame.
        let (mut remote, mut rest) = (&peer.0, server.largest.all_but_the_end());
        remote.set_nonblocking(true).unwrap();
        eventually("all bytes are written", || {
            event_loop.turn(Some(Duration::ZERO)).unwrap();
            match remote.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            rest.is_empty()
        });
    }
    eventually("all bytes are read", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        server.allocated() >= peers.len() * (FRAME_BYTES_MAX - 1)
    });
    for (n, remote) in (2..).zip(&peers) {
        fill_slot(&handle, Sid(n), remote, || {
            event_loop.turn(Some(Duration::ZERO)).unwrap();
        });
    }
    // The loop does not turn, so that loopback frames wait.
    for _ in 0..30 {
        handle
            .to_send(Sid(OWN), vec![4; FRAME_BYTES_MAX])
            .expect("the oldest message is dropped");
    }
    server.verify((20 + 4 * peers.len()) * (FRAME_BYTES_MAX - 1));
}

/// The share of `max_memory` for one pending connection covers what such a connection allocates.
#[test]
fn pending_connection_takes_at_most_its_share_of_max_memory() {
    let ceiling = |pending| {
        let config = configure(OWN, &[(OWN, "127.0.0.1:0")]).pending_max(pending);
        usize::try_from(config.build().unwrap().max_memory()).unwrap()
    };
    let count = 250;
    let share = (ceiling(1 + count) - ceiling(1)) / count;
    let mut server = TestServer::prepare(1, |builder| builder.pending_max(1 + count));
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let first = server.unfinished(1);
    eventually("the connection is pending", || manager.stats().pending == 1);
    // The event queue grows with each event: it is filled before the comparison.
    server.refusals(&manager.handle());
    let before = server.allocated();
    let many = server.unfinished(count);
    eventually("all are pending", || {
        manager.stats().pending == 1 + count as u64
    });
    eventually("all their bytes are read", || {
        server.allocated() >= before + count * 2067
    });
    let each = (server.allocated() - before) / count;
    println!("an unfinished connection: {each} bytes, of {share}");
    assert!(each <= share);
    drop((first, many));
}

#[test]
fn idle_link_frees_its_initial_message() {
    let count = 50;
    let mut server = TestServer::prepare(1, |builder| builder.observers_max(2 * count));
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let link = |linked: usize, message: &[u8]| {
        let before = server.allocated();
        let observers = server.strangers(count, message);
        eventually("the observers are linked", || {
            manager.linked_peers().len() == linked + count
        });
        (observers, server.allocated() - before)
    };
    let (_first, short) = link(0, &bare(Sid::OBSERVER.0));
    let (_second, long) = link(count, &claiming(V2, Sid::OBSERVER.0, 2048, &[b'|'; 2048]));
    println!(
        "a link: {} bytes, after a long initial message {}",
        short / count,
        long / count
    );
    assert!(long <= short + count * 1024, "{long} for {short}");
}

#[test]
fn idle_buffers_are_given_back() {
    let mut server = TestServer::prepare(1, |builder| builder.outbox(Outbox::QUEUE));
    let manager = CnxManager::start(server.config.take().unwrap()).unwrap();
    let mut members = server.members();
    let peer = &mut members[0];
    eventually("the member is linked", || {
        !manager.linked_peers().is_empty()
    });
    let flood = frame(vec![7; 20_000]).repeat(100);
    let idle = server.allocated();
    let mut batch = Batch::new();
    for _ in 0..3 {
        peer.write(&flood);
        let mut received = 0;
        while received < 100 {
            received += manager.recv_all(&mut batch).unwrap();
        }
        // The buffers of a batch are returned when the next one is asked for.
        assert!(manager.try_recv_all(&mut batch).is_err());
        fill_queue(&manager.handle(), Sid(2));
        let (mut remote, mut buffer) = (&peer.0, vec![0; 1 << 16]);
        remote.set_nonblocking(true).unwrap();
        eventually("the queue is written", || {
            let _ = remote.read(&mut buffer);
            manager.stats().sent.waiting == 0
        });
        remote.set_nonblocking(false).unwrap();
    }
    drop(batch);
    eventually("the buffers are freed", || {
        server.allocated() < idle + (256 << 10)
    });
}
