//! What these tests start from: a manager with many members, which are connections in the test's own hands.
//!
//! Nothing here is measured.

use std::{
    net::TcpStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

use quorum_cnx::{CnxManager, Config, ConfigBuilder, Dial, Sid, Stats};

use crate::common::{configure, crowd, eventually, listener, process::need_descriptors};

/// The one that is overloaded. It is the smallest, so that the others dial it and keep their connections.
pub(crate) const OWN: Sid = Sid(0);

pub(crate) const MIB: u64 = 1 << 20;

/// These tests look at the memory of their process, in which only one of them may be at work.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // Whoever has failed before concerns nobody else.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A configuration with so many members besides the own server, which waits for them to come; and its address.
pub(crate) fn crowded(members: i64) -> (ConfigBuilder, String) {
    let (listener, own) = listener();
    let mut servers = vec![(OWN.0, own.clone())];
    // Nobody listens there, and nobody is dialed.
    servers.extend((1..=members).map(|sid| (sid, format!("127.0.0.1:{sid}"))));
    let builder = configure(OWN.0, &servers).listener(listener);
    (builder.dial(Dial::OnDemand), own)
}

/// A manager with so many members, all linked, and their ends of the links.
#[track_caller]
pub(crate) fn linked(
    members: i64,
    shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> (CnxManager, Vec<TcpStream>) {
    need_descriptors(2 * members as u64 + 200);
    let (builder, address) = crowded(members);
    let manager = CnxManager::start(build(shape(builder))).unwrap();
    let streams = crowd::members(1..=members, &address);
    eventually("all members are linked", || {
        manager.linked_peers().len() == members as usize
    });
    (manager, streams)
}

pub(crate) fn build(builder: ConfigBuilder) -> Config {
    builder.build().unwrap()
}

/// Frames that have come from each member, by sid.
pub(crate) fn received(stats: &Stats) -> Vec<u64> {
    let of_members = stats.peers.iter().filter(|peer| peer.sid != OWN);
    of_members.map(|peer| peer.received.frames).collect()
}

/// The links are those of the beginning, and every sum balances.
#[track_caller]
pub(crate) fn assert_undisturbed(stats: &Stats, members: u64) {
    assert_eq!((stats.ups, &stats.downs), (members, &[].into()));
    assert_eq!(stats.connections, members);
    assert!(stats.sent.balances() && stats.inbox.balances(), "{stats:?}");
}
