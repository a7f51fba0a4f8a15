//! Tests meshes of three to five servers, some of ZooKeeper's and some of ours, with their sids in several orders.

use std::{collections::HashSet, net::SocketAddr, thread, time::Duration};

use quorum_cnx::{CnxManager, Sid};
use support::configure;

use crate::{cnx_peer::CnxPeer, deadlines::wait_until, fixture::established_at, port::Port};

/// After how long a message between two of ZooKeeper's managers is repeated.
const REPEAT: Duration = Duration::from_millis(300);

enum Member {
    Java(CnxPeer),
    Ours(CnxManager),
}

impl Member {
    #[track_caller]
    fn send(&mut self, to: i64, text: &str) {
        match self {
            Self::Java(peer) => peer.send(to, text),
            Self::Ours(manager) => drop(manager.to_send(Sid(to), text.to_owned()).unwrap()),
        }
    }

    /// The next message and its sender, if it arrives within this time.
    fn recv_within(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        match self {
            Self::Java(peer) => peer.recv_within(time),
            Self::Ours(manager) => {
                let message = manager.recv_timeout(time).ok()?;
                Some((message.from.0, message.payload.to_vec()))
            }
        }
    }

    fn linked_peers(&mut self) -> Vec<i64> {
        match self {
            Self::Java(peer) => peer.linked_peers(),
            Self::Ours(manager) => manager.linked_peers().iter().map(|sid| sid.0).collect(),
        }
    }

    /// The number of its connections. ZooKeeper has two threads for each.
    fn connections(&mut self) -> usize {
        match self {
            Self::Java(peer) => peer.thread_count() / 2,
            Self::Ours(manager) => manager.stats().connections as usize,
        }
    }

    fn connect(&mut self, to: i64) {
        match self {
            Self::Java(peer) => peer.command(&format!("connect {to}")),
            Self::Ours(manager) => manager.connect_one(Sid(to)).unwrap(),
        }
    }

    fn drop_all(&mut self) {
        match self {
            Self::Java(peer) => peer.command("drop-all"),
            Self::Ours(manager) => manager.soft_halt(),
        }
    }
}

/// A mixed mesh: members with the sids 1, 2, 3 and so on.
struct Mixed {
    ports: Vec<Port>,
    members: Vec<Member>,
}

impl Mixed {
    /// Starts one member for each character: `J` is one of ZooKeeper's, any other one of ours.
    fn start(kinds: &str) -> Self {
        let ports: Vec<Port> = kinds.chars().map(|_| Port::new()).collect();
        let servers: Vec<(i64, SocketAddr)> =
            (1..).zip(ports.iter().map(|port| port.address)).collect();
        let start = |kind: char, sid: i64, port: &Port| {
            if kind == 'J' {
                return Member::Java(CnxPeer::start(sid, &servers, &[]));
            }
            let texts: Vec<_> = servers.iter().map(|(s, at)| (*s, at.to_string())).collect();
            let builder = configure(sid, &texts).listener(port.listen());
            Member::Ours(CnxManager::start(builder.build().unwrap()).unwrap())
        };
        let members = thread::scope(|scope| {
            let start = &start;
            // In parallel: virtual machines start slowly.
            let starting: Vec<_> = (1..)
                .zip(kinds.chars().zip(&ports))
                .map(|(sid, (kind, port))| scope.spawn(move || start(kind, sid, port)))
                .collect();
            let started = starting.into_iter().map(|thread| thread.join().unwrap());
            started.collect()
        });
        Self { ports, members }
    }

    fn sids(&self) -> impl Iterator<Item = i64> + use<> {
        1..=self.members.len() as i64
    }

    fn member(&mut self, sid: i64) -> &mut Member {
        &mut self.members[sid as usize - 1]
    }

    /// Whether both are ZooKeeper's. If two of them dial each other at once, they can lose the link and its messages, and they
    /// dial again only for the next message. A pair with one of ours has not this problem.
    fn are_java(&self, one: i64, other: i64) -> bool {
        let is_java = |sid: i64| matches!(self.members[sid as usize - 1], Member::Java(_));
        is_java(one) && is_java(other)
    }

    /// Sends a message from each member to each other one, and waits for all of them.
    #[track_caller]
    fn exchange(&mut self, prefix: &str) {
        let text = |from: i64, to: i64| format!("{prefix} {from} to {to}");
        for from in self.sids() {
            for to in self.sids().filter(|to| *to != from) {
                self.member(from).send(to, &text(from, to));
            }
        }
        for to in self.sids() {
            let mut missing: HashSet<i64> = self.sids().filter(|from| *from != to).collect();
            wait_until("all messages arrive", || {
                if let Some((from, payload)) = self.member(to).recv_within(REPEAT) {
                    // An earlier message may arrive again.
                    if payload == text(from, to).as_bytes() {
                        missing.remove(&from);
                    }
                } else {
                    for from in missing.iter().copied() {
                        if self.are_java(from, to) {
                            self.member(from).send(to, &text(from, to));
                        }
                    }
                }
                missing.is_empty()
            });
        }
    }

    /// Whether this member is linked with all others, as reported by itself and by the kernel.
    fn is_linked(&mut self, sid: i64) -> bool {
        let others: Vec<i64> = self.sids().filter(|other| *other != sid).collect();
        let larger = others.iter().filter(|other| **other > sid).count();
        let at = self.ports[sid as usize - 1].address;
        let linked = self.member(sid).linked_peers();
        for other in others.iter().copied() {
            if other < sid && !linked.contains(&other) && self.are_java(sid, other) {
                self.member(sid).connect(other);
            }
        }
        // Exactly the members with a larger sid have dialed this one.
        established_at(at) == larger
            && linked == others
            && self.member(sid).connections() == others.len()
    }

    /// Waits until exactly one connection joins each pair, as reported by all members and by the kernel.
    #[track_caller]
    fn await_one_connection_each(&mut self) {
        wait_until("exactly one connection joins each pair", || {
            self.sids().all(|sid| self.is_linked(sid))
        });
    }

    fn check(kinds: &str) {
        let mut mixed = Self::start(kinds);
        mixed.exchange("hello");
        mixed.await_one_connection_each();
        for member in &mut mixed.members {
            member.drop_all();
        }
        mixed.exchange("again");
        mixed.await_one_connection_each();
        mixed.exchange("still");
    }
}

#[test]
fn two_zookeepers_and_one_of_ours_form_one_mesh() {
    Mixed::check("JoJ");
}

#[test]
fn one_zookeeper_and_two_of_ours_form_one_mesh() {
    Mixed::check("oJo");
}

#[test]
fn five_mixed_servers_form_one_mesh() {
    Mixed::check("oJoJo");
}

#[test]
fn three_zookeepers_and_one_of_ours_form_one_mesh() {
    Mixed::check("JJoJ");
}
