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

/// Asks node 1, in the name of this node, whether it would vote.
fn pre_vote(from: u64) -> Vec<u8> {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgRequestPreVote);
    (message.from, message.to, message.term) = (from, 1, 9);
    message.write_to_bytes().unwrap()
}

#[test]
fn messages_that_cannot_be_answered_are_ignored() {
    let sockets = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |socket: &TcpListener| socket.local_addr().unwrap().to_string();
    let addresses = sockets.each_ref().map(address);
    let members: Vec<_> = (1..).zip(addresses).collect();
    let [one, two] = sockets;
    let mut server = Server::new(1, &members, one, Disk::new(vec![1, 2])).unwrap();
    let servers = members
        .iter()
        .map(|(id, address)| (Sid(*id as i64), address));
    let config = Config::builder(Sid(2))
        .servers(servers)
        .listener(two)
        .outbox(Outbox::QUEUE)
        .initial_message(InitialMessageVersion::Native);
    let peer = CnxManager::start(config.build().unwrap()).unwrap();
    for frame in [b"no message".to_vec(), pre_vote(u64::MAX), pre_vote(2)] {
        peer.to_send(Sid(1), frame).unwrap();
    }
    let deadline = Instant::now() + LONG;
    let is_answer = |frame: &[u8]| {
        let message = Message::parse_from_bytes(frame).unwrap();
        message.get_msg_type() == MessageType::MsgRequestPreVoteResponse
    };
    // The last one has an answer: the node goes on.
    while !peer
        .try_recv()
        .is_ok_and(|answer| is_answer(&answer.payload))
    {
        assert!(Instant::now() < deadline, "no answer");
        assert!(server.turn(Duration::from_millis(10)).unwrap());
    }
}
