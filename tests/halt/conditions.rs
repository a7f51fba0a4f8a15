//! Everything that may be going on when a manager is halted.
//!
//! Nothing here halts; each condition is there for certain when it has been laid.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{Batch, Idle, Outbox, SendError, Sid, limits};
use socket2::SockRef;

use crate::{
    callers::Caller,
    common::{ABROAD, LONG, Puppet, V1, bare, crowd::Crowd, eventually, frame, process, versioned},
    scene::{MEMBERS, OWN, Scene},
    things::{self, BlackHole, Busy, Shortage, SlowNames},
};

pub(crate) struct Condition {
    pub(crate) name: &'static str,
    whose: Whose,
    pub(crate) lay: fn(&mut Scene),
}

/// To which way of using the library it can happen.
enum Whose {
    Anybodys,
    Managers,
    Loops,
}

impl Condition {
    pub(crate) fn is_for(&self, caller: Caller) -> bool {
        match self.whose {
            Whose::Anybodys => true,
            Whose::Managers => caller.has_a_manager(),
            Whose::Loops => !caller.has_a_manager(),
        }
    }
}

const fn anybodys(name: &'static str, lay: fn(&mut Scene)) -> Condition {
    Condition {
        name,
        whose: Whose::Anybodys,
        lay,
    }
}

pub(crate) const CONDITIONS: &[Condition] = &[
    anybodys("it has just started", |scene| {
        scene.start();
    }),
    anybodys("nothing is going on", quiet),
    anybodys("it spins", |scene| {
        let for_at_most = Duration::from_secs(60);
        scene.shape(|builder| builder.idle(Idle::Spin { for_at_most }));
        quiet(scene);
    }),
    anybodys("1000 links pour, nobody listens", crowd),
    anybodys("a firehose", firehose),
    anybodys("64 threads send to many", |scene| {
        senders(scene, Outbox::Latest)
    }),
    anybodys("the same with queues", |scene| {
        senders(scene, Outbox::QUEUE)
    }),
    anybodys("64 threads wait for room", |scene| {
        waiters(scene, Outbox::Latest)
    }),
    anybodys("the same for a queue", |scene| {
        waiters(scene, Outbox::QUEUE)
    }),
    anybodys("longest frames, nobody reads", clogged),
    anybodys("500 silent connections", silent),
    anybodys("500 half initial messages", half_said),
    anybodys("connect and reset at full speed", storm),
    anybodys("claims of linked sids", claims),
    anybodys("a knock not hung up", knock),
    anybodys("dials into a black hole", black_hole),
    anybodys("lookups that hang", slow_names),
    anybodys("out of descriptors", shortage),
    Condition {
        name: "threads wait for messages",
        whose: Whose::Managers,
        lay: receivers,
    },
    Condition {
        name: "a slow handler, 100 links pour",
        whose: Whose::Loops,
        lay: slow_handler,
    },
];

fn quiet(scene: &mut Scene) {
    scene.start();
    let ends = scene.link(1..=3);
    scene.watch(ends);
}

/// These members say 100 bytes as fast as they can.
fn pour(scene: &mut Scene, members: i64) {
    process::need_descriptors(2 * members as u64 + 200);
    let handle = scene.start();
    let streams = crate::common::crowd::members(1..=members, scene.address());
    eventually("all members are linked", || {
        handle.linked_peers().len() == members as usize
    });
    scene.keep(Crowd::pour(streams, frame([7; 100]).repeat(630)));
}

fn crowd(scene: &mut Scene) {
    pour(scene, MEMBERS);
    let handle = scene.handle();
    eventually("they are heard", || {
        handle.stats().received.frames > 100_000
    });
}

fn firehose(scene: &mut Scene) {
    pour(scene, 1);
    let handle = scene.handle();
    eventually("it is heard", || handle.stats().received.frames > 100_000);
}

fn slow_handler(scene: &mut Scene) {
    scene.slow_down(Duration::from_millis(5));
    pour(scene, 100);
    // Those of its first burst alone would take seconds.
    eventually("somebody is heard", || scene.heard() > 0);
}

/// Sixty-four threads send to members that read.
fn senders(scene: &mut Scene, outbox: Outbox) {
    const READERS: i64 = 16;
    scene.shape(|builder| builder.outbox(outbox));
    let handle = scene.start();
    let ends = scene.link(1..=READERS).into_iter().map(|end| end.0);
    scene.keep(Crowd::drain(ends.collect()));
    let (sender, sent) = (handle.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&sent);
    scene.keep(Busy::start(64, move |nth| {
        let to = Sid(1 + nth as i64 % READERS);
        count.fetch_add(1, Ordering::AcqRel);
        // No room is no end.
        sender.to_send(to, vec![7; 100]) != Err(SendError::Halted)
    }));
    eventually("they are sending", || sent.load(Ordering::Acquire) > 10_000);
}

/// Sixty-four threads wait for a member that does not read.
fn waiters(scene: &mut Scene, outbox: Outbox) {
    scene.shape(|builder| builder.outbox(outbox));
    let handle = scene.start();
    let ends = scene.link([1]);
    fill(scene);
    scene.watch(ends);
    let sender = handle.clone();
    scene.keep(Busy::start(64, move |_| {
        sender.wait_for_room(Sid(1), LONG).unwrap();
        !sender.is_halted()
    }));
    eventually("nothing more leaves", || !handle.have_delivered());
}

/// Sends the longest frames to the first member, until its socket and then the outbox are full.
fn fill(scene: &Scene) {
    let handle = scene.handle();
    eventually("no frame has room any more", || {
        let _ = handle.to_send(Sid(1), vec![7; limits::FRAME_BYTES_MAX]);
        handle.wait_for_room(Sid(1), Duration::ZERO) == Ok(false)
    });
}

/// Both ways: a member that does not read, and one that says half a frame.
fn clogged(scene: &mut Scene) {
    scene.start();
    let mut ends = scene.link([1, 2]);
    fill(scene);
    let longest = frame(vec![7; limits::FRAME_BYTES_MAX]);
    ends[1].write(&longest[..longest.len() / 2]);
    scene.watch(ends);
}

const STRANGERS: usize = 500;

/// Strangers that connect, say this, and wait.
fn strangers(scene: &mut Scene, said: &[u8]) {
    process::need_descriptors(2 * STRANGERS as u64 + 200);
    scene.shape(|builder| builder.pending_max(STRANGERS));
    let handle = scene.start();
    let address = scene.address().to_owned();
    let strangers = (0..STRANGERS).map(|_| Puppet::say(ABROAD, &address, said));
    let strangers: Vec<Puppet> = strangers.collect();
    eventually("all of them are pending", || {
        handle.stats().pending == STRANGERS as u64
    });
    scene.watch(strangers);
}

fn silent(scene: &mut Scene) {
    strangers(scene, b"");
}

fn half_said(scene: &mut Scene) {
    let hello = versioned(V1, 1, "127.0.0.1:3888");
    strangers(scene, &hello[..hello.len() - 1]);
}

fn storm(scene: &mut Scene) {
    let handle = scene.start();
    let address = scene.address().to_owned();
    scene.keep(Busy::start(2, move |_| {
        if let Some(stream) = things::try_dial(&address) {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        } else {
            // Nobody is there any more.
            thread::yield_now();
        }
        true
    }));
    eventually("they come", || handle.stats().accepted > 100);
}

fn claims(scene: &mut Scene) {
    let handle = scene.start();
    let members = scene.link(1..=20);
    let address = scene.address().to_owned();
    let claims: Vec<Puppet> = (1..=20)
        .map(|sid| Puppet::say(ABROAD, &address, &[bare(sid), frame("forged")].concat()))
        .collect();
    eventually("the contenders wait", || handle.stats().pending == 20);
    scene.watch(members);
    scene.watch(claims);
}

/// A larger member that is connected to, and says nothing to the knock.
fn knock(scene: &mut Scene) {
    let (listener, address) = crate::common::listener();
    let knocked = Sid(MEMBERS + 1);
    scene.shape(|builder| builder.server(knocked, address));
    let handle = scene.start();
    handle.connect_one(knocked).unwrap();
    let mut end = Puppet::accept(&listener);
    assert_eq!(end.hello().sid, OWN.0);
    scene.watch([end]);
}

fn black_hole(scene: &mut Scene) {
    let holes: Vec<BlackHole> = (0..20).map(|_| BlackHole::new()).collect();
    let addresses: Vec<String> = holes.iter().map(|hole| hole.address.clone()).collect();
    scene.shape(|mut builder| {
        for (sid, address) in (MEMBERS + 1..).zip(addresses) {
            builder = builder.server(Sid(sid), address);
        }
        builder
    });
    let handle = scene.start();
    for nth in 1..=holes.len() as i64 {
        handle.connect_one(Sid(MEMBERS + nth)).unwrap();
    }
    eventually("they are dialed", || handle.stats().connections == 20);
    scene.keep(holes);
}

fn slow_names(scene: &mut Scene) {
    scene.shape(|mut builder| {
        for nth in 1..=20 {
            builder = builder.server(Sid(MEMBERS + nth), format!("nobody{nth}:3888"));
        }
        builder
    });
    let handle = scene.start();
    for nth in 1..=20 {
        handle.connect_one(Sid(MEMBERS + nth)).unwrap();
    }
    eventually("the lookups hang", || {
        assert_eq!(
            handle.stats().dial_failures,
            0,
            "NOT RUN: names do not hang; this test needs glibc"
        );
        things::lookups() == limits::LOOKUPS_MAX
    });
    scene.keep(SlowNames);
}

fn shortage(scene: &mut Scene) {
    let handle = scene.start();
    let ends = scene.link(1..=3);
    let address = scene.address().to_owned();
    let last = things::Waiting::new();
    let limit = Shortage::of_all_but(20);
    // Who connects and who accepts take them from each other, until the one who has his already connects as well.
    let strangers: Vec<_> = std::iter::from_fn(|| things::try_dial(&address)).collect();
    let last = last.dial(&address);
    eventually("somebody cannot be accepted", || {
        handle.stats().accept_failures > 0
    });
    scene.watch(ends);
    scene.keep((strangers, last, limit));
}

fn receivers(scene: &mut Scene) {
    scene.start();
    let manager = scene.manager().expect("this is for managers");
    scene.keep(Busy::start(8, move |nth| match nth % 4 {
        0 => manager.recv().is_ok(),
        1 => manager.recv_all(&mut Batch::new()).is_ok(),
        2 => manager.events().recv().is_ok(),
        _ => manager.recv_timeout(LONG).is_ok(),
    }));
    let ends = scene.link(1..=3);
    scene.watch(ends);
}
