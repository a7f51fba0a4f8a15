//! What a member may send that no correct node sends.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use on_raft_rs::{Disk, Server};
use protobuf::Message as _;
use quorum_cnx::{CnxManager, Config, InitialMessageVersion, Outbox, Sid};
use raft::eraftpb::{Message, MessageType};

/// A deadline for what takes milliseconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

/// The two members, with the sockets that listen for them.
fn members() -> (Vec<(u64, String)>, [TcpListener; 2]) {
    let sockets = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |socket: &TcpListener| socket.local_addr().unwrap().to_string();
    let addresses = sockets.each_ref().map(address);
    ((1..).zip(addresses).collect(), sockets)
}

/// Member 2, which is not raft.
fn faulty(members: &[(u64, String)], socket: TcpListener) -> CnxManager {
    let sid = |id: u64| Sid::try_from(id).unwrap();
    let servers = members.iter().map(|(id, address)| (sid(*id), address));
    let config = Config::builder(Sid(2))
        .servers(servers)
        .listener(socket)
        .outbox(Outbox::QUEUE)
        .initial_message(InitialMessageVersion::Native);
    CnxManager::start(config.build().unwrap()).unwrap()
}

fn message(message_type: MessageType, from: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(message_type);
    (message.from, message.to, message.term) = (from, 1, 9);
    message
}

/// Asks node 1, in the name of this node, whether it would vote.
fn pre_vote(from: u64) -> Vec<u8> {
    let message = message(MessageType::MsgRequestPreVote, from);
    message.write_to_bytes().unwrap()
}

#[test]
fn bytes_that_are_no_message_end_the_link() {
    let (members, [one, two]) = members();
    let mut server = Server::new(1, &members, one, Disk::new(vec![1, 2])).unwrap();
    let peer = faulty(&members, two);
    peer.to_send(Sid(1), "no message").unwrap();
    let deadline = Instant::now() + LONG;
    while peer.stats().downs.is_empty() {
        assert!(Instant::now() < deadline, "the link does not end");
        assert!(server.turn(Duration::from_millis(10)).unwrap());
    }
}

#[test]
fn messages_that_cannot_be_answered_are_ignored() {
    let (members, [one, two]) = members();
    let mut server = Server::new(1, &members, one, Disk::new(vec![1, 2])).unwrap();
    let peer = faulty(&members, two);
    for frame in [pre_vote(u64::MAX), pre_vote(2)] {
        peer.to_send(Sid(1), frame).unwrap();
    }
    let is_answer = |frame: &[u8]| {
        let message = Message::parse_from_bytes(frame).unwrap();
        message.get_msg_type() == MessageType::MsgRequestPreVoteResponse
    };
    let deadline = Instant::now() + LONG;
    // The last one has an answer: the node goes on.
    while !peer
        .try_recv()
        .is_ok_and(|answer| is_answer(&answer.payload))
    {
        assert!(Instant::now() < deadline, "no answer");
        assert!(server.turn(Duration::from_millis(10)).unwrap());
    }
}

#[test]
fn unreadable_snapshot_does_not_reach_the_disk() {
    let (members, [one, two]) = members();
    let disk = Disk::new(vec![1, 2]);
    let mut server = Server::new(1, &members, one, disk.clone()).unwrap();
    let peer = faulty(&members, two);
    let mut message = message(MessageType::MsgSnapshot, 2);
    let snapshot = message.mut_snapshot();
    snapshot.set_data(vec![0xff; 100].into());
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (100, 9);
    metadata.mut_conf_state().set_voters(vec![1, 2]);
    peer.to_send(Sid(1), message.write_to_bytes().unwrap())
        .unwrap();
    let deadline = Instant::now() + LONG;
    while server.turn(Duration::from_millis(10)).is_ok() {
        assert!(Instant::now() < deadline, "the node goes on");
    }
    // It goes on after a restart, with what it had.
    drop(server);
    assert_eq!(disk.snapshot_index(), 0);
    let socket = TcpListener::bind(&members[0].1).unwrap();
    let mut server = Server::new(1, &members, socket, disk).unwrap();
    assert!(server.turn(Duration::ZERO).unwrap());
}
