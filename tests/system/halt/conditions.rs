//! The conditions under which a manager or a loop is halted. Each one is certain to hold when its setup returns.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{Batch, ConfigBuilder, Handle, Idle, Outbox, SendError, Sid, simulation::limits};
use socket2::SockRef;
use support::{
    LONG, STRANGER_IP, TestConnection, V1, bare, crowd::LoadThread, eventually, frame, many::OWN,
    process, versioned,
};

use crate::{
    callers::Caller,
    resources::{self, BlackHole, DescriptorLimit, HangingLookups, busy_threads},
    setup::{MEMBERS, Setup},
};

pub(crate) struct Condition {
    pub(crate) name: &'static str,
    /// Whether it applies to what this caller halts.
    pub(crate) is_for: fn(Caller) -> bool,
    pub(crate) set_up: fn(&mut Setup),
}

const fn for_both(name: &'static str, set_up: fn(&mut Setup)) -> Condition {
    let is_for = |_| true;
    Condition {
        name,
        is_for,
        set_up,
    }
}

pub(crate) const CONDITIONS: &[Condition] = &[
    for_both("just started", |setup| {
        setup.start();
    }),
    for_both("idle links", idle),
    for_both("spinning loop", |setup| {
        let for_at_most = Duration::from_secs(60);
        setup.adjust(|builder| builder.idle(Idle::spin(for_at_most)));
        idle(setup);
    }),
    for_both("1000 links send, messages are not taken", |setup| {
        flood(setup, MEMBERS)
    }),
    for_both("one link sends at full speed", |setup| flood(setup, 1)),
    for_both("64 threads send to many", |setup| {
        senders(setup, Outbox::Latest)
    }),
    for_both("64 threads send to many, queues", |setup| {
        senders(setup, Outbox::QUEUE)
    }),
    for_both("64 threads wait for room", |setup| {
        waiters(setup, Outbox::Latest)
    }),
    for_both("64 threads wait for room, queue", |setup| {
        waiters(setup, Outbox::QUEUE)
    }),
    for_both("longest frames, peer does not read", full_both_ways),
    for_both("500 silent connections", |setup| strangers(setup, b"")),
    for_both("500 half initial messages", |setup| {
        let message = versioned(V1, 1, "127.0.0.1:3888");
        strangers(setup, &message[..message.len() - 1]);
    }),
    for_both("connect and reset at full speed", connect_and_reset),
    for_both("claims of linked sids", claims),
    for_both("a knock that the peer keeps open", knock),
    for_both("dials into a black hole", black_hole),
    for_both("lookups that hang", hanging_lookups),
    for_both("out of descriptors", no_descriptors),
    Condition {
        name: "threads wait for messages",
        is_for: Caller::has_a_manager,
        set_up: receivers,
    },
    Condition {
        name: "a slow handler, 100 links send",
        is_for: |caller| !caller.has_a_manager(),
        set_up: slow_handler,
    },
];

fn idle(setup: &mut Setup) {
    setup.start();
    let ends = setup.link(1..=3);
    setup.expect_closed(ends);
}

/// These members send frames of 100 bytes as fast as they can.
fn send_at_full_speed(setup: &mut Setup, members: i64) {
    process::need_descriptors(2 * members as u64 + 200);
    let handle = setup.start();
    let streams = support::crowd::members(1..=members, setup.address());
    eventually("all members are linked", || {
        handle.linked_peers().len() == members as usize
    });
    setup.keep(LoadThread::write(streams, frame([7; 100]).repeat(630)));
}

/// The same, and waits until many of their frames have arrived.
fn flood(setup: &mut Setup, members: i64) {
    send_at_full_speed(setup, members);
    let handle = setup.handle();
    eventually("their frames arrive", || {
        handle.stats().received.frames > 100_000
    });
}

fn slow_handler(setup: &mut Setup) {
    setup.set_delay(Duration::from_millis(5));
    send_at_full_speed(setup, 100);
    // The frames of the first read alone take seconds.
    eventually("the handler has a frame", || setup.handled() > 0);
}

/// Sixty-four threads send to members that read.
fn senders(setup: &mut Setup, outbox: Outbox) {
    const READERS: i64 = 16;
    setup.adjust(|builder| builder.outbox(outbox));
    let handle = setup.start();
    let ends = setup.link(1..=READERS).into_iter().map(|end| end.0);
    setup.keep(LoadThread::read(ends.collect()));
    let (sender, sent) = (handle.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&sent);
    setup.keep(busy_threads(64, move |nth| {
        let to = Sid(1 + nth as i64 % READERS);
        count.fetch_add(1, Ordering::AcqRel);
        // A full queue is no reason to stop.
        sender.to_send(to, vec![7; 100]) != Err(SendError::Halted)
    }));
    eventually("they are sending", || sent.load(Ordering::Acquire) > 10_000);
}

/// Sixty-four threads wait for a member that does not read.
fn waiters(setup: &mut Setup, outbox: Outbox) {
    setup.adjust(|builder| builder.outbox(outbox));
    let handle = setup.start();
    let ends = setup.link([1]);
    fill(setup);
    setup.expect_closed(ends);
    let sender = handle.clone();
    setup.keep(busy_threads(64, move |_| {
        sender.wait_for_room(Sid(1), LONG).unwrap();
        !sender.is_halted()
    }));
    eventually("frames wait", || !handle.have_delivered());
}

/// Sends the longest frames to the first member, until its socket and then the outbox are full.
fn fill(setup: &Setup) {
    let handle = setup.handle();
    eventually("there is no room for a frame", || {
        let _ = handle.to_send(Sid(1), vec![7; limits::FRAME_BYTES_MAX]);
        handle.wait_for_room(Sid(1), Duration::ZERO) == Ok(false)
    });
}

/// A member that does not read, and one that sends half a frame.
fn full_both_ways(setup: &mut Setup) {
    setup.start();
    let mut ends = setup.link([1, 2]);
    fill(setup);
    let longest = frame(vec![7; limits::FRAME_BYTES_MAX]);
    ends[1].write(&longest[..longest.len() / 2]);
    setup.expect_closed(ends);
}

const STRANGERS: usize = 500;

/// Strangers that connect, send these bytes, and wait.
fn strangers(setup: &mut Setup, bytes: &[u8]) {
    process::need_descriptors(2 * STRANGERS as u64 + 200);
    setup.adjust(|builder| builder.pending_max(STRANGERS));
    let handle = setup.start();
    let address = setup.address().to_owned();
    let strangers =
        (0..STRANGERS).map(|_| TestConnection::dial_and_write(STRANGER_IP, &address, bytes));
    let strangers: Vec<TestConnection> = strangers.collect();
    eventually("all of them are pending", || {
        handle.stats().pending == STRANGERS as u64
    });
    setup.expect_closed(strangers);
}

fn connect_and_reset(setup: &mut Setup) {
    let handle = setup.start();
    let address = setup.address().to_owned();
    setup.keep(busy_threads(2, move |_| {
        if let Ok(stream) = TcpStream::connect(&address) {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        } else {
            // The listener is closed.
            thread::yield_now();
        }
        true
    }));
    eventually("connections arrive", || handle.stats().accepted > 100);
}

fn claims(setup: &mut Setup) {
    let handle = setup.start();
    let members = setup.link(1..=20);
    let address = setup.address().to_owned();
    let claims: Vec<TestConnection> = (1..=20)
        .map(|sid| {
            TestConnection::dial_and_write(
                STRANGER_IP,
                &address,
                &[bare(sid), frame("forged")].concat(),
            )
        })
        .collect();
    eventually("the contenders wait", || handle.stats().pending == 20);
    setup.expect_closed(members);
    setup.expect_closed(claims);
}

/// A larger member that accepts the knock and does not close it.
fn knock(setup: &mut Setup) {
    let (listener, address) = support::listener();
    let knocked = Sid(MEMBERS + 1);
    setup.adjust(|builder| builder.server(knocked, address));
    let handle = setup.start();
    handle.connect_one(knocked).unwrap();
    let mut end = TestConnection::accept(&listener);
    assert_eq!(end.read_initial_message().sid, OWN.0);
    setup.expect_closed([end]);
}

/// Starts, and dials further members at these addresses.
fn start_dialing(setup: &mut Setup, addresses: Vec<String>) -> Handle {
    let members: Vec<_> = (MEMBERS + 1..).map(Sid).zip(addresses).collect();
    setup.adjust(|builder| {
        let add =
            |builder: ConfigBuilder, (sid, address): &(Sid, String)| builder.server(*sid, address);
        members.iter().fold(builder, add)
    });
    let handle = setup.start();
    for (sid, _) in members {
        handle.connect_one(sid).unwrap();
    }
    handle
}

fn black_hole(setup: &mut Setup) {
    let black_holes: Vec<BlackHole> = (0..20).map(|_| BlackHole::new()).collect();
    let addresses: Vec<String> = black_holes
        .iter()
        .map(|hole| hole.address.clone())
        .collect();
    let handle = start_dialing(setup, addresses);
    eventually("all are dialed", || handle.stats().connections == 20);
    setup.keep(black_holes);
}

fn hanging_lookups(setup: &mut Setup) {
    let names = (1..=20).map(|nth| format!("nobody{nth}:3888"));
    let handle = start_dialing(setup, names.collect());
    eventually("the lookups hang", || {
        assert_eq!(
            handle.stats().dial_failures,
            0,
            "NOT RUN: lookups do not hang; this test needs glibc"
        );
        resources::lookups() == limits::LOOKUPS_MAX
    });
    setup.keep(HangingLookups);
}

fn no_descriptors(setup: &mut Setup) {
    let handle = setup.start();
    let ends = setup.link(1..=3);
    let address = setup.address().to_owned();
    let last = resources::tcp();
    let limit = DescriptorLimit::with_spare(20);
    // Dialers and the loop take the free descriptors. Then the reserved socket, which has one, connects.
    let strangers: Vec<_> = std::iter::from_fn(|| TcpStream::connect(&address).ok()).collect();
    let address: SocketAddr = address.parse().unwrap();
    last.connect(&address.into()).unwrap();
    eventually("a connection cannot be accepted", || {
        handle.stats().accept_failures > 0
    });
    setup.expect_closed(ends);
    setup.keep((strangers, last, limit));
}

fn receivers(setup: &mut Setup) {
    setup.start();
    let manager = setup.manager().expect("this condition applies to managers");
    setup.keep(busy_threads(8, move |nth| match nth % 4 {
        0 => manager.recv().is_ok(),
        1 => manager.recv_all(&mut Batch::new()).is_ok(),
        2 => manager.events().recv().is_ok(),
        _ => manager.recv_timeout(LONG).is_ok(),
    }));
    let ends = setup.link(1..=3);
    setup.expect_closed(ends);
}
