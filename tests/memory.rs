//! What the library allocates when everybody does his worst, against `Config::max_memory`.
//!
//! The allocator counts for the whole process: one test after the other, and the far ends hold nothing of size.

#![cfg(target_os = "linux")]

use std::{
    io::{self, Read as _, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use peak_alloc::PeakAlloc;
use quorum_cnx::{
    CnxManager, Config, ConfigBuilder, EventLoop, Frame, Handle, Handler, InboxFull, Outbox,
    SendOutcome, Sid, Unknown,
    limits::{EVENTS_MAX, FRAME_BYTES_MAX, PLACE_BYTES, PREFIX_BYTES},
};
use support::{ABROAD, HOME, Puppet, V2, bare, claiming, configure, eventually, frame, listener};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Held while something is measured.
static ALONE: Mutex<()> = Mutex::new(());

const OWN: i64 = 1;

/// Nobody leaves by the clock.
const HOUR: Duration = Duration::from_secs(3600);

/// The largest frame on the wire, made before anything is measured.
struct Largest(Vec<u8>);

impl Largest {
    fn new() -> Self {
        Self(frame(vec![7; FRAME_BYTES_MAX]))
    }

    fn all_but_the_end(&self) -> &[u8] {
        &self.0[..self.0.len() - 1]
    }
}

/// A server that is about to start, whose peers are all larger and come in by themselves.
struct Worst {
    config: Option<Config>,
    address: String,
    members: Vec<i64>,
    ceiling: usize,
    base: usize,
    largest: Largest,
    _alone: MutexGuard<'static, ()>,
}

impl Worst {
    fn prepare(members: i64, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (listener, address) = listener();
        let members: Vec<i64> = (OWN + 1..=OWN + members).collect();
        // Nobody listens at these ports; whoever is there comes from there.
        let mut servers = vec![(OWN, address.clone())];
        let ports = members.iter().zip(1..);
        servers.extend(ports.map(|(sid, port)| (*sid, format!("{HOME}:{port}"))));
        let builder = configure(OWN, &servers)
            .listener(listener)
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
            _alone: alone,
        }
    }

    fn held(&self) -> usize {
        ALLOCATOR.current_usage().saturating_sub(self.base)
    }

    /// Links of all members.
    fn members(&self) -> Vec<Puppet> {
        let link = |sid: &i64| Puppet::say(HOME, &self.address, &bare(*sid));
        self.members.iter().map(link).collect()
    }

    /// Connections from elsewhere that begin with these bytes.
    fn strangers(&self, count: usize, said: &[u8]) -> Vec<Puppet> {
        let connect = |_| Puppet::say(ABROAD, &self.address, said);
        (0..count).map(connect).collect()
    }

    fn observers(&self, count: usize) -> Vec<Puppet> {
        self.strangers(count, &bare(Sid::OBSERVER.0))
    }

    /// Accepted connections that have said all but the last byte of the longest initial message.
    fn unfinished(&self, count: usize) -> Vec<Puppet> {
        self.strangers(count, &claiming(V2, 2, 2048, &[b'a'; 2047]))
    }

    /// Claims of members' sids from elsewhere, that wait for the links to end, with as much behind them as is read at once.
    fn contenders(&self) -> Vec<Puppet> {
        let claim = |sid: &i64| {
            let bytes = [bare(*sid), vec![0; 4080]].concat();
            Puppet::say(ABROAD, &self.address, &bytes)
        };
        self.members.iter().map(claim).collect()
    }

    /// Refusals, until no event that waits has room beside them.
    fn refusals(&self, handle: &Handle) {
        let before = refused(handle);
        let count = EVENTS_MAX as u64;
        for _ in 0..count {
            Puppet::say(ABROAD, &self.address, &claiming(V2, 2, -1, b"")).wait_closed();
        }
        eventually("they are refused", || refused(handle) >= before + count);
    }

    /// What is held when `known` bytes of it are known to have come, which must be close to what was promised.
    #[track_caller]
    fn verify(&self, known: usize) {
        eventually("everything has come", || self.held() >= known);
        let (held, ceiling) = (self.held(), self.ceiling);
        let peak = ALLOCATOR.peak_usage().saturating_sub(self.base);
        println!(
            "promised {} KiB, held {} KiB ({} %), at most {} KiB",
            ceiling >> 10,
            held >> 10,
            held * 100 / ceiling,
            peak >> 10
        );
        assert!(peak <= ceiling, "{peak} bytes, more than {ceiling}");
        assert!(held >= ceiling / 3, "{held} bytes, far less than {ceiling}");
    }
}

fn refused(handle: &Handle) -> u64 {
    handle.stats().rejected.values().sum()
}

/// Fills a slot: the last frame has arrived, another has begun to leave, and one waits. The far end reads the first only.
/// `turn`: gives the loop its time, if it has no thread.
fn fill_slot(handle: &Handle, sid: Sid, far: &Puppet, mut turn: impl FnMut()) {
    let send = |n| handle.to_send(sid, vec![n; FRAME_BYTES_MAX]).unwrap();
    send(1);
    let (mut far, mut left) = (&far.0, PREFIX_BYTES + FRAME_BYTES_MAX);
    far.set_nonblocking(true).unwrap();
    eventually("the first frame has arrived", || {
        turn();
        let mut stage = [0; 1 << 16];
        let room = left.min(stage.len());
        match far.read(&mut stage[..room]) {
            Ok(n) => left -= n,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        left == 0
    });
    eventually("the slot is full, behind one that has begun", || {
        turn();
        send(2) == SendOutcome::Superseded
    });
}

/// Fills a queue with frames that leave its buffers half empty.
fn fill_queue(handle: &Handle, sid: Sid) {
    let frame = [3; 14_200];
    while handle.to_send_slice(sid, &frame).is_ok() {}
}

#[test]
fn a_manager_whose_application_never_reads_stays_below_its_ceiling() {
    let (observers, pending) = (5, 64);
    let mut worst = Worst::prepare(3, |builder| {
        builder.observers_max(observers).pending_max(pending)
    });
    let manager = CnxManager::start(worst.config.take().unwrap()).unwrap();
    let mut peers = worst.members();
    eventually("the members are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    let contenders = worst.contenders();
    peers.extend(worst.observers(observers));
    eventually("the observers are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    for peer in &mut peers {
        for _ in 0..20 {
            peer.write(&worst.largest.0);
        }
        peer.write(worst.largest.all_but_the_end());
    }
    eventually("the inbox is full", || {
        let inbox = manager.stats().inbox;
        inbox.waiting == 100 && inbox.pushed == 20 * peers.len() as u64
    });
    worst.refusals(&manager.handle());
    let unfinished = worst.unfinished(pending);
    eventually("all of them wait", || {
        manager.stats().pending == (pending + contenders.len()) as u64
    });
    // Members first: the ids of observers are below zero, the first that came has the largest.
    let sids = [2, 3, 4].into_iter().chain((1..=5).map(|n| -n)).map(Sid);
    for (sid, far) in sids.zip(&peers) {
        fill_slot(&manager.handle(), sid, far, || {});
    }
    worst.verify((100 + 4 * peers.len()) * (FRAME_BYTES_MAX - 1));
    drop((unfinished, contenders));
}

#[test]
fn a_manager_with_queues_and_guests_stays_below_its_ceiling() {
    let bytes = 2 << 20;
    let inbox_bytes = 8 << 20;
    let waiting = inbox_bytes / (FRAME_BYTES_MAX + PLACE_BYTES);
    let mut worst = Worst::prepare(2, |builder| {
        builder
            .outbox(Outbox::Queue { bytes })
            .unknown(Unknown::Admit { max: 4 })
            .observers_max(2)
            .pending_max(16)
            .inbox_full(InboxFull::DropOldest)
            .inbox_frames(1 << 12)
            .inbox_bytes(inbox_bytes)
    });
    let manager = CnxManager::start(worst.config.take().unwrap()).unwrap();
    let mut peers = worst.members();
    peers.extend(worst.observers(2));
    let guest = |sid| {
        let names = vec!["127.0.0.66:1"; 32].join("|");
        let hello = claiming(V2, sid, names.len() as i32, names.as_bytes());
        Puppet::say(ABROAD, &worst.address, &hello)
    };
    peers.extend((100..104).map(guest));
    eventually("all are linked", || {
        manager.linked_peers().len() == peers.len()
    });
    for peer in &mut peers {
        for _ in 0..5 {
            peer.write(&worst.largest.0);
        }
        peer.write(worst.largest.all_but_the_end());
    }
    eventually("the inbox is full", || {
        let inbox = manager.stats().inbox;
        inbox.pushed == 5 * peers.len() as u64 && inbox.waiting == waiting as u64
    });
    let _unfinished = worst.unfinished(16);
    eventually("all of them wait", || manager.stats().pending == 16);
    for sid in manager.linked_peers() {
        fill_queue(&manager.handle(), sid);
    }
    worst.verify(waiting * FRAME_BYTES_MAX + peers.len() * (FRAME_BYTES_MAX + bytes - (32 << 10)));
}

#[test]
fn a_manager_that_slows_its_peers_stays_below_its_ceiling() {
    for payload in [1, 100, 20_000, FRAME_BYTES_MAX] {
        let mut worst = Worst::prepare(4, |builder| builder.outbox(Outbox::QUEUE));
        let manager = CnxManager::start(worst.config.take().unwrap()).unwrap();
        let peers = worst.members();
        let flood = frame(vec![7; payload]).repeat((64 << 10) / payload.min(64 << 10));
        let mut rests = vec![&flood[..0]; peers.len()];
        for peer in &peers {
            peer.0.set_nonblocking(true).unwrap();
        }
        // Until none of them can write any more for a while, since the loop reads none and the kernel is full.
        let mut stuck = 0;
        while stuck < 100 {
            stuck += 1;
            for (peer, rest) in peers.iter().zip(&mut rests) {
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
                // The loop may just be reading.
                stuck *= u32::from(manager.stats().inbox.waiting > 0);
            }
        }
        eventually("all of them were read", || {
            let peers = manager.stats().peers;
            peers.iter().all(|peer| peer.received.frames > 0)
        });
        assert_eq!(manager.stats().inbox.dropped, 0);
        let peak = ALLOCATOR.peak_usage().saturating_sub(worst.base);
        assert!(
            peak <= worst.ceiling,
            "{peak} bytes, more than {}",
            worst.ceiling
        );
    }
}

#[test]
fn a_loop_that_is_turned_by_the_application_stays_below_its_ceiling() {
    let mut worst = Worst::prepare(6, |builder| {
        builder.observers_max(0).pending_max(8).inbox_frames(20)
    });
    let mut event_loop = EventLoop::new(worst.config.take().unwrap(), Deaf).unwrap();
    let handle = event_loop.handle().clone();
    let peers = worst.members();
    eventually("the members are linked", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        handle.linked_peers().len() == peers.len()
    });
    for peer in &peers {
        // The kernel does not hold all of it while nobody reads.
        let (mut far, mut rest) = (&peer.0, worst.largest.all_but_the_end());
        far.set_nonblocking(true).unwrap();
        eventually("the kernel has taken it", || {
            event_loop.turn(Some(Duration::ZERO)).unwrap();
            match far.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            rest.is_empty()
        });
    }
    eventually("all that was sent was read", || {
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        worst.held() >= peers.len() * (FRAME_BYTES_MAX - 1)
    });
    for (n, far) in (2..).zip(&peers) {
        fill_slot(&handle, Sid(n), far, || {
            event_loop.turn(Some(Duration::ZERO)).unwrap();
        });
    }
    // Nobody turns the loop, and so nobody takes what it sends to itself.
    for _ in 0..30 {
        handle
            .to_send(Sid(OWN), vec![4; FRAME_BYTES_MAX])
            .expect("the oldest goes");
    }
    worst.verify((20 + 4 * peers.len()) * (FRAME_BYTES_MAX - 1));
}

/// Keeps nothing.
struct Deaf;

impl Handler for Deaf {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}

/// What `max_memory` has for connections covers what they take: with one more of them, it is more by more than that.
#[test]
fn a_connection_takes_no_more_than_its_row_of_the_table() {
    let ceiling = |pending| {
        let config = configure(OWN, &[(OWN, "127.0.0.1:0")]).pending_max(pending);
        usize::try_from(config.build().unwrap().max_memory()).unwrap()
    };
    let count = 250;
    let row = (ceiling(1 + count) - ceiling(1)) / count;
    let mut worst = Worst::prepare(1, |builder| builder.pending_max(1 + count));
    let manager = CnxManager::start(worst.config.take().unwrap()).unwrap();
    let first = worst.unfinished(1);
    eventually("it waits", || manager.stats().pending == 1);
    // The event queue grows with what else happens: it is full before anything is compared.
    worst.refusals(&manager.handle());
    let before = worst.held();
    let many = worst.unfinished(count);
    eventually("all of them wait", || {
        manager.stats().pending == 1 + count as u64
    });
    eventually("all that they said was read", || {
        worst.held() >= before + count * 2067
    });
    let each = (worst.held() - before) / count;
    println!("a connection that has said all but one byte: {each} bytes, of {row}");
    assert!(each <= row);
    drop((first, many));
}

#[test]
fn an_idle_link_keeps_nothing_of_its_initial_message() {
    let count = 50;
    let mut worst = Worst::prepare(1, |builder| builder.observers_max(2 * count));
    let manager = CnxManager::start(worst.config.take().unwrap()).unwrap();
    let link = |linked: usize, hello: &[u8]| {
        let before = worst.held();
        let observers = worst.strangers(count, hello);
        eventually("they are linked", || {
            manager.linked_peers().len() == linked + count
        });
        (observers, worst.held() - before)
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
