//! The setup of these tests: a manager with many members, whose connections the test holds.

use std::{
    net::TcpStream,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use quorum_cnx::{CnxManager, Config, ConfigBuilder, EventLoop, Handle, Handler, Stats};

use support::{
    crowd, eventually,
    many::{OWN, with_members},
    process::need_descriptors,
    within,
};

pub(crate) const MIB: u64 = 1 << 20;

/// These tests measure the memory of their process, so that only one of them may run at a time.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    // A failed test does not affect the others.
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A manager with so many members, all linked, and the members' ends of the links.
#[track_caller]
pub(crate) fn linked(
    members: i64,
    adjust: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> (CnxManager, Vec<TcpStream>) {
    need_descriptors(2 * members as u64 + 200);
    let (builder, address) = with_members(members);
    let manager = CnxManager::start(build(adjust(builder))).unwrap();
    let streams = crowd::members(1..=members, &address);
    eventually("all members are linked", || {
        manager.linked_peers().len() == members as usize
    });
    (manager, streams)
}

/// A loop with so many members, all linked, on a thread that returns it when it has ended; and the members' ends of the links.
#[track_caller]
pub(crate) fn run_loop<H: Handler + Send + 'static>(
    members: i64,
    adjust: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    handler: H,
) -> (Handle, JoinHandle<EventLoop<H>>, Vec<TcpStream>) {
    need_descriptors(2 * members as u64 + 200);
    let (builder, address) = with_members(members);
    let mut event_loop = EventLoop::new(build(adjust(builder)), handler).unwrap();
    let handle = event_loop.handle().clone();
    let thread = thread::spawn(move || {
        event_loop.run().unwrap();
        event_loop
    });
    let streams = crowd::members(1..=members, &address);
    eventually("all members are linked", || {
        handle.linked_peers().len() == members as usize
    });
    (handle, thread, streams)
}

/// Ends a loop, and returns it.
#[track_caller]
pub(crate) fn end<H: Handler + Send + 'static>(
    handle: &Handle,
    thread: JoinHandle<EventLoop<H>>,
) -> EventLoop<H> {
    handle.request_halt();
    within("the loop ends", move || thread.join().unwrap())
}

fn build(builder: ConfigBuilder) -> Config {
    builder.build().unwrap()
}

/// Frames received from each member, by sid.
pub(crate) fn received(stats: &Stats) -> Vec<u64> {
    let of_members = stats.peers.iter().filter(|peer| peer.sid != OWN);
    of_members.map(|peer| peer.received.frames).collect()
}

/// Checks that no link has ended, and that all counters balance.
#[track_caller]
pub(crate) fn assert_undisturbed(stats: &Stats, members: u64) {
    assert_eq!((stats.ups, &stats.downs), (members, &[].into()));
    assert_eq!(stats.connections, members);
    assert!(stats.sent.balances() && stats.inbox.balances(), "{stats:?}");
}
