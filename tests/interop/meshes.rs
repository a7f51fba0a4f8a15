//! Three to five servers, some of ZooKeeper's and some of ours, in every order of sids.

use std::{collections::HashSet, net::SocketAddr, thread};

use quorum_cnx::{CnxManager, Sid};

use crate::{
    cnx_peer::CnxPeer,
    common::configure,
    patience::{PATIENCE, patiently},
    port::Port,
    stage::established_at,
};

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

    #[track_caller]
    fn recv(&self) -> (i64, Vec<u8>) {
        match self {
            Self::Java(peer) => peer.recv(),
            Self::Ours(manager) => {
                let message = manager.recv_timeout(PATIENCE);
                let message = message.expect("a message comes in time");
                (message.from.0, message.payload.to_vec())
            }
        }
    }

    fn linked_peers(&mut self) -> Vec<i64> {
        match self {
            Self::Java(peer) => peer.linked_peers(),
            Self::Ours(manager) => manager.linked_peers().iter().map(|sid| sid.0).collect(),
        }
    }

    /// Sockets that are open, or what stands for them.
    fn connections(&mut self) -> usize {
        match self {
            Self::Java(peer) => peer.thread_count() / 2,
            Self::Ours(manager) => manager.stats().connections as usize,
        }
    }

    fn drop_all(&mut self) {
        match self {
            Self::Java(peer) => peer.order("drop-all"),
            Self::Ours(manager) => manager.soft_halt(),
        }
    }
}

/// Members with the sids 1, 2, 3 and so on.
struct Mixed {
    ports: Vec<Port>,
    members: Vec<Member>,
}

impl Mixed {
    /// `J` for one of ZooKeeper's, anything else for one of ours.
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
            // Virtual machines start slowly: all at once.
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

    /// Everybody sends to everybody, and hears everybody.
    #[track_caller]
    fn exchange(&mut self, word: &str) {
        for from in self.sids() {
            for to in self.sids().filter(|to| *to != from) {
                self.members[from as usize - 1].send(to, &format!("{word} {from} to {to}"));
            }
        }
        for to in self.sids() {
            let mut missing: HashSet<i64> = self.sids().filter(|from| *from != to).collect();
            while !missing.is_empty() {
                let (from, payload) = self.members[to as usize - 1].recv();
                // What came before may come again.
                if payload == format!("{word} {from} to {to}").as_bytes() {
                    missing.remove(&from);
                }
            }
        }
    }

    /// Waits until exactly one connection joins each pair, by everybody's account and by the kernel's.
    #[track_caller]
    fn await_one_connection_each(&mut self) {
        let sids: Vec<i64> = self.sids().collect();
        let ports = &self.ports;
        let members = &mut self.members;
        patiently("exactly one connection joins each pair", || {
            sids.iter().all(|sid| {
                let others: Vec<i64> = sids.iter().copied().filter(|other| other != sid).collect();
                let larger = others.iter().filter(|other| *other > sid).count();
                let at = *sid as usize - 1;
                // Those with a larger sid have dialed this one, and nobody else has.
                established_at(ports[at].address) == larger
                    && members[at].linked_peers() == others
                    && members[at].connections() == others.len()
            })
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
fn one_of_ours_between_two_zookeepers_is_one_of_them() {
    Mixed::check("JoJ");
}

#[test]
fn one_zookeeper_between_two_of_ours_is_one_of_us() {
    Mixed::check("oJo");
}

#[test]
fn five_servers_of_both_kinds_are_one_mesh() {
    Mixed::check("oJoJo");
}

#[test]
fn three_zookeepers_and_one_of_ours_are_one_mesh() {
    Mixed::check("JJoJ");
}
